"""Installations at random: a main.cf, a master.cf, tables, and letters that go through them.

Each is made of a seed alone. The words are those of real installations: address classes and their
transports, smart hosts, tables by sender, settings of single transports, TLS policies, SRV, and
what messages need of a server.

An installation may have a *quirk*: one setting that the mirror does not know, and of which ``mta
import`` has to warn. :func:`at_random` without quirks makes the same installation but for it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.submission import SENDER
from tests.support import addresses
from tests.support.scenario import Domain, Mx, Scenario, Server, Zone

LETTERS = 5

LMTP_PORT = 2425
"""Of an LMTP server at the milter's address."""

T = TypeVar("T")


# ---------------------------------------------------------------- the world outside


def _place(name: str, *mx: Mx, zone: Zone = "sig", kind: str = "mx") -> Scenario:
    hosts = mx or (Mx(),)
    return Scenario(f"in-{name}", domains=(Domain(zone=zone, kind=kind, mx=hosts),))  # type: ignore[arg-type]


def _one(**server: object) -> Mx:
    return Mx(server=Server(**server))  # type: ignore[arg-type]


_UNSIGNED = Mx(zone="uns", tlsa=())

PLACES = (
    _place("good"),
    _place("lacking", _one(requiretls="none")),
    _place("plain", _UNSIGNED, zone="uns"),
    _place("other", Mx(zone="uns", tlsa=(), server=Server(cert="wrongname")), zone="uns"),
    _place("own", Mx(zone="uns", tlsa=()), zone="uns", kind="implicit"),
    _place("clear", _one(starttls="none")),
    _place("unclear", Mx(zone="uns", tlsa=(), server=Server(starttls="none")), zone="uns"),
    _place("mismatch", Mx(tlsa=("3 1 1 bad",))),
    _place("half", Mx(), zone="uns"),
    _place("anchor", Mx(tlsa=("2 0 1 ca",))),
    _place("two", _one(requiretls="none"), Mx(pref=20)),
    _place("down", Mx(addr="refused")),
    _place("ascii", _one(smtputf8="none")),
    _place("small", _one(size="1000")),
    _place("seven", _one(transport="none")),
    _place("broken", _one(handshake="garbage")),
    _place("refuses", _one(starttls_reply="454 4.7.0 not now")),
    _place("banner", _one(banner="554 5.3.2 no"), Mx(pref=20)),
    _place("alias", kind="cname"),
    _place("none", kind="nullmx"),
    _place("nowhere", kind="nxdomain"),
    _place("bogus", zone="bogus"),
)
"""Domains to send to; each behaves in one way, whoever asks."""


@dataclass(frozen=True)
class Place:
    """A domain, and its first host if it has one."""

    name: str
    host: str
    address: str


def settle(lab: Lab) -> tuple[Place, ...]:
    """Add the places to a lab, with SRV records for the service submission."""
    lab.plan.add(PLACES)
    made = []
    for scenario in PLACES:
        name = scenario.domain_name(scenario.domains[0])
        hosts = lab.hosts(scenario)
        if not hosts or scenario.id == "in-down":
            made.append(Place(name, name, addresses.NO_ROUTE if not hosts else hosts[0].address))
            continue
        made.append(Place(name, hosts[0].name, hosts[0].address))
        if scenario.domains[0].kind == "mx":
            zone = ".".join(name.split(".")[-2:])
            record = f"_submission._tcp.{name}. 300 SRV 10 0 25 {hosts[0].name}."
            lab.plan.records[zone].append(record)
    lab.update()
    return tuple(made)


# ---------------------------------------------------------------- what is made


@dataclass(frozen=True)
class Letter:
    """A message to one recipient."""

    recipient: str
    sender: str
    by_sendmail: bool
    asks: str
    """``requiretls``, ``header`` (Require-TLS-ESMTP), ``no`` (TLS-Required) or nothing."""
    utf8: bool
    large: bool
    eight_bit: bool
    dsn: bool


@dataclass(frozen=True)
class Installation:
    """A Postfix as it was installed, and the letters that it is given.

    ``quirk`` is the name that a warning has to tell; "" if there is none.
    """

    name: str
    main: Mapping[str, str]
    smtp: str
    """Options of the service smtp of master.cf, as lines."""
    services: str
    files: Mapping[str, str]
    letters: tuple[Letter, ...]
    quirk: str = ""

    def __str__(self) -> str:
        """Show it for one who looks for the reason of a difference."""
        rows = [f"{key} = {value}" for key, value in self.main.items()]
        rows += ["smtp", self.smtp, self.services]
        rows += [f"{name}:\n{text}" for name, text in self.files.items()]
        return f"{self.name}, quirk {self.quirk or 'none'}\n" + "\n".join(rows)


