"""What a client writes: envelope, header, and what we write into the header."""

from __future__ import annotations

import enum
import itertools
import re
from typing import TypeVar

from requiretls_milter.config import Config
from requiretls_milter.ipc import wire
from requiretls_milter.milter import envelope
from requiretls_milter.milter import tag as tags
from requiretls_milter.milter.requirement import (
    HeaderFindings,
    asks_requiretls,
    is_lost,
    is_tls_required_no,
    resolve,
)
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import (
    Action,
    Capability,
    Decision,
    Forecast,
    ProfileName,
    Reason,
    Requirement,
    Source,
)
from requiretls_milter.rules import MAX_REPLY_TEXT
from requiretls_milter.syntax.expansion import Expansion, Rewriting, Tables, expand
from requiretls_milter.syntax.mailbox import Origin
from requiretls_milter.syntax.status import outcome_of
from tests.fuzz import expect, inputs

_TAG = re.compile(
    r"requirement=(?P<requirement>[a-z-]+); source=[a-z-]+; forecast=[^;\s]+; reason=[a-z0-9_]+; "
    r"route=[a-z-]+; by=[^;\s]+"
)
_TOLD = tuple(one for one in Capability if one is not Capability.AUTO)
"""What an MTA can turn out to act on."""

MAX_TAG = 700
"""Characters of a tag: two free words of 255, and closed sets."""


def mail_parameters(data: bytes) -> None:
    """Parameters, separated by blanks."""
    parameters = data.split(b" ")
    found = asks_requiretls(parameters)
    assert found == any(parameter.lower() == b"requiretls" for parameter in parameters)
    assert found == asks_requiretls(reversed(parameters))


def bounce_parameters(data: bytes) -> None:
    """MAIL parameters, separated by blanks; an octet before them says what is configured."""
    choices, parameters = data[:1], data[1:].split(b" ")
    flags = choices[0] if choices else 0
    mark, keeps = ("REQUIRETLS", "")[flags & 1], bool(flags & 2)
    text = envelope.new_parameters(parameters, mark=mark, keeps=keeps)
    expect.one_line(text, len(data) + 2 * envelope.MAX_ENVID)
    names = [parameter.partition("=")[0] for parameter in text.split(" ")]
    assert names[-1] == "RET"
    assert len(names) == len(set(names))
    assert set(names) <= {"ENVID", "RET"} | (set() if keeps else {"BODY", "BY"})
    if mark:
        (envid,) = (p for p in text.split(" ") if p.startswith("ENVID="))
        assert envid.lower().endswith(mark.lower())
    again = [parameter.encode() for parameter in text.split(" ")]
    assert envelope.new_parameters(again, mark=mark, keeps=keeps) == text, "a hop that marks twice"
    assert envelope.is_headers_only(again)


def tls_required(data: bytes) -> None:
    """One field's value."""
    found = is_tls_required_no(data)
    # RFC 8689 section 3: FWS, the word, nothing else.
    assert found == (data.lstrip(b" \t\r\n\v\f").lower() == b"no")
    findings = HeaderFindings("x-requiretls")
    findings.add("tls-required", data)
    assert (findings.tls_required_no, findings.tls_required_malformed) == (found, not found)


def _fields(data: bytes) -> list[tuple[str, bytes]]:
    """Fields ``name:value``, separated by NUL; names as the adapter makes them."""
    found = []
    for field in data.split(b"\0"):
        name, _, value = field.partition(b":")
        found.append((inputs.text(name).lower().rstrip(), value))
    return found


def header_fields(data: bytes) -> None:
    """A header: fields ``name:value``, separated by NUL."""
    fields = _fields(data)
    findings, backwards = HeaderFindings("x-requiretls"), HeaderFindings("x-requiretls")
    for name, value in fields:
        findings.add(name, value)
    for name, value in reversed(fields):
        backwards.add(name, value)
    assert findings == backwards, "the order of the fields matters"
    assert not findings.tls_required(ProfileName.RFC8689) or findings.tls_required(
        ProfileName.POSTFIX
    )
    for esmtp, rule, capability, header, profile in itertools.product(
        (False, True), (False, True), _TOLD, (False, True), ProfileName
    ):
        asked = resolve(
            findings,
            esmtp=esmtp,
            rule_requires=rule,
            capability=capability,
            esmtp_header=header,
            profile=profile,
        )
        assert (asked.requirement is Requirement.NONE) == (asked.source is Source.NONE)
        assert not (esmtp or rule) or asked.requirement is Requirement.REQUIRETLS
        if capability is Capability.NOTHING:
            assert asked.carried is Requirement.NONE
        lost = is_lost(findings, esmtp=esmtp, esmtp_header=header)
        assert not (lost and esmtp), "what is there is not lost"


def tag(data: bytes) -> None:
    """Four octets that choose words, then forecast and by, separated by NUL."""
    chosen = data[:4].ljust(4, b"\0")
    forecast, _, by = inputs.text(data[4:]).partition("\0")
    made = tags.Tag(
        _pick(Requirement, chosen[0]),
        _pick(Source, chosen[1]),
        forecast,
        _pick(Reason, chosen[2]),
        _pick(tags.Route, chosen[3]),
    )
    value = made.value(by)
    expect.one_line(value, MAX_TAG)
    match = _TAG.fullmatch(value)
    assert match is not None, value
    assert match["requirement"] == made.requirement
    findings = HeaderFindings("x-requiretls")
    findings.add("x-requiretls", value.encode("ascii"))
    assert findings.tags == 1
    assert findings.tag_requiretls == (made.requirement is Requirement.REQUIRETLS)


