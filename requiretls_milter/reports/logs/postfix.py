"""Postfix's log lines about a message: when it came, what became of it, when it left. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

BEGIN = re.compile(
    r"(?<![^\s\]:|>])(?P<queue_id>[0-9A-Za-z]{5,32}): ?"
    r"(?P<what>to=<|client=|uid=|(?:resent-)?message-id=|removed\s*$)"
)
"""Where such a line begins, behind whatever stands before it."""

TAG = re.compile(
    r"(?<![^\s\]:|>])[\w.-]+/(?:[\w.-]+/)*(?:anvil|bounce|cleanup|discard|dnsblog|error|flush|lmtp"
    r"|local|master|pickup|pipe|postdrop|postfix-script|postlogd?|postqueue|postscreen|postsuper"
    r"|proxymap|proxywrite|n?qmgr|retry|scache|sendmail|showq|smtpd?|spawn|tlsmgr|tlsproxy"
    r"|trivial-rewrite|verify|virtual)(?=[\[\]:\s])"
)
"""The name of a Postfix program as it stands before a message: ``postfix/smtp[204]:``."""

MAX_SAID = 500
"""Characters that are kept of the text of an attempt."""

MAX_ADDRESS = 1000
"""Characters that are kept of an address or a host: more than RFC 5321 section 4.5.3.1 has."""

_ADDRESS = r'<((?:"(?:[^"\\]|\\.)*"|[^">])*|[^>]*)>'
"""An address, whose local part may be a quoted string with any character in it."""

_ATTEMPT = re.compile(
    rf"to={_ADDRESS}(?:, orig_to={_ADDRESS})?(?:, relay=(?P<relay>[^,]*)(?P<rest>.*))?", re.DOTALL
)
_STATUS = re.compile(
    r"(?P<before>(?:, [a-z_]+=[^,(]*)*?), dsn=(?P<status>[245]\.\d{1,3}\.\d{1,3}), "
    r"status=(?P<word>[A-Za-z]+)(?: \((?P<said>.*))?",
    re.DOTALL,
)
_TLS = re.compile(r", tls=(\S+)")
_QUEUED = re.compile(r"\bqueued as ([0-9A-Za-z]{5,32})\b(?!.*\bqueued as )")

_SUSPENDED = "delivery temporarily suspended: "
"""The queue manager avoids a next hop that has failed: the line is no attempt of its own."""

_LATER = re.compile(
    r"\(in reply to (?:MAIL FROM|RCPT TO|DATA|end of DATA|XFORWARD|\.)"
    r"|(?:^lost connection with|^conversation with) .* while sending "
    r"|^SASL (?:\[CACHED\] )?authentication fail"
    r"|^message size \d+ exceeds size limit "
    r"|\bSMTPUTF8\b.*\bno server was found that supports SMTPUTF8"
    r"|^SMTPUTF8 is required, but was not offered",
    re.IGNORECASE,
)
_LATER_STATUS = re.compile(r"[45]\.(?:3\.4|6\.7|7\.8)")
"""A message too large, SMTPUTF8, and failed authentication, whatever their text is."""

_REPLY = re.compile(r"host \S+ said: ")
"""A reply of the server; which command it answers stands at its end, which may have been cut."""

_REFUSED = re.compile(r"connect to (\S+\[[^\]]*\](?::\d+)?): ")
"""Where there was no connection; the relay is "none" then."""

_VIA_PIPE = re.compile(r"delivered via \S+ service")


class LogDelivery(NamedTuple):
    """One attempt for one recipient.

    ``status`` is "" if the line was cut before it, ``tls`` before Postfix 3.11. ``soft`` says that
    soft_bounce made the failure a temporary one. ``later`` is a failure behind all that a probe of
    the server can see.
    """

    queue_id: str
    recipient: str
    """As the milter saw it: before Postfix expanded an alias."""
    to: str
    """As it was handed over."""
    relay: str
    """The server, also if there was no connection with it."""
    status: str
    tls: str
    said: str
    soft: bool
    later: bool
    queued_as: str
    """The queue ID that the server told, if it did."""
    piped: bool
    """Whether a program took the message: a filter, for a recipient that is not local."""


def delivery(queue_id: str, text: str) -> LogDelivery | None:
    """The attempt in a message of Postfix after ``queue_id:``; None if it is none."""
    match = _ATTEMPT.match(text)
    if match is None:
        return None
    end = text[match.end() :]
    if match["relay"] is None and end.strip() and not ", relay=".startswith(end.strip(" ")):
        return None  # another program's
    to, alias = match[1][:MAX_ADDRESS], (match[2] or "")[:MAX_ADDRESS]
    result = _STATUS.match(match["rest"] or "")
    if result is None:
        return LogDelivery(queue_id, alias or to, to, "", "", "", "", False, False, "", False)
    said = (result["said"] or "").rstrip()
    cut = not said.endswith(")")
    said = said.removesuffix(")")
    if said.startswith(_SUSPENDED) or (cut and said and _SUSPENDED.startswith(said)):
        return None
    refused = _REFUSED.match(said) if match["relay"] == "none" else None
    relay = match["relay"] if refused is None else refused[1]
    tls = _TLS.search(result["before"])
    queued = _QUEUED.search(said) if result["status"][0] == "2" else None
    return LogDelivery(
        queue_id=queue_id,
        recipient=alias or to,
        to=to,
        relay=relay[:MAX_ADDRESS],
        status=result["status"],
        tls=tls[1] if tls else "",
        said=said[:MAX_SAID],
        soft=result["word"] == "SOFTBOUNCE",
        later=_is_later(result["status"], said, cut),
        queued_as=queued[1] if queued else "",
        piped=_VIA_PIPE.match(said) is not None,
    )


def _is_later(status: str, said: str, cut: bool) -> bool:
    if status[0] == "2":
        return False
    if _LATER.search(said) or _LATER_STATUS.fullmatch(status):
        return True
    return cut and _REPLY.match(said) is not None
