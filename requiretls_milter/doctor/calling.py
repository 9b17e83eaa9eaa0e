"""How Postfix calls this milter: how long it waits, what it does meanwhile, what it tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from requiretls_milter.config import Config
from requiretls_milter.doctor.attachment import Attachment
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.doctor.times import postfix_seconds
from requiretls_milter.mirror.postconf import Postfix, is_yes
from requiretls_milter.mirror.wording import shown
from requiretls_milter.model import Capability
from requiretls_milter.syntax.capability import capability
from requiretls_milter.syntax.tables import split_list

PROTOCOL = 6
"""Version of the milter protocol since which milters choose their macros and skip replies."""

DEFAULT_ACTIONS = {
    "accept": (
        "while the milter is down, mail is accepted unseen: it has no forecast and no tag, forged "
        "tags stay in it, and no rule applies"
    ),
    "tempfail": (
        "while the milter is down, MAIL is answered 451 4.7.1 for the rest of each session, and "
        "STARTTLS 454 4.3.0: a client that goes on without TLS cannot request REQUIRETLS; mail of "
        "sendmail(1) waits in the maildrop queue"
    ),
    "shutdown": (
        "while the milter is down, clients are refused with 421 and try again; mail of sendmail(1) "
        "waits in the maildrop queue"
    ),
    "quarantine": (
        "while the milter is down, mail is accepted unseen and put on hold until it is released"
    ),
    "reject": "while the milter is down, clients are greeted with 554: their mail bounces",
}
"""The effect of each milter_default_action, measured with Postfix 3.11.7."""


def examine(
    config: Config, postfix: Postfix, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    """Check time limits, default action and macros."""
    yield from _time_limits(config, attachments)
    yield from _default_action(config, attachments)
    yield from _macros(config, postfix, attachments)


def _values(attachments: Sequence[Attachment], name: str) -> dict[str, list[str]]:
    """Collect the values of a milter_* parameter that apply to this milter, with their services."""
    found: dict[str, list[str]] = {}
    for one in attachments:
        for ours in one.ours:
            value = ours.setting(one.service.settings, name)
            found.setdefault(value, []).append(str(one.service))
    return found


def _time_limits(config: Config, attachments: Sequence[Attachment]) -> Iterator[Finding]:
    limits = (
        ("command_timeout", "rules.decide_wait", config.rules.longest_decide_wait),
        ("content_timeout", "rules.tag_wait", config.rules.tag_wait),
    )
    for name, key, wait in limits:
        for value, services in _values(attachments, name).items():
            limit = postfix_seconds(value)
            where = ", ".join(services)
            if limit is None:
                yield error(
                    name,
                    f"milter_{name} = {shown(value)} on {where}: no time that Postfix knows",
                    f"Set milter_{name} = {'30s' if name == 'command_timeout' else '300s'}.",
                )
            elif limit <= wait:
                yield error(
                    name,
                    f"milter_{name} = {shown(value)} on {where} is not above {key} = {wait:g} s: "
                    "Postfix gives up on the milter before it has decided",
                    f"Raise milter_{name}, or lower {key}.",
                )
            else:
                yield ok(name, f"milter_{name} = {shown(value)} is above {key} = {wait:g} s")


def _default_action(config: Config, attachments: Sequence[Attachment]) -> Iterator[Finding]:
    for value, services in _values(attachments, "default_action").items():
        action = value.lower()
        where = ", ".join(services)
        what = DEFAULT_ACTIONS.get(action)
        text = f"milter_default_action = {shown(value)} on {where}: {what}"
        if what is None:
            yield error(
                "default_action",
                f"milter_default_action = {shown(value)} on {where}: Postfix has no such action",
                "Set milter_default_action = tempfail (Postfix 3.11: shutdown).",
            )
        elif action == "reject":
            yield error("default_action", text, "Set tempfail, or shutdown in Postfix 3.11.")
        elif action == "accept" and config.rules.acts:
            yield warning(
                "default_action",
                f"{text}, although your rules defer or refuse mail",
                "Set tempfail, or shutdown in Postfix 3.11, if the rules must always apply.",
            )
        elif action == "quarantine":
            yield warning("default_action", text, "Nothing, if the hold queue is watched.")
        else:
            yield ok("default_action", text)


def _macros(
    config: Config, postfix: Postfix, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    for value, services in _values(attachments, "protocol").items():
        where = ", ".join(services)
        versions = [int(word) for word in split_list(value) if word.isdecimal()]
        if max(versions, default=0) >= PROTOCOL:
            yield ok(
                "protocol",
                f"milter_protocol = {shown(value)}: the milter is called at connection, MAIL, "
                "RCPT, header and end of message, and chooses its macros itself; milter_*_macros "
                "do not matter",
            )
        else:
            yield warning(
                "protocol",
                f"milter_protocol = {shown(value)} on {where}: too old for the milter to choose "
                "its macros; whether it learns transport, next hop and authentication depends on "
                "milter_*_macros",
                "Leave milter_protocol at its default, 6.",
            )
    told = capability(Capability.AUTO, postfix.settings.get("milter_macro_v", ""))
    truth = _capability(postfix)
    if config.mta.carries is Capability.AUTO and told is not truth:
        yield warning(
            "carries",
            f"mta.carries = auto: by macro v ({shown(postfix.settings.get('milter_macro_v', ''))}) "
            f"Postfix would carry {told.value}, by its settings it carries {truth.value}",
            f'Set mta.carries = "{truth.value}".',
        )


def _capability(postfix: Postfix) -> Capability:
    if is_yes(postfix.settings, "requiretls_enable"):
        return Capability.REQUIRETLS
    if is_yes(postfix.settings, "tls_required_enable"):
        return Capability.TLS_REQUIRED
    return Capability.NOTHING
