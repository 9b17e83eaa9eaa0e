"""The recipes of ``docs/recipes`` put to work: an MTA with the milter, as an operator sets them up.

What the pages show are files beside them.  They are read here as they stand there; only paths are
those of the lab, and the domains of the rules are a test's own.
"""

from __future__ import annotations

import os
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from requiretls_milter.config import Config
from requiretls_milter.mirror.moved import tag_field
from requiretls_milter.mirror.postconf import Postconf
from requiretls_milter.mirror.section import mirror
from requiretls_milter.reports.export import postfix_requiretls_policy, to_text
from tests.lab import netns, roots, submission
from tests.lab.errors import LabError, LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.lab import MYDOMAIN, Lab, Session
from tests.lab.milter import Milter
from tests.lab.postfix import RESOLV_CONF, TIMEOUTS, Postfix
from tests.lab.sendmail import Sendmail
from tests.support import addresses
from tests.support.paths import REPOSITORY
from tests.support.scenario import Domain, Message, Mx, Scenario, Server
from tests.support.waiting import eventually

RECIPES = REPOSITORY / "docs" / "recipes"

LOCAL_DOMAIN = "mine.test"
"""The domain of whose recipients the MTA delivers the mail itself."""

LOCAL_RECIPIENT = f"alice@{LOCAL_DOMAIN}"

_Mta = TypeVar("_Mta", Postfix, Sendmail)


@dataclass(frozen=True)
class Version:
    """An MTA that the lab can run, and where it then listens."""

    name: str
    root: roots.Recipe
    address: str


POSTFIX = {
    item.name: item
    for item in (
        Version("postfix-3.7", roots.POSTFIX_3_7, addresses.POSTFIX_3_7),
        Version("postfix-3.10", roots.POSTFIX_3_10, addresses.POSTFIX_3_10),
        Version("postfix-3.11", roots.POSTFIX_3_11, addresses.POSTFIX_3_11),
    )
}

SENDMAIL = {
    item.name: item
    for item in (
        Version("sendmail-8.17", roots.SENDMAIL_8_17, addresses.SENDMAIL_8_17),
        Version("sendmail-8.18", roots.SENDMAIL_8_18, addresses.SENDMAIL_8_18),
    )
}


def scenario(name: str, *mx: Mx, zone: str = "sig", **more: Any) -> Scenario:
    """A domain that ordinary mail goes to; its own server unless *mx* says otherwise."""
    domain = Domain(zone=zone, mx=mx or (Mx(),), **more)  # type: ignore[arg-type]
    return Scenario(
        name, profile="may/opportunistic", message=Message(requiretls=False), domains=(domain,)
    )


def server(pref: int = 10, tlsa: Sequence[str] = ("3 1 1 match",), **behaviour: Any) -> Mx:
    """An MX host whose server behaves so."""
    return Mx(pref=pref, tlsa=tuple(tlsa), server=Server(**behaviour))


# ---------------------------------------------------------------- reading recipes


def text(name: str) -> str:
    """A file of a recipe."""
    return (RECIPES / name).read_text(encoding="utf-8")


def parameters(name: str) -> dict[str, str]:
    """The parameters of a recipe's main.cf."""
    found: dict[str, str] = {}
    for line in re.sub(r"\n[ \t]+", " ", text(name)).splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found


def sections(name: str) -> dict[str, dict[str, Any]]:
    """A recipe's config.toml, but for what the lab has its own of."""
    read = tomllib.loads(text(name))
    read.pop("dns", None)
    for key in ("socket", "socket_group"):
        read["milter"].pop(key, None)
    return read


def postconf_of(mta: Postfix) -> list[str]:
    """The options by which commands find a Postfix of the lab."""
    return [
        *("--postconf", f"chroot {mta.root} /usr/sbin/postconf"),
        *("--config-dir", mta.inside("etc")),
    ]


def imported(mta: Postfix) -> dict[str, Any]:
    """The section ``[mta]`` that ``mta import`` writes for a Postfix of the lab."""
    _, command, _, directory = postconf_of(mta)
    postfix = Postconf(command, directory).read(tag_field(Config().milter.header_name))
    return dict(mirror(postfix).mta)


