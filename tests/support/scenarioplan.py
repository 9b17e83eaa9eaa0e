"""What the scenarios need of the world: names, addresses, certificates, records, policies.

It only decides; ``dns.py``, ``servers.py`` and ``postfix.py`` make it real.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cryptography.hazmat.primitives import serialization

from tests.support import addresses
from tests.support.pki import Certificate, Pki, spki
from tests.support.scenario import Domain, Mx, Scenario, Server, Sts

_DER = serialization.Encoding.DER

TTL = 300

DOWNSTREAM_NAME = "downstream.sig.test"

_MAPPED = "::ffff:"


@dataclass(frozen=True)
class Host:
    """One MX host of one scenario, as it came to be."""

    scenario: str
    domain: str
    name: str
    """What the MX record names (the domain itself for ``implicit``)."""
    address: str
    certificate: Certificate | None
    address6: str = ""


@dataclass
class ScenarioPlan:
    """Everything that the scenarios added so far need."""

    pki: Pki
    mapped: bool = False
    """Whether IPv6 addresses are IPv4-mapped ones (``addresses.FIRST_MAPPED``)."""
    apart: bool = False
    """Whether each server is in a network (/24) of its own, as servers of strangers are."""
    records: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Zone name (``sig.test``) to lines of its zone file, names absolute."""
    listeners: list[dict[str, Any]] = field(default_factory=list)
    """For ``servers.py``: address, port, behaviour, certificate."""
    blackholes: list[str] = field(default_factory=list)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """For ``servers.py``: name of the policy host to what it serves."""
    transport: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Domain, or address of a recipient, to profile and next hop ("" = the domain)."""
    tls_policy: dict[str, str] = field(default_factory=dict)
    """Next hop to entry of Postfix's policy table."""
    hosts: dict[str, Host] = field(default_factory=dict)
    """Host name to host."""
    scenarios: dict[str, Scenario] = field(default_factory=dict)
    downstream: Certificate | None = None

    _next_address: ipaddress.IPv4Address = addresses.FIRST_MX
    _next_address6: ipaddress.IPv6Address = addresses.FIRST_MX6

    def __post_init__(self) -> None:
        """Name what every lab has."""
        if self.mapped:
            self._next_address6 = ipaddress.IPv6Address(f"::ffff:{addresses.FIRST_MAPPED}")
        self.downstream = self.pki.issue(DOWNSTREAM_NAME)
        self._address_record(DOWNSTREAM_NAME, addresses.DOWNSTREAM)
        self._address_record("mta.sender.test", addresses.FRONT)
        self._record("sender.test", "MX 10 mailbox.sender.test.")
        self._address_record("mailbox.sender.test", addresses.MAILBOX)
        self.listeners.append(
            {
                "address": addresses.MAILBOX,
                "port": 25,
                "name": "mailbox.sender.test",
                "pem": str(self.pki.issue("mailbox.sender.test").path),
                "server": {},
            }
        )

    def add(self, scenarios: Iterable[Scenario]) -> None:
        """Make room for *scenarios*; a second one of the same id is an error."""
        for scenario in scenarios:
            if scenario.id in self.scenarios:
                raise ValueError(f"two scenarios of the id {scenario.id}")
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", scenario.id):
                raise ValueError(f"{scenario.id!r}: an id is part of a domain name")
            self.scenarios[scenario.id] = scenario
            for domain in scenario.domains:
                self._add_domain(scenario, domain)

    def hosts_of(self, scenario: Scenario) -> list[Host]:
        """The MX hosts of *scenario*, in the order in which it names them."""
        return [host for host in self.hosts.values() if host.scenario == scenario.id]

    def recipients(self, scenario: Scenario) -> list[str]:
        """The envelope recipients: each local part at each domain, domain by domain."""
        return [
            f"{local}@{self._domain_part(scenario, domain)}"
            for domain in scenario.domains
            for local in scenario.message.rcpts
        ]

    def _domain_part(self, scenario: Scenario, domain: Domain) -> str:
        if domain.kind == "literal":
            return f"[{self.hosts[_host_name(scenario, domain, 1)].address}]"
        if domain.kind == "literal6":
            return f"[IPv6:{self.hosts[_host_name(scenario, domain, 1)].address6}]"
        return scenario.domain_name(domain)

    def _add_domain(self, scenario: Scenario, domain: Domain) -> None:
        name = scenario.domain_name(domain)
        owner = name
        if domain.kind == "cname":
            owner = f"canonical.{name}"
            self._record(name, f"CNAME {owner}.")
        if domain.kind == "nullmx":
            self._record(name, "MX 0 .")  # RFC 7505
        elif domain.kind == "nodata":
            self._record(name, 'TXT "neither MX nor address"')
        elif domain.kind != "nxdomain":
            for number, mx in enumerate(domain.mx, start=1):
                self._add_host(scenario, domain, owner, number, mx)
        substitutes = {
            f"@MX{number}@": self._mx_name(scenario, domain, number)
            for number in range(1, len(domain.mx) + 1)
        } | {"@DOM@": name}
        for number, host in enumerate(self._hosts_of_domain(scenario, name), start=1):
            substitutes[f"@ADDR6{number}@"] = host.address6
        nexthop = _substitute(domain.nexthop or "", substitutes)
        if domain.kind in ("literal", "literal6"):
            for local in scenario.message.rcpts:
                address = f"{local}@{self._domain_part(scenario, domain)}"
                self.transport[address] = (scenario.profile, nexthop)
        else:
            self.transport[name] = (scenario.profile, nexthop)
        if domain.sts is not None:
            patterns = [_substitute(item, substitutes) for item in domain.sts.patterns]
            self._add_sts(name, nexthop, domain.sts, patterns)

    def _hosts_of_domain(self, scenario: Scenario, name: str) -> list[Host]:
        return [host for host in self.hosts_of(scenario) if host.domain == name]

    def _mx_name(self, scenario: Scenario, domain: Domain, number: int) -> str:
        """The name that the MX record has for this host."""
        mx = domain.mx[number - 1]
        if domain.kind == "implicit":
            return scenario.domain_name(domain)
        if mx.host == "literal":
            return self.hosts[_host_name(scenario, domain, number)].address
        if mx.alias:
            return f"alias{number}.{scenario.label(domain)}.{mx.alias}.test"
        return _host_name(scenario, domain, number)

    def _add_host(
        self, scenario: Scenario, domain: Domain, owner: str, number: int, mx: Mx
    ) -> None:
        host = _host_name(scenario, domain, number)
        address = self._address_of(mx)
        names = [host]
        if mx.alias:
            names.append(f"alias{number}.{scenario.label(domain)}.{mx.alias}.test")
        if mx.addr == "downstream":
            certificate = self.downstream
        else:
            certificate = self.pki.issue(host, mx.server.cert, chain=mx.server.chain, names=names)
        address6 = "" if mx.addr6 == "none" else self._address6()
        self.hosts[host] = Host(
            scenario.id, scenario.domain_name(domain), host, address, certificate, address6
        )
        mx_name = self._mx_name(scenario, domain, number)
        if domain.kind in ("mx", "cname"):
            self._record(owner, f"MX {mx.pref} {mx_name}.")
        if mx_name != host and mx.alias:
            self._record(mx_name, f"CNAME {host}.")
        if mx.host in ("normal", "self"):
            self._address_records(host, mx, address, address6)
        elif mx.host == "noaddr":
            self._record(host, 'TXT "no address"')
        if mx.host not in ("nx", "literal"):
            # A TLSA record below a name makes that name exist: never below a missing host.
            at = mx_name if mx.tlsa_at == "qname" else host
            self._add_tlsa(at, f"{number}.{scenario.label(domain)}", mx, certificate)
        if mx.addr == "listen" and mx.host != "self":
            self._listen(address, host, names, mx.server, mx, certificate)
        elif mx.addr == "blackhole":
            self.blackholes.append(address)
        if mx.addr6 == "listen":
            self._listen(address6, host, names, mx.server6 or mx.server, mx, certificate)

    def _address_records(self, host: str, mx: Mx, address: str, address6: str) -> None:
        if mx.addr != "none":
            self._address_record(host, address)
        if address6:
            self._record(host, f"AAAA {address6}")
        for server in mx.more:
            further = self._address_of(mx)
            self._address_record(host, further)
            self._listen(further, host, [host], server, mx, self.hosts[host].certificate)

    def _listen(
        self,
        address: str,
        name: str,
        names: list[str],
        server: Server,
        mx: Mx,
        certificate: Certificate | None,
    ) -> None:
        """Let *server* listen there, with the host's certificate if it wants no other."""
        if (server.cert, server.chain) != (mx.server.cert, mx.server.chain):
            certificate = self.pki.issue(name, server.cert, chain=server.chain, names=names)
        assert certificate is not None
        self.listeners.append(
            {
                "address": address.removeprefix(_MAPPED),
                "port": 25,
                "name": server.name or name,
                "pem": str(certificate.path),
                "server": asdict(server),
            }
        )

    def _address_of(self, mx: Mx) -> str:
        if mx.host == "self":
            return addresses.FRONT
        if mx.addr == "noroute":
            return addresses.NO_ROUTE
        if mx.addr == "downstream":
            return addresses.DOWNSTREAM
        # 127.x.y.0 and 127.x.y.255 would do, but look like networks in a log.
        while int(self._next_address) % 256 in (0, 255):
            self._next_address += 1
        address = str(self._next_address)
        self._next_address += 256 if self.apart else 1
        return address

    def _address6(self) -> str:
        self._next_address6 += 1
        mapped = self._next_address6.ipv4_mapped
        return f"{_MAPPED}{mapped}" if mapped else str(self._next_address6)

    def _add_tlsa(self, host: str, unique: str, mx: Mx, certificate: Certificate | None) -> None:
        owner = f"_25._tcp.{host}"
        for item in mx.tlsa:
            where, _, rest = item.rpartition(":")
            where = where or rest
            if where in ("cname-sig", "cname-uns"):
                zone = where.removeprefix("cname-")
                target = f"tlsa{unique}.{zone}.test"
                if not any(line.startswith(f"{owner}. ") for line in self._zone(owner)):
                    self._record(owner, f"CNAME {target}.")
                self._record(target, "TLSA " + self.tlsa_record(rest, certificate))
            elif where == "cname-bogus":
                target = f"tlsa{unique}.bogus.test"
                self._record(owner, f"CNAME {target}.")
                self._record(target, "TLSA " + self.tlsa_record("3 1 1 match", certificate))
            elif where in ("deleg-lame", "deleg-dead"):
                # The name is a zone of its own, whose server never helps.
                self._record(owner, f"NS ns.{where.removeprefix('deleg-')}-server.test.")
            else:
                self._record(owner, "TLSA " + self.tlsa_record(rest, certificate))

    def tlsa_record(self, words: str, certificate: Certificate | None) -> str:
        """RFC 6698 §2.1, with the association data that the vocabulary names."""
        usage, selector, matching, what = words.split()
        if what == "garbage":
            return f"{usage} {selector} {matching} {'deadbeef' * 8}"
        if what == "ca":
            authority = self.pki.authority
            der = authority.certificate.public_bytes(_DER)
            key = spki(authority.key.public_key())
        elif certificate is not None:
            der, key = certificate.der, certificate.spki
        else:
            raise ValueError(f"TLSA {words}: the host presents no certificate")
        data = der if selector == "0" else key
        if what == "bad":
            data = b"another key" + data
        if matching == "2":
            data = hashlib.sha512(data).digest()
        elif matching != "0":
            data = hashlib.sha256(data).digest()
        if what == "short":
            data = data[: len(data) // 2]
        return f"{usage} {selector} {matching} {data.hex()}"

    def _add_sts(self, domain: str, nexthop: str, sts: Sts, patterns: list[str]) -> None:
        lines = ["version: STSv1", f"mode: {sts.mode}", *(f"mx: {item}" for item in patterns)]
        lines.append(f"max_age: {sts.max_age}")
        self.tls_policy[nexthop or domain] = policy_entry(sts.style, domain, lines)
        policy_host = f"mta-sts.{domain}"
        body = "".join(f"{line}\r\n" for line in lines)
        kind = sts.https if sts.https in ("wrongname", "expired", "selfsigned", "untrusted") else ""
        self.policies[policy_host] = {
            "body": body,
            "https": "ok" if kind else sts.https,
            "pem": str(self.pki.issue(policy_host, kind or "match").path),
        }
        identifier = hashlib.sha256(body.encode()).hexdigest()[:20]
        self._record(f"_mta-sts.{domain}", f'TXT "v=STSv1; id={identifier};"')
        self._address_record(policy_host, addresses.POLICY_HOST)

    def _zone(self, name: str) -> list[str]:
        return self.records[".".join(name.split(".")[-2:])]

    def _record(self, name: str, data: str) -> None:
        self._zone(name).append(f"{name}. {TTL} {data}")

    def _address_record(self, name: str, address: str) -> None:
        self._record(name, f"A {address}")


def policy_entry(style: str, domain: str, lines: Sequence[str]) -> str:
    """What a policy service makes of a policy in mode ``enforce``, whose *lines* these are.

    *style*: ``old`` is what all of them say, ``new`` what Postfix 3.10.5 brought.
    """
    fields = [line.split(": ", maxsplit=1) for line in lines]
    patterns = [value for key, value in fields if key == "mx"]
    # Postfix's "match" has .example.org where RFC 8461 §3.2 has *.example.org.
    match = ":".join(item.removeprefix("*") for item in patterns)
    entry = f"secure match={match} servername=hostname"
    if style == "new":
        entry += f" policy_type=sts policy_domain={domain} policy_ttl={dict(fields)['max_age']}"
        entry += "".join(f" {{ policy_string = {line} }}" for line in lines)
        entry += "".join(f" mx_host_pattern={item}" for item in patterns)
    return entry


def _host_name(scenario: Scenario, domain: Domain, number: int) -> str:
    if domain.kind == "implicit":
        return scenario.domain_name(domain)
    return f"mx{number}.{scenario.label(domain)}.{domain.mx[number - 1].zone}.test"


def _substitute(text: str, substitutes: Mapping[str, str]) -> str:
    for word, value in substitutes.items():
        text = text.replace(word, value)
    return text
