"""Checks of a Sendmail beside the configuration: filter, socket, ruleset, certificates.

Of the files that sendmail.cf names, and of the directories above the socket, only the modes count.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from requiretls_milter.config import Config
from requiretls_milter.doctor.attachment import OURS, reaches
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.doctor.sendmailcf import Filter, Sendmail, fields
from requiretls_milter.forecast.profiles import must_match
from requiretls_milter.mirror.wording import shown
from requiretls_milter.model import Capability, TlsLevel
from requiretls_milter.syntax.endpoint import EndpointError, parse_milter_socket
from requiretls_milter.syntax.names import DomainNameError

RECIPE = "docs/recipes/sendmail.md"

_SERVER_RULES = ("tls_server", "local_tls_server")
"""The rulesets that Sendmail asks before MAIL FROM whether a session is good enough."""


def examine(config: Config, sendmail: Sendmail) -> Iterator[Finding]:
    """Run all checks of a Sendmail."""
    yield ok("sendmail", f"sendmail.cf of version {shown(sendmail.version) or '(not told)'}")
    if sendmail.is_outdated:
        yield warning(
            "compiled",
            "sendmail.mc was changed after sendmail.cf: its last changes are not in force",
            "m4 /etc/mail/sendmail.mc > /etc/mail/sendmail.cf, and restart Sendmail.",
        )
    ours = [one for one in sendmail.filters.values() if is_ours(one, config, sendmail)]
    yield from _attached(config, sendmail, ours)
    for one in ours:
        yield from _time_limits(config, one)
        yield _default_action(config, one)
        yield from _directory(config, sendmail)
    yield from _what_it_does(config, sendmail)
    yield from _ruleset(config, sendmail)
    yield from _certificates(config, sendmail)


# ---------------------------------------------------------------- the filter


def is_ours(one: Filter, config: Config, sendmail: Sendmail) -> bool:
    """Whether a filter's socket is the one on which this milter listens."""
    ours = config.milter.socket
    try:
        theirs = parse_milter_socket(one.socket)
    except (EndpointError, DomainNameError):
        return False
    if theirs.family == "unix" and ours.family == "unix":
        return os.path.realpath(sendmail.path(theirs.path)) == os.path.realpath(ours.path)
    if "unix" in (theirs.family, ours.family):
        return False
    return reaches(theirs.host, str(theirs.port), ours)


def _attached(config: Config, sendmail: Sendmail, ours: list[Filter]) -> Iterator[Finding]:
    near = [
        one
        for one in sendmail.filters.values()
        if one not in ours and OURS in f"{one.name} {one.socket}".lower()
    ]
    for one in near:
        yield error(
            "socket_name",
            f"the filter {shown(one.name)} of Sendmail is at {_place(one, sendmail)}; this milter "
            f"listens on {config.milter.socket}",
            _how_to_attach(config, sendmail),
        )
    if not ours:
        if not near:
            yield error(
                "attached",
                "no filter of Sendmail is this milter: no mail is forecast or tagged",
                _how_to_attach(config, sendmail),
            )
        return
    name = ours[0].name
    listed = _names(sendmail.option("InputMailFilters"))
    if name not in listed:
        yield error(
            "attached",
            f"the filter {shown(name)} is defined, but InputMailFilters does not name it: it is "
            "never called",
            "Use INPUT_MAIL_FILTER in sendmail.mc, not MAIL_FILTER.",
        )
        return
    yield ok("attached", f"Sendmail calls this milter as filter {shown(name)}")
    for daemon in sendmail.daemons:
        own = next((v for key, v in fields(daemon).items() if key.startswith("i")), None)
        if own is not None and name not in _names(own):
            where = next((v for key, v in fields(daemon).items() if key.startswith("n")), daemon)
            yield warning(
                "attached",
                f"the daemon {shown(where)} has a list of filters of its own, without this milter: "
                "mail that comes in there is not forecast, and forged tags stay in it",
                f"Add {shown(name)} to InputMailFilters in its DAEMON_OPTIONS.",
            )


def _place(one: Filter, sendmail: Sendmail) -> str:
    """Where a filter is, as this program sees it."""
    family, _, path = one.socket.partition(":")
    if family in ("unix", "local"):
        return shown(f"{family}:{sendmail.path(path)}")
    return shown(one.socket) or "no socket"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.replace(";", ",").split(",")]


def _how_to_attach(config: Config, sendmail: Sendmail) -> str:
    socket = config.milter.socket
    if socket.family == "unix" and Path(socket.path).is_relative_to(sendmail.root):
        inside = Path("/") / Path(socket.path).relative_to(sendmail.root)
        socket = socket._replace(path=str(inside))
    return (
        f"In sendmail.mc: INPUT_MAIL_FILTER(`requiretls', `S={socket}, F=T, "
        f"T=S:30s;R:30s;E:1m')dnl. The recipe ({RECIPE}) has it in requiretls.m4."
    )