# ---------------------------------------------------------------- the milter


_PATIENCE: Mapping[str, Mapping[str, Any]] = {
    "dns": {"timeout": 15},
    "probe": {"connect_timeout": 10, "command_timeout": 10},
    "rules": {"decide_wait": 25, "tag_wait": 25},
}
"""Seconds, for a machine that is busy with other tests: here no server is meant to be slow."""


class RecipeMilter(Milter):
    """The milter, at the socket that an MTA of ours calls."""

    def __init__(self, lab: Lab, directory: Path, **sections: Any) -> None:
        """Plan it; *directory* is that of the socket, *sections* are those of its configuration."""
        super().__init__(lab, **merged(_PATIENCE, sections))
        # By a short path: that of a unix socket has 107 bytes, and a cache may be anywhere.
        link = self.directory / "mta"
        link.symlink_to(directory)
        self.socket_file = link / "milter.sock"
        self.config = self.configuration()

    def start(self) -> None:
        """Start it; the MTA knows it by its own configuration."""
        self.write()
        self.launch()

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()


# ---------------------------------------------------------------- a site


@dataclass(frozen=True)
class Arrival:
    """A message at a scripted server, and the session that it came in."""

    session: Session
    text: str

    @property
    def tags(self) -> list[str]:
        """Its header fields of the tag's name."""
        return fields(self.text, "X-RequireTLS")


def fields(message: str, name: str) -> list[str]:
    """The values of the header fields of that *name*, unfolded, in order."""
    header = message.replace("\r\n", "\n").partition("\n\n")[0]
    unfolded = re.sub(r"\n[ \t]+", " ", header)
    return re.findall(rf"(?im)^{re.escape(name)}[ \t]*:[ \t]*(.*?)[ \t]*$", unfolded)


@dataclass
class Site(Generic[_Mta]):
    """An MTA with the milter."""

    lab: Lab
    mta: _Mta
    milter: RecipeMilter

    def send(
        self,
        *recipients: str,
        sender: str = submission.SENDER,
        headers: Sequence[str] = (),
        parameters: Sequence[str] = (),
        subject: str = "test",
        body: str = "hello\n",
        tls: bool = True,
    ) -> submission.Accepted:
        """Hand a message to the MTA by SMTP, as a client that it trusts."""
        return submission.send(
            self.mta.address,
            recipients,
            submission.message(subject, recipients, headers=headers, body=body),
            ca_file=self.lab.ca_file,
            sender=sender,
            parameters=parameters,
            tls=tls,
        )

    def refusal(self, *recipients: str, **message: Any) -> submission.Refused:
        """As ``send``, of a message that is refused."""
        try:
            self.send(*recipients, **message)
        except submission.Refused as refused:
            return refused
        raise LabError(f"mail to {recipients} was accepted")

    def address(self, scenario: Scenario, number: int = 0) -> str:
        """Where an MX host of *scenario* listens."""
        return self.lab.hosts(scenario)[number].address

    def rcpt(self, scenario: Scenario) -> str:
        """The recipient at *scenario*."""
        (recipient,) = self.lab.recipients(scenario)
        return recipient

    def arrival(self, scenario: Scenario, subject: str, timeout: float = 15.0) -> Arrival:
        """Wait for a message at one of the servers of *scenario*."""
        return self._arrival([host.address for host in self.lab.hosts(scenario)], subject, timeout)

    def _arrival(self, places: Sequence[str], subject: str, timeout: float) -> Arrival:
        return self._message(places, lambda text: f"Subject: {subject}\n" in text, subject, timeout)

    def _message(
        self, places: Sequence[str], wanted: Callable[[str], bool], name: str, timeout: float
    ) -> Arrival:
        """Wait for the first *wanted* message at one of *places*."""

        def arrived() -> list[Arrival]:
            return [
                Arrival(session, message)
                for session in self.lab.sessions()
                if session.address in places
                for message in session.messages
                if wanted(message)
            ]

        found: list[Arrival] = eventually(
            arrived, f"{name!r} arrives at {', '.join(places)}", wait=timeout
        )
        return found[0]

    def bounce(self, scenario: Scenario, subject: str, timeout: float = 15.0) -> Arrival:
        """Wait for the bounce of a message, sent from an address at *scenario*."""
        places = [host.address for host in self.lab.hosts(scenario)]

        def wanted(message: str) -> bool:
            return "multipart/report" in message and f"Subject: {subject}\n" in message

        return self._message(places, wanted, f"the bounce of {subject}", timeout)

    def saw_no_mail(self, scenario: Scenario, timeout: float = 15.0) -> bool:
        """Whether the servers of *scenario* were contacted, and heard no MAIL.

        A session is told when it is over: an answer that was made of it may come before.
        """
        places = [host.address for host in self.lab.hosts(scenario)]
        seen: list[Session] = eventually(
            lambda: [session for session in self.lab.sessions() if session.address in places],
            "a session is over",
            wait=timeout,
        )
        return not any(session.mail for session in seen if session.helo == self.name)

    @property
    def name(self) -> str:
        """What the MTA calls itself in EHLO."""
        return host_name(self.mta.name)