LEVELS = ("may", "dane", "dane", "dane-only", "encrypt", "verify", "secure", "none")
POLICIES = ("enforce", "enforce", "opportunistic", "opportunistic+starttls", "disable", "")
CLONES = ("strict", "out-2", "exchange")
SENDERS = (SENDER, f"boss@{MYDOMAIN}", f"boss+x@{MYDOMAIN}", "ann@other.inst.test", "")
ALIASED = 0.35
"""Part of the installations that have aliases."""

BOXES, RELAYED, MINE = "boxes.inst.test", "relayed.inst.test", "mine.inst.test"
"""Domains of the address classes, which the DNS does not have."""


@dataclass
class _Maker:
    """Throws the dice for one installation; ``quirks`` throws others, so that twins are alike."""

    name: str
    dice: random.Random
    quirks: random.Random
    places: Sequence[Place]
    requiretls: bool
    modern: bool
    with_quirk: bool
    main: dict[str, str] = field(default_factory=dict)
    clones: dict[str, dict[str, str]] = field(default_factory=dict)
    smtp: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    quirk: str = ""
    opaque: str = ""
    """The parameter whose table is one that cannot be read, by the quirk."""

    def maybe(self, chance: float) -> bool:
        return self.dice.random() < chance

    def pick(self, *words: T) -> T:
        return self.dice.choice(words)

    # ------------------------------------------------------------ next hops

    def place(self) -> Place:
        return self.dice.choice(self.places)

    def hop(self) -> str:
        """A next hop as operators write it."""
        place = self.place()
        name = place.name.upper() if self.maybe(0.1) else place.name
        host = f"[{place.host.title() if self.maybe(0.1) else place.host}]"
        return self.pick(
            *(name, f"{name}:25", f"{name}:smtp", f"{name}:"),
            *(host, host, f"{host}:25", f"{host}:smtp", f"{host}:"),
            *(f"[{place.address}]", f"[{place.address}]:25", place.address, f"{place.address}:25"),
            *(f"{name}:submission", f"{host}:587"),
        )

    def transport(self) -> str:
        return self.pick("smtp", "smtp", "relay", *CLONES)

    def route(self) -> str:
        """The right side of a table of transports."""
        hop = self.hop()
        return self.pick(
            *(f"{self.transport()}:{hop}", f"{self.transport()}:{hop}"),
            *(f"{self.transport()}:", f":{hop}", ":"),
            *(
                "virtual:",
                "discard:",
                "error:5.1.2 none",
                "retry:4.3.2 later",
                f"lmtp:inet:[{addresses.MILTER}]:{LMTP_PORT}",
            ),
        )

    # ------------------------------------------------------------ tables

    def table(self, parameter: str, entries: Mapping[str, str]) -> str:
        """Write *entries* as a table of any type; or as one that cannot be read."""
        kind = self.pick("inline", "texthash", "two")
        if kind == "two" and len(entries) > 1:
            items = list(entries.items())
            text = self._written("inline", parameter, dict(items[:1]))
            text += f", {self._written('texthash', parameter, dict(items))}"
        else:
            text = self._written("inline" if kind == "two" else kind, parameter, entries)
        # Written in any case, so that the dice fall alike for a twin without the quirk.
        return _as_patterns(entries) if self.opaque == parameter else text

    def _written(self, kind: str, parameter: str, entries: Mapping[str, str]) -> str:
        if kind == "inline":
            pairs = ", ".join(f"{{ {key} = {value} }}" for key, value in entries.items())
            return f"inline:{{ {pairs} }}"
        lines = ["# a table", ""]
        for key, value in entries.items():
            lines.append(self.pick(f"{key} {value}", f"{key}\t{value}", f"{key}\n    {value}"))
            if self.maybe(0.2):
                lines.append(f"# {key} nowhere:[none]")
        name = f"{parameter}.{len(self.files)}"
        self.files[name] = "\n".join(lines) + "\n"
        return f"{kind}:@ETC@/{name}"

    # ------------------------------------------------------------ one smtp(8)

    def client(self, *, all_of_them: bool) -> dict[str, str]:
        """Parameters of smtp(8)."""
        made: dict[str, str] = {}
        always = 1.0 if all_of_them else 0.5
        if self.maybe(always):
            made["smtp_tls_security_level"] = self.pick(*LEVELS)
        if self.requiretls and self.maybe(always):
            word = self.pick(*POLICIES)
            if self.maybe(0.2):
                entries = {self.place().name: self.pick("enforce", "disable", "opportunistic")}
                word = f"{self.table('smtp_requiretls_policy', entries)} {word or 'enforce'}"
            if word:
                made["smtp_requiretls_policy"] = word
        if self.maybe(0.15):
            made["smtp_tls_dane_insecure_mx_policy"] = self.pick("may", "encrypt", "dane")
        if self.maybe(0.1):
            made["smtp_mx_address_limit"] = self.pick("1", "0", "2")
        if self.maybe(0.1):
            made["smtp_tls_enforce_peername"] = "no"
        if self.maybe(0.25):
            made["smtp_tls_policy_maps"] = self.tls_policies()
        if self.modern and self.maybe(0.25):
            made["use_srv_lookup"] = self.pick("submission", "submission, submissions", "587")
        if self.maybe(0.1):
            made["smtp_address_preference"] = self.pick("any", "ipv4")
        if self.maybe(0.05):
            made["smtp_host_lookup"] = self.pick("dns", "dns,")
        return made

    def tls_policies(self) -> str:
        entries = {}
        for _ in range(self.dice.randint(1, 4)):
            key = self.pick(self.hop(), self.place().name, f".{self.place().name}")
            entries[key] = self.pick(
                *("may", "encrypt", "dane", "dane-only", "verify", "secure", "none"),
                *("secure match=nexthop", f"secure match={self.place().host}"),
                *(f"verify match=hostname:.{self.place().name}", "encrypt connection_reuse=no"),
            )
        return self.table("smtp_tls_policy_maps", entries)

    # ------------------------------------------------------------ main.cf

    def fill(self) -> None:
        self.main |= {
            "smtp_tls_CAfile": "@ETC@/ca.pem",
            "mydestination": "",
            "local_recipient_maps": "",
            "virtual_mailbox_maps": "",
            "virtual_mailbox_base": "@MAIL@",
            "virtual_uid_maps": "static:@UID@",
            "virtual_gid_maps": "static:@GID@",
            "virtual_minimum_uid": "1",
            "smtp_sasl_password_maps": "static:user:password",
        }
        self.main |= self.client(all_of_them=True)
        if self.main["smtp_tls_security_level"] == "none" and self.maybe(0.7):
            self.main["smtp_tls_security_level"] = "dane"
        if self.maybe(0.1):
            self.main["smtp_tls_security_level"] = ""
            self.main[self.pick("smtp_use_tls", "smtp_enforce_tls")] = "yes"
        for clone in CLONES:
            self.clones[clone] = self.client(all_of_them=False)
        if self.maybe(0.3):
            self.smtp = self.client(all_of_them=False)
        for one in (self.main, *self.clones.values(), self.smtp):
            if self.maybe(0.1):
                self._by_parameter(one)
        self._classes()
        self._routes()
        self._smart_hosts()
        if self.maybe(0.2):
            self.main["recipient_delimiter"] = self.pick("+", "+-")
        if self.maybe(0.1):
            self.main["parent_domain_matches_subdomains"] = self.pick("", "transport_maps")

    def _by_parameter(self, settings: dict[str, str]) -> None:
        """Put a value into a parameter of the operator's own."""
        for key in ("smtp_tls_security_level", "smtp_requiretls_policy"):
            if key in settings and " " not in settings[key]:
                own = f"own_{len(self.main)}"
                self.main[own] = settings[key]
                choice = f"${{{own}?{{${own}}}:{{may}}}}"
                settings[key] = self.pick(f"${own}", f"${{{own}}}", choice)

    def _classes(self) -> None:
        if self.maybe(0.5):
            self.main["virtual_mailbox_domains"] = self._domains(BOXES, "virtual_mailbox_domains")
            if self.maybe(0.1):
                self._or_static("virtual_mailbox_domains", "all")
            self.main["virtual_transport"] = self._class_transport("virtual")
        if self.maybe(0.1):
            self.main["virtual_alias_domains"] = self.place().name
        if self.maybe(0.4):
            self.main["relay_domains"] = self._domains(RELAYED, "relay_domains")
            self.main["relay_transport"] = self._class_transport("relay")
        if self.maybe(0.3):
            self.main["mydestination"] = self._domains(MINE, "mydestination")
            if self.maybe(0.3):
                self.main["mydestination"] += ", $myhostname localhost.$mydomain"
            self.main["local_transport"] = self._class_transport("virtual")
        elif self.maybe(0.2):
            self.main["mydestination"] = MINE
            if self.maybe(0.4):
                users = {f"u{n}": self._handed_over() for n in range(1, LETTERS)}
                self.main["mailbox_transport_maps"] = self.table("mailbox_transport_maps", users)
            if self.maybe(0.3):
                self._or_static("mailbox_transport_maps", self._handed_over())
            self.main["mailbox_transport"] = self._handed_over()

    def _handed_over(self) -> str:
        return self.pick(
            f"{self.transport()}:{self.hop()}",
            f"lmtp:inet:[{addresses.MILTER}]:{LMTP_PORT}",
            "virtual:",
        )

    def _or_static(self, parameter: str, result: str) -> None:
        """Put a table behind the others that has *result* for all keys."""
        before = self.main.get(parameter, "")
        self.main[parameter] = f"{before}, static:{{{result}}}".removeprefix(", ")

    def _domains(self, own: str, parameter: str) -> str:
        names = [own, *([self.place().name] if self.maybe(0.3) else [])]
        form = self.pick("names", "names", "table", "file")
        if form == "names":
            return self.pick(", ", " ", ",").join(names)
        if form == "table":
            return self.table(parameter, dict.fromkeys(names, "x"))
        name = f"{parameter}.{len(self.files)}"
        self.files[name] = "# domains\n" + "\n".join(names) + "\n"
        return f"@ETC@/{name}"

    def _class_transport(self, usual: str) -> str:
        return self.pick(
            *(usual, f"{self.transport()}:{self.hop()}", f"{self.transport()}:{self.hop()}"),
            *(f"lmtp:inet:[{addresses.MILTER}]:{LMTP_PORT}", self.transport(), "discard"),
        )

    def _routes(self) -> None:
        if not self.maybe(0.7):
            return
        entries: dict[str, str] = {}
        for _ in range(self.dice.randint(1, 5)):
            place = self.place()
            key = self.pick(
                *(place.name, place.name, place.name, f".{place.name}"),
                *(f"user@{place.name}", f"user+x@{place.name}"),
                *(BOXES, RELAYED, MINE, f"sub.{RELAYED}", f".{RELAYED}", f".{place.name}"),
            )
            if key not in map(str.lower, entries):
                entries[key.upper() if self.maybe(0.1) else key] = self.route()
        if self.maybe(0.1):
            entries["*"] = self.route()
        text = self.table("transport_maps", entries)
        if self.maybe(0.05):
            text += f", static:{{{self.transport()}:{self.hop()}}}"
        self.main["transport_maps"] = text

    def _smart_hosts(self) -> None:
        if self.maybe(0.35):
            self.main["relayhost"] = self.hop()
        if self.maybe(0.25):
            self.main["default_transport"] = self.pick(
                self.transport(), f"{self.transport()}:{self.hop()}"
            )
        for parameter in (
            "sender_dependent_relayhost_maps",
            "sender_dependent_default_transport_maps",
        ):
            if self.maybe(0.25):
                self.main[parameter] = self._by_sender(parameter)
            if self.maybe(0.1):
                relay = parameter == "sender_dependent_relayhost_maps"
                hop = self.hop()
                self._or_static(parameter, hop if relay else f"{self.transport()}:{hop}")

    def _by_sender(self, parameter: str) -> str:
        entries: dict[str, str] = {}
        relay = parameter == "sender_dependent_relayhost_maps"
        for _ in range(self.dice.randint(1, 3)):
            key = self.pick(*SENDERS[:4], f"@{MYDOMAIN}", "@other.inst.test", "<>")
            if self.maybe(0.15):
                entries[key] = "DUNNO"
            elif relay:
                entries[key] = self.hop()
            else:
                entries[key] = self.pick(f"{self.transport()}:{self.hop()}", f"{self.transport()}:")
        return self.table(parameter, entries)

    # ------------------------------------------------------------ aliases

    def alias(self, letters: Sequence[Letter]) -> None:
        """Aliases of some recipients, in tables of text and in such as have to be asked.

        A recipient becomes one other: of several the first delivery would say nothing of the worst
        forecast. They have dice of their own, so that installations without them stay as they are.
        """
        dice = random.Random(f"aliases {self.name}")  # noqa: S311 - to be repeated
        if dice.random() >= ALIASED:
            return
        names = [place.name for place in self.places] + [BOXES, RELAYED, MINE]
        tables = []
        for number in range(dice.choice((1, 1, 2, 3))):
            entries: dict[str, str] = {}
            for letter in dice.sample(letters, dice.randint(1, len(letters))):
                user, _, domain = letter.recipient.lower().partition("@")
                bare = user.partition("+")[0]
                key = dice.choice((f"{user}@{domain}", f"{bare}@{domain}", f"@{domain}", bare))
                to = f"{dice.choice(('v', 'w', bare))}{number}@{dice.choice(names)}"
                entries[key] = f"@{to.partition('@')[2]}" if dice.random() < 0.1 else to
            tables.append(self._aliases(dice, f"virtual.{number}", entries))
        separator = dice.choice((" ", ", ", ",\n    "))
        self.main["virtual_alias_maps"] = separator.join(tables)
        if dice.random() < 0.2:
            self.main["canonical_maps"] = self._aliases(
                dice, "canonical", {f"v0@{dice.choice(names)}": f"w9@{dice.choice(names)}"}
            )

    def _aliases(self, dice: random.Random, name: str, entries: Mapping[str, str]) -> str:
        """Write aliases as a table of any type."""
        kind = dice.choice(("texthash", "inline", "regexp", "regexp", "unionmap", "pipemap"))
        if kind == "texthash":
            self.files[name] = "".join(f"{key} {to}\n" for key, to in entries.items())
            return f"texthash:@ETC@/{name}"
        if kind == "regexp":
            self.files[name] = "".join(_rule(dice, key, to) for key, to in entries.items())
            return f"regexp:@ETC@/{name}"
        pairs = ",".join(f"{{{key}={to}}}" for key, to in entries.items())
        if kind == "inline":
            return f"inline:{{{pairs}}}"
        if kind == "unionmap":  # of both tables' results at once there would be two addresses
            return f"unionmap:{{inline:{{{pairs}}},inline:{{{{none={dice.random()}}}}}}}"
        self.files[name] = "/^(.*)$/ $1\n"
        return f"pipemap:{{inline:{{{pairs}}},regexp:@ETC@/{name}}}"

    # ------------------------------------------------------------ letters

    def letter(self, number: int) -> Letter:
        place = self.place()
        domain = self.pick(
            *(place.name, place.name, place.name, place.name, f"sub.{place.name}"),
            *(BOXES, RELAYED, MINE, f"sub.{RELAYED}"),
        )
        if self.maybe(0.05):
            domain = f"[{place.address}]"
        # One letter of each is to "user", whom tables name; the others can be told apart.
        local = self.pick("user", "User") if number == 0 else f"u{number}"
        domain = domain.title() if self.maybe(0.1) else domain
        extension = self.pick("", "", "", "+x", "+y")
        by_sendmail = self.maybe(0.5)
        asks = self.pick("requiretls", "requiretls", "header", "no", "")
        if not self.requiretls:
            asks = self.pick("no", "")
        return Letter(
            recipient=f"{local}{extension}@{domain}",
            sender=self.pick(SENDER, *SENDERS),
            by_sendmail=by_sendmail,
            asks=asks,
            utf8=self.maybe(0.15),
            # Of mail of sendmail(1) no size is declared (docs/forecast.md).
            large=self.maybe(0.15) and not by_sendmail,
            eight_bit=self.maybe(0.15),
            dsn=self.maybe(0.15),
        )

    # ------------------------------------------------------------ quirks

    def put(self, parameter: str, value: str) -> None:
        """A setting that is not mirrored: in main.cf, or as ``-o`` of a transport."""
        self.quirk = parameter
        if parameter.startswith("smtp_") and self.quirks.random() < 0.4:
            self.quirks.choice((self.smtp, *self.clones.values()))[parameter] = value
        else:
            self.main[parameter] = value

    def make(self) -> Installation:
        chosen = self.quirks.choice(QUIRKS) if self.quirks.random() < 0.4 else None
        if self.with_quirk and isinstance(chosen, str):
            self.opaque = chosen
        self.fill()
        letters = tuple(self.letter(number) for number in range(LETTERS))
        self.alias(letters)
        if self.with_quirk and isinstance(chosen, str) and chosen in self.main:
            self.quirk = chosen
        elif self.with_quirk and chosen is not None and not isinstance(chosen, str):
            chosen(self)
        noise = random.Random(f"noise {self.name}")  # noqa: S311 - to be repeated
        main = {key: _noisy(value, noise) for key, value in self.main.items()}
        services = "".join(
            f"{name} unix - - n - - smtp\n{_options(settings, noise, name)}"
            for name, settings in self.clones.items()
        )
        smtp = _options(self.smtp, noise)
        return Installation(self.name, main, smtp, services, dict(self.files), letters, self.quirk)