def _time_limits(config: Config, one: Filter) -> Iterator[Finding]:
    """Compare the limits with our waits; R is for each reply, E for all at the end of a message."""
    limits = (
        ("command_timeout", "R", "rules.decide_wait", config.rules.longest_decide_wait),
        ("content_timeout", "R", "rules.tag_wait", config.rules.tag_wait),
        ("content_timeout", "E", "rules.tag_wait", config.rules.tag_wait),
    )
    for check, letter, key, wait in limits:
        limit = one.timeout(letter)
        default = "" if letter in one.timeouts else " (the default)"
        if limit <= wait:
            yield error(
                check,
                f"{letter}:{limit}s{default} of filter {shown(one.name)} is not above {key} = "
                f"{wait:g} s: Sendmail gives up on the milter before it has decided",
                f"Raise {letter}: in T= of the filter (T=S:30s;R:30s;E:1m), or lower {key}.",
            )
        elif check == "command_timeout" or letter == "E":
            yield ok(check, f"{letter}:{limit}s{default} is above {key} = {wait:g} s")


def _default_action(config: Config, one: Filter) -> Finding:
    flags = one.flags.upper()
    if "T" in flags:
        return ok(
            "default_action",
            "F=T: while the milter is down, STARTTLS is answered 454, and mail 451",
        )
    if "4" in flags:
        return ok("default_action", "F=4: while the milter is down, clients are refused with 421")
    if "R" in flags:
        return error(
            "default_action",
            "F=R: while the milter is down, mail is refused for good",
            "Set F=T in INPUT_MAIL_FILTER.",
        )
    text = (
        f"filter {shown(one.name)} has no flag F=T: while the milter is down, mail is accepted "
        "unseen: it has no forecast and no tag, and forged tags stay in it"
    )
    if config.rules.acts:
        return warning(
            "default_action",
            f"{text}; your rules, which defer or refuse mail, do not apply",
            "Set F=T in INPUT_MAIL_FILTER, if the rules must always apply.",
        )
    return ok("default_action", text)


def _directory(config: Config, sendmail: Sendmail) -> Iterator[Finding]:
    """Check what Sendmail checks before it connects (safedirpath): which users may write there."""
    if config.milter.socket.family != "unix":
        return
    group = 0 if sendmail.blames_not("GroupWritableDirPathSafe") else stat.S_IWGRP
    real = Path(os.path.realpath(config.milter.socket.path))
    top = Path(os.path.realpath(sendmail.root))
    steps = [one for one in real.parents if one == top or top in one.parents]
    try:
        unsafe = [(one, one.stat().st_mode & (group | stat.S_IWOTH)) for one in reversed(steps)]
    except OSError as problem:
        yield error(
            "socket_directory",
            f"{problem.filename}: {problem.strerror}",
            "Start the service, which makes the socket.",
        )
        return
    for directory, mode in unsafe:
        if mode:
            others = "everyone" if mode & stat.S_IWOTH else "its group"
            yield error(
                "socket_directory",
                f"{others} may write to {directory}: Sendmail calls the milter's socket unsafe, "
                "and does not connect to it",
                f"chmod go-w {directory}, or put the socket elsewhere (docs/attach.md).",
            )
            return
    yield ok("socket_directory", f"the path to {config.milter.socket.path} is safe for Sendmail")


# ---------------------------------------------------------------- what it does with the mail


def _what_it_does(config: Config, sendmail: Sendmail) -> Iterator[Finding]:
    if config.mta.carries in (Capability.REQUIRETLS, Capability.TLS_REQUIRED):
        yield error(
            "carries",
            f'mta.carries = "{config.mta.carries}", but Sendmail acts on no requirement itself',
            'Set mta.carries = "nothing".',
        )
    if config.milter.tag_leaving:
        yield warning(
            "tag_leaving",
            "milter.tag_leaving = true: Sendmail cannot remove the tag from mail that leaves the "
            "site, and the tag reveals your rules",
            "Set milter.tag_leaving = false.",
        )


def _ruleset(config: Config, sendmail: Sendmail) -> Iterator[Finding]:
    """Check that what is asked binds Sendmail: a mark of the milter, and a ruleset that uses it."""
    mark, level = config.milter.envid_mark, config.mta.tls_security_level
    advice = (
        f"Put requiretls.m4 of the recipe ({RECIPE}) into sendmail.mc as its last line, run m4, "
        "and restart Sendmail."
    )
    if not mark:
        if must_match(level):
            yield warning(
                "ruleset",
                f'mta.tls_security_level is "{level}", but milter.envid_mark is empty: nothing '
                "keeps Sendmail from sending such mail in clear",
                f'Follow the recipe ({RECIPE}), or set mta.tls_security_level = "may".',
            )
        return
    lines = [line for name in _SERVER_RULES for line in sendmail.rulesets.get(name, ())]
    if not any("{envid}" in line for line in lines):
        yield error(
            "ruleset",
            f"the milter marks mail ({mark} in ENVID), but no ruleset for servers looks at "
            "$&{envid}: Sendmail sends marked mail in clear too",
            advice,
        )
        return
    if not any(mark in line.split("\t")[0].split() for line in lines):
        yield error(
            "ruleset",
            f"the ruleset for servers looks for another mark than milter.envid_mark = {mark}: "
            "Sendmail sends marked mail in clear too",
            f"Use the same word in both. {advice}",
        )
        return
    yield ok("ruleset", f"mail that is marked {mark} goes over verified TLS or not at all")
    if not sendmail.is_true("SetCertAltnames"):
        yield warning(
            "ruleset",
            "SetCertAltnames is not true: the ruleset does not know the names in a certificate, "
            "and refuses most servers",
            "O SetCertAltnames=true below LOCAL_CONFIG, as requiretls.m4 has it.",
        )
    yield from _remembered(sendmail)