def host_name(name: str) -> str:
    """The name of the MTA *name*."""
    return f"{name.replace('.', '')}.{MYDOMAIN}"


def _root(version: Version) -> Path:
    try:
        with netns.outside():
            root = roots.ensure(version.root)
    except LabUnavailable as reason:
        unavailable(reason)
    resolv = root / "etc/resolv.conf"
    if not resolv.exists() or resolv.read_text() != RESOLV_CONF:
        new = resolv.with_name(f"resolv.conf.{os.getpid()}")
        new.write_text(RESOLV_CONF)
        new.replace(resolv)
    return root


def _postfix(lab: Lab, version: Version) -> Postfix:
    return Postfix(
        _root(version),
        version.name,
        version.address,
        certificate=lab.plan.pki.issue(host_name(version.name)).path,
        ca_file=lab.ca_file,
    )


def _sendmail(lab: Lab, version: Version) -> Sendmail:
    name = host_name(version.name)
    return Sendmail(
        _root(version),
        version.name,
        version.address,
        host=name,
        certificate=lab.plan.pki.issue(name).path,
        ca_file=lab.ca_file,
    )


@contextmanager
def postfix(
    lab: Lab,
    version: Version,
    recipe: str,
    *,
    main: Mapping[str, str] | None = None,
    services: str = "",
    **changes: Any,
) -> Iterator[Site[Postfix]]:
    """A Postfix set up by *recipe*, with *main* on top of its main.cf and *services* in master.cf.

    *changes* are sections of the milter's configuration that go over the recipe's.
    """
    mta = _postfix(lab, version)
    try:
        etc = mta.inside("etc") + "/"
        mta.configure(
            {
                **_site(mta),
                **TIMEOUTS,
                **{
                    key: value.replace("/etc/postfix/", etc)
                    for key, value in {**parameters(f"{recipe}/main.cf"), **(main or {})}.items()
                },
            },
            (text(f"{recipe}/master.cf") if (RECIPES / recipe / "master.cf").exists() else "")
            + services,
        )
        umask = os.umask(0o022)
        try:
            mta.start()
            for path in sorted((RECIPES / recipe).glob("*_checks")):
                install(mta, path.name, path.read_text(encoding="utf-8"))
            directory = mta.queue_directory / "requiretls-milter"
            directory.mkdir()
        finally:
            os.umask(umask)
        own = merged(sections(f"{recipe}/config.toml"), changes)
        if "requiretls_policy" in parameters(f"{recipe}/main.cf").get("smtp_requiretls_policy", ""):
            table = postfix_requiretls_policy(Config.model_validate({"rules": own["rules"]}))
            install(mta, "requiretls_policy", to_text(table))
        milter = RecipeMilter(lab, directory, **merged({"mta": imported(mta)}, own))
        with milter:
            yield Site(lab, mta, milter)
    finally:
        mta.stop()