def _rule(dice: random.Random, key: str, to: str) -> str:
    """A line of a table of patterns that has what the entry has, and often more."""
    user, _, domain = key.rpartition("@")
    if not domain:
        return f"/^{re.escape(key)}@/ {to}\n"
    if not user or to.startswith("@"):
        where = re.escape(domain).replace("\\-", "-")
        # What it makes begins with w: it has no end if that is expanded again.
        return f"/^([^@+w][^@+]*)([^@]*)@{where}$/ w$1@{to.rpartition('@')[2]}\n"
    ours = re.escape(user), re.escape(domain)
    pattern = dice.choice(("^{}(\\+.*)?@{}$", "^{}@{}$")).format(*ours).replace("\\-", "-")
    return f"/{pattern}/ {to}\n"


def _as_patterns(entries: Mapping[str, str]) -> str:
    """The same table as one of patterns, which nobody can list."""
    rules = ", ".join(
        f"{{/^{re.escape(key)}$$/ {value}}}".replace("\\-", "-") for key, value in entries.items()
    )
    return f"regexp:{{{rules}}}"


def _noisy(value: str, dice: random.Random) -> str:
    """The same value, over several lines at times."""
    if ", " in value and dice.random() < 0.3:
        return value.replace(", ", ",\n# as agreed\n\n    ", 1)
    return value