def _remembered(sendmail: Sendmail) -> Iterator[Finding]:
    """Warn if Sendmail may apply one refusal by the ruleset to other mail to the same host."""
    wrong = []
    if not sendmail.is_true("ForkEachJob"):
        wrong.append("ForkEachJob is not true")
    if directory := sendmail.option("HostStatusDirectory"):
        wrong.append(f"HostStatusDirectory is {shown(directory)}")
    if sendmail.option("DeliveryMode")[:1].lower() == "i":
        wrong.append("DeliveryMode is interactive")
    if wrong:
        yield warning(
            "ruleset",
            f"{', '.join(wrong)}: Sendmail remembers a server that the ruleset has refused, and "
            "ordinary mail to it may bounce too",
            "define(`confSEPARATE_PROC', `True'), undefine(`confHOST_STATUS_DIRECTORY'), and "
            f"confDELIVERY_MODE background ({RECIPE}).",
        )


# ---------------------------------------------------------------- certificates


def _certificates(config: Config, sendmail: Sendmail) -> Iterator[Finding]:
    level, dane = config.mta.tls_security_level, sendmail.is_true("DANE")
    by_dane = level in (TlsLevel.DANE, TlsLevel.DANE_ONLY)
    if by_dane and not dane:
        yield error(
            "dane",
            f'mta.tls_security_level is "{level}", but DANE is off in Sendmail: certificates that '
            "only TLSA records prove are not verified",
            "define(`confDANE', `true') (Sendmail 8.18), or set mta.tls_security_level = "
            '"verify".',
        )
    elif dane and must_match(level) and not by_dane:
        yield warning(
            "dane",
            f'mta.tls_security_level is "{level}", but DANE is on in Sendmail: what it delivers by '
            "TLSA records is forecast to fail",
            'Set mta.tls_security_level = "dane".',
        )
    authorities = [sendmail.option(name) for name in ("CACertFile", "CACertPath")]
    if must_match(level) and not any(authorities) and not dane:
        yield error(
            "certificates",
            "Sendmail knows no certification authorities (CACertFile, CACertPath): it verifies no "
            "certificate, and the ruleset refuses every server",
            "define(`confCACERT', `/etc/ssl/certs/ca-certificates.crt'), and confCACERT_PATH.",
        )
    bad = False
    for name, why in _FILES.items():
        if (value := sendmail.option(name)) and (wrong := _unusable(sendmail, name, value)):
            bad = True
            yield error("certificates", f"{name} = {shown(value)}: {wrong}: {why}", _MEND)
    if not bad and any(authorities):
        names = ", ".join(filter(None, authorities))
        yield ok("certificates", f"Sendmail verifies certificates with {shown(names)}")
    if not (sendmail.option("ServerCertFile") and sendmail.option("ServerKeyFile")):
        yield warning(
            "starttls",
            "Sendmail has no certificate of its own (ServerCertFile, ServerKeyFile): it offers no "
            "STARTTLS, and all mail comes in in clear",
            "define(`confSERVER_CERT', ...) and confSERVER_KEY.",
        )


_MEND = "Correct it in sendmail.mc, or the file's mode (a key: 0600), and restart Sendmail."

_NO_CLIENT = "Sendmail uses no STARTTLS with servers"
_NO_SERVER = "Sendmail offers no STARTTLS to clients"

_FILES = {
    "CACertFile": _NO_CLIENT,
    "CACertPath": _NO_CLIENT,
    "ClientCertFile": _NO_CLIENT,
    "ClientKeyFile": _NO_CLIENT,
    "ServerCertFile": _NO_SERVER,
    "ServerKeyFile": _NO_SERVER,
}
"""The files of TLS, and the consequence if Sendmail cannot use one."""


def _unusable(sendmail: Sendmail, name: str, value: str) -> str:
    """Say why Sendmail cannot use a file; "" if it can. Keys must be readable by nobody else."""
    try:
        mode = sendmail.path(value).stat().st_mode
    except OSError as problem:
        return problem.strerror or str(problem)
    if not name.endswith("KeyFile"):
        return ""
    group = 0 if sendmail.blames_not("GroupReadableKeyFile") else stat.S_IRGRP
    return "others may read the key" if mode & (group | stat.S_IROTH) else ""