def _site(mta: Postfix) -> dict[str, str]:
    """What is a site's own in its main.cf, with or without a milter."""
    return {
        "myhostname": host_name(mta.name),
        "mydomain": MYDOMAIN,
        "smtp_tls_loglevel": "1",
        "virtual_mailbox_domains": LOCAL_DOMAIN,
        "virtual_mailbox_maps": "static:inbox/",
        "virtual_mailbox_base": mta.inside("mail"),
        "virtual_uid_maps": f"static:{roots.UID_POSTFIX}",
        "virtual_gid_maps": f"static:{roots.GID_POSTFIX}",
        "virtual_minimum_uid": "1",
    }


@contextmanager
def plain_postfix(lab: Lab, version: Version) -> Iterator[Postfix]:
    """A Postfix as it is before an operator begins with a recipe."""
    mta = _postfix(lab, version)
    try:
        mta.configure(_site(mta))
        umask = os.umask(0o022)
        try:
            mta.start()
        finally:
            os.umask(umask)
        yield mta
    finally:
        mta.stop()


@contextmanager
def plain_sendmail(lab: Lab, version: Version) -> Iterator[Sendmail]:
    """A Sendmail as it is before an operator begins with the recipe."""
    mta = _sendmail(lab, version)
    try:
        mta.configure("FEATURE(`accept_unresolvable_domains')dnl\n")  # the site's own is in no zone
        umask = os.umask(0o022)
        try:
            mta.start([LOCAL_DOMAIN])
        finally:
            os.umask(umask)
        yield mta
    finally:
        mta.stop()


@contextmanager
def postfix_client(lab: Lab, version: Version, relay: str) -> Iterator[Postfix]:
    """A Postfix without the milter that sends all its mail to the MTA at the address *relay*."""
    name, mta = host_name(version.name), _postfix(lab, version)
    try:
        mta.configure({"myhostname": name, "mydomain": MYDOMAIN, "relayhost": f"[{relay}]"})
        mta.start()
        yield mta
    finally:
        mta.stop()


@contextmanager
def sendmail_client(lab: Lab, version: Version, relay: str) -> Iterator[Sendmail]:
    """A Sendmail without the milter that sends all its mail to the MTA at the address *relay*."""
    mta = _sendmail(lab, version)
    try:
        mta.configure(f"define(`SMART_HOST', `esmtp:[{relay}]')dnl\n")
        mta.start()
        yield mta
    finally:
        mta.stop()


def install(mta: Postfix, name: str, content: str) -> None:
    """Put a table into Postfix's ``/etc/postfix``.

    Postfix waits for a file that was changed just now; so it was changed a minute ago.
    """
    path = mta.directory / "etc" / name
    path.write_text(content, encoding="utf-8")
    past = time.time() - 60
    os.utime(path, (past, past))


@contextmanager
def sendmail(
    lab: Lab,
    version: Version,
    *,
    features: str = "",
    mailertable: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
    **changes: Any,
) -> Iterator[Site[Sendmail]]:
    """A Sendmail set up by the recipe, with *features* in its sendmail.mc besides.

    *changes* are sections of the milter's configuration that go over the recipe's.
    """
    mta = _sendmail(lab, version)
    try:
        mta.configure(features, "include(`/etc/mail/requiretls.m4')dnl\n")
        mta.install(RECIPES / "sendmail/requiretls.m4")
        umask = os.umask(0o022)
        try:
            mta.start([LOCAL_DOMAIN], mailertable, aliases)
        finally:
            os.umask(umask)
        milter = RecipeMilter(
            lab,
            mta.milter.outside,
            **merged(sections("sendmail/config.toml"), changes),
        )
        with milter:
            yield Site(lab, mta, milter)
    finally:
        mta.stop()


def merged(
    base: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """*base* with the keys of *changes* in its sections."""
    return {name: {**base.get(name, {}), **changes.get(name, {})} for name in {**base, **changes}}


def mailbox(mta: Postfix) -> list[str]:
    """What was delivered to the local recipients of a Postfix."""
    return [
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted((mta.directory / "mail").glob("**/new/*"))
    ]