WordT = TypeVar("WordT", bound=enum.Enum)


def _pick(words: type[WordT], number: int) -> WordT:
    listed = list(words)
    return listed[number % len(listed)]


_ALIASES = {
    "alias@local.example": "x@reject.example, y@off.example, alias@local.example",
    "@local.example": "@defer.example",
    "a@loop.example": "b@loop.example",
    "b@loop.example": "a@loop.example",
    "c": '"c c"@reject.example d',
}
_REWRITING = Rewriting(Origin("local.example", "example"), "+", frozenset({"local.example"}))


def _expand(recipient: str) -> Expansion:
    return expand(recipient, Tables(virtual_alias=(_ALIASES.get,)), _REWRITING)


_SETTINGS = Settings(
    Config.model_validate(
        {
            "mta": {"local_domains": ["local.example"]},
            "rules": {
                "recipient": {
                    "reject.example": {"mode": "reject"},
                    ".defer.example": {"mode": "defer", "on_unknown": "defer"},
                    "off.example": {"mode": "off"},
                },
                "nexthop": {"192.0.2.1.example": {"require": True, "mode": "reject"}},
                "sender": {"bank.example": {"require": True, "mode": "reject"}},
            },
        }
    ),
    _expand,
)
_STATUSES = ("2.0.0", "5.7.30", "5.7.10", "4.7.5", "4.4.1", "5.1.0", "unknown", "5.999.999", "")


def transaction(data: bytes) -> None:
    """A message.

    An octet of choices; then, separated by 0xFF: sender, MAIL parameters, fields, and recipients.
    Sender aside, a part holds several things, separated by NUL: a recipient its address, its
    mailer, its host and, as an octet, its forecast.
    """
    choices, *parts = data[:1], *data[1:].split(b"\xff")
    flags = choices[0] if choices else 0
    sender, parameters, fields, *recipients = [*parts, b"", b"", b""][: max(3, len(parts))]
    client = SmtpClient(
        authenticated=bool(flags & 1),
        trusted=bool(flags & 2),
        capability=_TOLD[(flags >> 2) % len(_TOLD)],
        postfix=bool(flags & 0x40),
    )
    message = Transaction(
        _SETTINGS,
        client,
        inputs.text(sender),
        parameters.split(b"\0"),
        by_smtp=not flags & 0x80,
    )
    for part in recipients[:20]:
        address, mailer, host, forecast = [*part.split(b"\0"), b"", b"", b""][:4]
        recipient = message.add_recipient(
            inputs.text(address), inputs.text(mailer), inputs.text(host)
        )
        for number, one in enumerate(recipient.targets):
            if one.question is not None:
                request = wire.ForecastRequest(id=0, generation=0, question=one.question)
                assert wire.decode_request(wire.encode(request)[4:]) == request
                if recipient.expansions:
                    one.forecast = _forecast(bytes([flags ^ number]))
        if message.decides_at_rcpt(recipient):
            _check(message, message.decide_at_rcpt(recipient, _forecast(forecast), now=1.8e9))
    for name, value in _fields(fields):
        message.add_field(name, value)
    message.end_of_header()
    message.outdated(now=1.8e9)
    for number, recipient in enumerate(message.undecided()):
        made = None if recipient.question is None else _forecast(bytes([flags ^ number]))
        for one in recipient.expansions:
            one.forecast = None if one.question is None else _forecast(bytes([flags ^ number]))
        _check(message, message.decide(recipient, made, now=1.8e9))
    assert message.undecided() == []
    decision = message.decide_message()
    _check(message, decision)
    if not message.by_smtp:
        assert Action.DEFER not in {decision.action, message.action_in_doubt()}
        assert len(message.accepted) == len(message.recipients), "none is refused at RCPT"
    assert message.patience() >= 0
    made_tag = message.tag() if message.accepted else None
    if made_tag is not None:
        expect.one_line(made_tag.value("mail.example.net"), MAX_TAG)
        if made_tag.route is tags.Route.REQUIRETLS:
            assert all(
                one.asked.requirement is Requirement.REQUIRETLS and not one.local
                for recipient in message.accepted
                for one in recipient.targets
            )


def _forecast(choice: bytes) -> Forecast:
    number = choice[0] if choice else 0
    status = _STATUSES[number % len(_STATUSES)]
    return Forecast(
        status,
        outcome=outcome_of(status),
        reason=_pick(Reason, number),
        text="a server\r\nsays %s" + "x" * number,
        compliant=(None, True, False)[number % 3],
    )


def _check(message: Transaction, decision: Decision) -> None:
    if decision.reply is None:
        assert decision.action is Action.ACCEPT
        return
    assert not message.null_sender, "a bounce is never refused (R7)"
    kind = {Action.DEFER: 4, Action.REJECT: 5}[decision.action]
    assert decision.reply.code // 100 == kind
    assert decision.reply.enhanced.startswith(f"{kind}."), "the class of both codes is one"
    expect.one_line(decision.reply.text, MAX_REPLY_TEXT)