def _options(settings: Mapping[str, str], dice: random.Random, name: str = "") -> str:
    lines = [f"  -o syslog_name=postfix/{name}"] if name else []
    for key, value in settings.items():
        plain = f"  -o {key}={value}"
        braces = f"  -o {{ {key} = {value} }}"
        lines.append(braces if " " in value or dice.random() < 0.4 else plain)
        if dice.random() < 0.2:
            lines.append("# as agreed")
    return "".join(f"{line}\n" for line in lines)


def _setting(parameter: str, *values: str) -> Callable[[_Maker], None]:
    def quirk(maker: _Maker) -> None:
        maker.put(parameter, maker.quirks.choice(values))

    return quirk


def _fallback(maker: _Maker) -> None:
    maker.put("smtp_fallback_relay", f"[{maker.quirks.choice(maker.places).host}]")


def _list_of_hops(maker: _Maker) -> None:
    if maker.main.get("relayhost"):
        maker.main["relayhost"] += f", [{maker.quirks.choice(maker.places).host}]"
        maker.quirk = "next hops"


def _alias(maker: _Maker) -> None:
    place = maker.quirks.choice(maker.places)
    pairs = f"{{ user@{place.name} = u9@{maker.quirks.choice(maker.places).name} }}"
    maker.put("virtual_alias_maps", f"inline:{{ {pairs} }}")


