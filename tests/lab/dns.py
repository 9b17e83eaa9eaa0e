"""The lab's DNS: Knot, with a signed root of its own, and an Unbound that validates against it.

A root of our own, because Postfix asks for the root's records to see whether its resolver
validates at all before it believes in DANE, and because only so can a chain of trust be good,
missing or broken as a scenario wants it.

========== ============================================================
sig.test   signed, chain of trust from the root
uns.test   insecure: delegated without DS
bogus.test signed, but the DS in ``test.`` is of another key
lame.test  the server answers SERVFAIL
dead.test  the server never answers
sender     unsigned: the front MTA's own domain
========== ============================================================
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from tests.lab.errors import LabError
from tests.lab.processes import Server, run
from tests.support import addresses
from tests.support.scenarioplan import TTL

_SIGNED = (".", "test", "sig.test", "bogus.test")
_UNSIGNED = ("uns.test", "sender.test", "lame-server.test", "dead-server.test")
_LOADED = _SIGNED + _UNSIGNED
_LAME = "lame.test"

_NAMESERVERS = {"lame.test": "ns.lame-server.test", "dead.test": "ns.dead-server.test"}


class Dns:
    """Knot and Unbound in the root of ``roots.DNS``; files in a directory of this run."""

    def __init__(self, root: Path, inside: str) -> None:
        """*inside* is the run's directory, which exists, as seen from *root*."""
        self._root = root
        self._inside = inside
        self._directory = root / inside.lstrip("/")
        self._knot: Server | None = None
        self._unbound: Server | None = None
        self._delegations: dict[str, str] = {}
        self.trust_anchor = ""

    def start(self, records: Mapping[str, Sequence[str]]) -> None:
        """Make keys, write zones, start both servers, and see that the resolver validates."""
        for folder in ("zones", "kasp", "journal", "knot-run", "unbound"):
            (self._directory / folder).mkdir()
        (self._directory / "knot.conf").write_text(self._knot_configuration())
        self._delegations = self._make_keys()
        self._write_zones(records, self._delegations)
        self._knot = Server(
            "knotd",
            ["/usr/sbin/knotd", "-c", f"{self._inside}/knot.conf"],
            log=self._directory / "knot.log",
            root=self._root,
        )
        self._knot.wait_until(self._zones_answer, "answering for its zones")
        (self._directory / "unbound/unbound.conf").write_text(self._unbound_configuration())
        self.start_resolver()

    def start_resolver(self) -> None:
        """Start Unbound; a test that stopped it does so again."""
        self._unbound = Server(
            "unbound",
            ["/usr/sbin/unbound", "-d", "-p", "-c", f"{self._inside}/unbound/unbound.conf"],
            log=self._directory / "unbound.log",
            root=self._root,
        )
        self._unbound.wait_until(self._validates, "validating")

    def update(self, records: Mapping[str, Sequence[str]]) -> None:
        """Publish *records* instead of what was published, and forget what was cached."""
        self._write_zones(records, self._delegations)
        self._knotc("-b", "zone-reload", *(f"{zone.rstrip('.')}." for zone in _LOADED))
        self.flush()

    def flush(self) -> None:
        """Make the resolver forget everything."""
        run(
            [
                "/usr/sbin/unbound-control",
                "-c",
                f"{self._inside}/unbound/unbound.conf",
                "reload",
            ],
            root=self._root,
        )
        assert self._unbound is not None
        self._unbound.wait_until(self._validates, "validating again")

    @property
    def resolver(self) -> Server:
        """The running Unbound, e.g. to stop it or to hold it up by SIGSTOP."""
        assert self._unbound is not None
        return self._unbound

    def stop(self) -> None:
        """Stop both servers."""
        for server in (self._unbound, self._knot):
            if server is not None:
                server.stop()

    @property
    def servers(self) -> list[Server]:
        """The running servers."""
        return [server for server in (self._knot, self._unbound) if server is not None]

    def _knotc(self, *words: str) -> str:
        return run(["/usr/sbin/knotc", "-c", f"{self._inside}/knot.conf", *words], root=self._root)

    def _knot_configuration(self) -> str:
        here = self._inside
        zones = "".join(
            f"  - domain: {zone}\n"
            f"    file: {_file_of(zone)}\n"
            f"    dnssec-signing: {'on' if zone in _SIGNED else 'off'}\n"
            for zone in (*_LOADED, _LAME)
        )
        return f"""
server:
    rundir: {here}/knot-run
    pidfile: {here}/knot-run/knot.pid
    listen: [ {addresses.NAMESERVER}@53, {addresses.NAMESERVER_LAME}@53 ]
    udp-workers: 1
    tcp-workers: 1
    background-workers: 2
    async-start: off
control:
    listen: {here}/knot-run/knot.sock
log:
  - target: stderr
    any: info
database:
    storage: {here}
    kasp-db: {here}/kasp
    journal-db: {here}/journal
    journal-db-max-size: 64M
    timer-db: {here}/timers
    catalog-db: {here}/catalog
policy:
  - id: lab
    algorithm: ecdsap256sha256
    single-type-signing: on
    manual: on
    dnskey-ttl: {TTL}
    rrsig-lifetime: 14d
    cds-cdnskey-publish: none
template:
  - id: default
    storage: {here}/zones
    dnssec-policy: lab
    # Zone files are rewritten whole at every update; Knot finds the differences and the serial.
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    semantic-checks: off
zone:
{zones}"""

    def _make_keys(self) -> dict[str, str]:
        """Make each signed zone's key; return zone to the record data of its DS."""
        ds = {}
        for zone in _SIGNED:
            command = [
                "/usr/sbin/keymgr",
                "-c",
                f"{self._inside}/knot.conf",
                f"{zone.rstrip('.')}.",
            ]
            run(
                [*command, "generate", "algorithm=ecdsap256sha256", "ksk=yes", "zsk=yes"],
                root=self._root,
            )
            lines = run([*command, "ds"], root=self._root).splitlines()
            # owner "DS" tag algorithm type digest; type 2 = SHA-256
            ds[zone] = next(line.split(maxsplit=2)[2] for line in lines if line.split()[4] == "2")
        self.trust_anchor = f". IN DS {ds['.']}"
        *head, digest = ds["bogus.test"].split()
        ds["bogus.test"] = " ".join([*head, ("0" if digest[0] != "0" else "1") + digest[1:]])
        return ds

    def _write_zones(self, records: Mapping[str, Sequence[str]], ds: Mapping[str, str]) -> None:
        unknown = set(records) - {*_LOADED, _LAME, "dead.test"}
        if unknown:
            raise LabError(f"records for zones that are not the lab's: {sorted(unknown)}")
        contents = {zone: list(records.get(zone, ())) for zone in _LOADED}
        contents["lame-server.test"].append(
            f"ns.lame-server.test. {TTL} A {addresses.NAMESERVER_LAME}"
        )
        contents["dead-server.test"].append(
            f"ns.dead-server.test. {TTL} A {addresses.NAMESERVER_DEAD}"
        )
        parents = {"test": "."} | {
            zone: "test" for zone in (*_LOADED, _LAME, "dead.test") if zone not in (".", "test")
        }
        for zone, parent in parents.items():
            nameserver = _NAMESERVERS.get(zone, "ns.lab")
            contents[parent].append(f"{zone}. {TTL} NS {nameserver}.")
            if zone in ds:
                contents[parent].append(f"{zone}. {TTL} DS {ds[zone]}")
        # The server's own name is in the root: no zone under test depends on another.
        contents["."].append(f"ns.lab. {TTL} A {addresses.NAMESERVER}")
        # Glue (RFC 1034 §4.2.1) for the two zones whose name servers are their own.
        contents["test"] += contents["lame-server.test"] + contents["dead-server.test"]
        for zone, lines in contents.items():
            apex = f"{zone.rstrip('.')}."
            head = [
                f"{apex} {TTL} SOA ns.lab. hostmaster.lab. 1 3600 600 86400 60",
                f"{apex} {TTL} NS ns.lab.",
            ]
            text = "\n".join(dict.fromkeys([*head, *lines])) + "\n"
            (self._directory / "zones" / _file_of(zone)).write_text(text)

    def _unbound_configuration(self) -> str:
        here = f"{self._inside}/unbound"
        directory = self._directory / "unbound"
        (directory / "root.hints").write_text(
            f". {TTL} NS ns.lab.\nns.lab. {TTL} A {addresses.NAMESERVER}\n"
        )
        (directory / "root.ds").write_text(self.trust_anchor + "\n")
        return f"""
server:
    interface: {addresses.RESOLVER}
    port: 53
    access-control: 127.0.0.0/8 allow
    do-not-query-localhost: no
    do-ip6: no
    num-threads: 1
    chroot: ""
    username: ""
    directory: "{here}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    verbosity: 1
    val-log-level: 2
    root-hints: "{here}/root.hints"
    trust-anchor-file: "{here}/root.ds"
    module-config: "validator iterator"
    # RFC 6761 §6.2: "test." is answered by the resolver itself, if not told otherwise.
    local-zone: "test." nodefault
    # A server that failed in one scenario must not be avoided in the next.
    infra-host-ttl: 1
    infra-cache-max-rtt: 1000
    cache-max-negative-ttl: 5
    val-bogus-ttl: 1
    trust-anchor-signaling: no
    root-key-sentinel: no
    hide-trustanchor: no
    ede: yes
remote-control:
    control-enable: yes
    control-use-cert: no
    control-interface: {here}/control.sock
"""

    def _zones_answer(self) -> bool:
        return all(
            _ask(f"{zone.rstrip('.')}.", "SOA", addresses.NAMESERVER) == dns.rcode.NOERROR
            for zone in _LOADED
        )

    def _validates(self) -> bool:
        try:
            answer = query("sig.test.", "SOA", timeout=0.2)
        except LabError:
            return False
        return answer.rcode() == dns.rcode.NOERROR and bool(answer.flags & dns.flags.AD)


def query(name: str, rdtype: str, *, timeout: float = 2.0) -> dns.message.Message:
    """Ask the lab's resolver, as a client that wants to know about DNSSEC."""
    question = dns.message.make_query(name, rdtype, want_dnssec=True)
    question.flags |= dns.flags.AD
    try:
        answer = dns.query.udp_with_fallback(question, addresses.RESOLVER, timeout=timeout)
    except (OSError, dns.exception.DNSException) as error:
        raise LabError(f"no answer for {name} {rdtype}: {error}") from error
    return answer[0]


def _ask(name: str, rdtype: str, server: str) -> dns.rcode.Rcode | None:
    question = dns.message.make_query(name, rdtype)
    try:
        return dns.query.udp(question, server, timeout=0.2).rcode()
    except OSError:
        time.sleep(0.01)
    except dns.exception.DNSException:
        pass
    return None


def _file_of(zone: str) -> str:
    return f"{zone if zone != '.' else 'root'}.zone"