def _canonical(maker: _Maker) -> None:
    one, other = maker.quirks.choice(maker.places), maker.quirks.choice(maker.places)
    maker.put("canonical_maps", f"inline:{{ {{ @{one.name} = @{other.name} }} }}")


def _content_filter(maker: _Maker) -> None:
    maker.put("content_filter", f"relay:[{maker.quirks.choice(maker.places).host}]")


def _filter_in_header(maker: _Maker) -> None:
    to = f"smtp:[{maker.quirks.choice(maker.places).host}]"
    maker.put("header_checks", f"regexp:{{{{/^Subject:/ FILTER {to}}}}}")


def _fallback_transport(maker: _Maker) -> None:
    if maker.main.get("mailbox_transport"):
        maker.main["fallback_transport"] = maker.main.pop("mailbox_transport")
        maker.quirk = "fallback_transport"


def _doubled_key(maker: _Maker) -> None:
    """Say something twice: no daemon opens such a table."""
    for name, text in maker.files.items():
        if name.startswith("transport_maps."):
            key = next(line for line in text.splitlines()[2:] if line[0] not in "# ").split()[0]
            maker.files[name] += f"{key.lower()} smtp:\n"
            maker.quirk = "transport_maps"


def _missing_transport(maker: _Maker) -> None:
    maker.main["default_transport"] = "absent"
    maker.quirk = "transport absent"


QUIRKS: tuple[str | Callable[[_Maker], None], ...] = (
    "transport_maps",
    "smtp_tls_policy_maps",
    "sender_dependent_relayhost_maps",
    "sender_dependent_default_transport_maps",
    "virtual_mailbox_domains",
    "relay_domains",
    "mydestination",
    _setting("soft_bounce", "yes"),
    _setting("smtp_discard_ehlo_keywords", "starttls", "requiretls", "smtputf8, size", "size"),
    _setting("smtp_delivery_status_filter", "regexp:{{/^5(.*)/ 4$$1}}"),
    _setting("smtp_tls_wrappermode", "yes"),
    _setting("smtp_skip_5xx_greeting", "no"),
    _setting("smtp_dns_reply_filter", "regexp:{{/ IN TLSA / IGNORE}}", "regexp:{{/ MX / IGNORE}}"),
    _setting("smtp_reply_filter", "regexp:{{/^250.STARTTLS/ 250-X}}"),
    _setting("smtp_tls_mandatory_protocols", "!TLSv1.2, !TLSv1.3"),
    _setting("smtp_never_send_ehlo", "yes"),
    _setting("smtp_tls_secure_cert_match", "other.example"),
    _setting("smtp_tls_verify_cert_match", "other.example"),
    _setting("defer_transports", "smtp", "strict, out-2"),
    _setting("ignore_mx_lookup_error", "yes"),
    _setting("smtp_dns_support_level", "", "enabled"),
    _setting("smtp_tls_security_level", "fingerprint", "nonsense"),
    _setting("smtp_tcp_port", "587"),
    _setting("smtp_tls_CAfile", ""),
    _setting("smtp_tls_servername", "other.example"),
    _setting("smtp_tls_trust_anchor_file", "@ETC@/server.pem"),
    _setting("smtp_tls_force_insecure_host_tlsa_lookup", "yes"),
    _setting("smtp_cname_overrides_servername", "yes"),
    _setting("smtp_tls_scert_verifydepth", "0"),
    _setting("smtp_host_lookup", "native"),
    _setting("smtp_tls_exclude_ciphers", "aECDSA", "HIGH"),
    _setting("smtp_sasl_auth_enable", "yes"),
    _setting("smtp_bind_address", "127.0.0.2"),
    _setting("smtp_tls_connection_reuse", "yes"),
    _setting("smtp_discard_ehlo_keyword_address_maps", "static:starttls"),
    _setting("allow_srv_lookup_fallback", "yes"),
    _setting("disable_dns_lookups", "yes"),
    _setting("tls_required_enable", "no"),
    _setting("smtp_tls_per_site", "static:MUST"),
    _setting("smtputf8_enable", "no"),
    _setting("requiretls_esmtp_header", "no"),
    _setting("mime_header_checks", "regexp:{{/^Content/ REJECT}}"),
    _fallback,
    _list_of_hops,
    _alias,
    _canonical,
    _content_filter,
    _filter_in_header,
    _fallback_transport,
    _missing_transport,
    _doubled_key,
)
"""What the mirror does not know: a parameter whose table cannot be read, or a change."""


def at_random(
    seed: int,
    count: int,
    places: Sequence[Place],
    *,
    start: int = 0,
    version: tuple[int, int] = (3, 11),
    quirks: bool = True,
) -> Iterator[Installation]:
    """*count* installations; the same *seed* makes the same ones."""
    for number in range(start, start + count):
        name = f"{seed}-{number}"
        maker = _Maker(
            name=name,
            dice=random.Random(name),  # noqa: S311 - to be repeated, not to be secret
            quirks=random.Random(f"quirk {name}"),  # noqa: S311
            places=places,
            requiretls=version >= (3, 11),
            modern=version >= (3, 8),
            with_quirk=quirks,
        )
        yield maker.make()
