"""Servers for cross-checks with other tools: certificates and TLSA records, each in a line."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from requiretls_milter.forecast.der import public_key_info
from tests.support.chains import ED25519, RSA, WEAK, Make, issue, key

_SIGNS = ("key_cert_sign", "crl_sign")
ROOT = Make("Cross-check root", 3, ca=True, key_usage=_SIGNS)
MIDDLE = Make("Cross-check issuer", 2, ca=True, key_usage=_SIGNS)
LEAF = Make("{host}", 1, ("{host}",), ca=False, use="server")


@dataclass(frozen=True)
class Case:
    """One server.

    In *leaf* ``{host}`` stands for its name and ``{domain}`` for the mail
    domain. ``issuers`` are from the leaf upwards; ``sent`` says which of the
    chain follow the leaf, by number, the leaf being 0 and -1 a stranger's.
    ``tlsa``: usage, selector and matching type, and what it is about: a number in
    the chain, with ``wrong``, ``short`` or ``garbage`` behind it. ``sha1``: the
    leaf's signature is by that. ``former``: an earlier certificate of the leaf's
    issuer, which is in the chain the number after the last.
    """

    id: str
    leaf: Make
    issuers: tuple[Make, ...]
    sent: tuple[int, ...]
    tlsa: tuple[str, ...]
    sha1: bool
    former: Make | None


def case(
    id: str,
    *tlsa: str,
    issuers: tuple[Make, ...] = (MIDDLE, ROOT),
    sent: tuple[int, ...] = (1, 2),
    sha1: bool = False,
    former: Make | None = None,
    **leaf: object,
) -> Case:
    """A case whose leaf has these changes."""
    return Case(id, replace(LEAF, **leaf), issuers, sent, tlsa, sha1, former)  # type: ignore[arg-type]


OLD_MIDDLE = replace(MIDDLE, valid="past")
CASES = (
    # one record for the server's own certificate or key
    case("ee-311", "3 1 1 0"),
    case("ee-301", "3 0 1 0"),
    case("ee-312", "3 1 2 0"),
    case("ee-302", "3 0 2 0"),
    case("ee-310", "3 1 0 0"),
    case("ee-300", "3 0 0 0"),
    case("ee-wrong", "3 1 1 0 wrong"),
    case("ee-issuer", "3 0 1 1"),
    case("ee-expired", "3 1 1 0", valid="past"),
    case("ee-not-yet", "3 1 1 0", valid="future"),
    case("ee-wrongname", "3 1 1 0", names=("other.example",)),
    case("ee-selfsigned", "3 0 1 0", issuers=(), sent=()),
    case("ee-client", "3 1 1 0", use="client"),
    case("ee-alone", "3 1 1 0", sent=()),
    case("ee-rsa", "3 1 1 0", key=RSA),
    case("ee-ed25519", "3 1 1 0", key=ED25519),
    # one for an authority
    case("ta-root", "2 0 1 2"),
    case("ta-root-key", "2 1 1 2"),
    case("ta-root-512", "2 0 2 2"),
    case("ta-root-unsent", "2 0 1 2", sent=(1,)),
    case("ta-root-full", "2 0 0 2", sent=(1,)),
    case("ta-root-bare-key", "2 1 0 2", sent=(1,)),
    case("ta-issuer", "2 0 1 1"),
    case("ta-issuer-key", "2 1 1 1", sent=(1,)),
    case("ta-issuer-unsent", "2 0 1 1", sent=()),
    case("ta-issuer-full", "2 0 0 1", sent=()),
    case("ta-issuer-bare-key", "2 1 0 1", sent=()),
    case("ta-wrong", "2 0 1 2 wrong"),
    case("ta-leaf", "2 0 1 0"),
    case("ta-selfsigned", "2 0 1 0", issuers=(), sent=()),
    case("ta-selfsigned-full", "2 0 0 0", issuers=(), sent=()),
    case("ta-selfsigned-bare-key", "2 1 0 0", issuers=(), sent=()),
    case("ta-expired", "2 0 1 2", valid="past"),
    case("ta-issuer-expired", "2 0 1 2", issuers=(OLD_MIDDLE, ROOT)),
    case("ta-expired-issuer", "2 0 1 1", issuers=(OLD_MIDDLE, ROOT)),
    case("ta-renewed-issuer", "2 0 1 2", former=OLD_MIDDLE, sent=(3, 1, 2)),
    case("ta-renewed-anchor", "2 1 1 1", former=OLD_MIDDLE, sent=(3, 1, 2)),
    case("ta-former-anchor", "2 0 1 3", former=OLD_MIDDLE, sent=(3, 1, 2)),
    case("ta-not-ca", "2 0 1 2", issuers=(replace(MIDDLE, ca=False), ROOT)),
    case("ta-path-length", "2 0 1 2", issuers=(MIDDLE, replace(ROOT, path_length=0))),
    case("ta-client", "2 0 1 2", use="client"),
    case("ta-any-use", "2 0 1 2", use="any"),
    case("ta-no-use", "2 0 1 2", use=""),
    case("ta-key-usage", "2 0 1 2", key_usage=("crl_sign",)),
    case("ta-reversed", "2 0 1 2", sent=(2, 1)),
    case("ta-stranger", "2 0 1 2", sent=(-1, 1, 2)),
    case("ta-sha1", "2 0 1 2", sha1=True),
    case("ee-sha1", "3 1 1 0", sha1=True),
    case("ee-weak-key", "3 1 1 0", key=WEAK),
    case("ta-weak-key", "2 0 1 2", key=WEAK),
    case("ta-weak-issuer-key", "2 0 1 2", issuers=(replace(MIDDLE, key=WEAK), ROOT)),
    case("ta-weak-anchor-key", "2 0 1 1", issuers=(replace(MIDDLE, key=WEAK), ROOT)),
    # names, which count for authorities only
    case("name-domain", "2 0 1 2", names=("{domain}",)),
    case("name-wildcard", "2 0 1 2", names=("*.{domain}",)),
    case("name-wildcard-above", "2 0 1 2", names=("*.sig.test",)),
    case("name-partial", "2 0 1 2", names=("m*.{domain}",)),
    case("name-case", "2 0 1 2", names=("MX1.{domain}",)),
    case("name-dot", "2 0 1 2", names=("{host}.",)),
    case("name-other", "2 0 1 2", names=("other.example",)),
    case("name-cn", "2 0 1 2", names=()),
    case("name-cn-beside", "2 0 1 2", names=("other.example",), subject="{host}"),
    case(
        "name-cn-and-address",
        "2 0 1 2",
        names=(),
        other_names=(x509.IPAddress(ipaddress.ip_address("127.0.0.1")),),
    ),
    case("name-none", "2 0 1 2", names=(), subject=""),
    case("name-cn-wildcard", "2 0 1 2", names=(), subject="*.{domain}"),
    # several records
    case("set-either-1", "3 1 1 0 wrong", "2 0 1 2"),
    case("set-either-2", "3 1 1 0", "2 0 1 2 wrong"),
    case("set-both-wrong", "3 1 1 0 wrong", "2 0 1 2 wrong"),
    case("set-two-anchors", "2 0 1 1", "2 0 1 2", issuers=(OLD_MIDDLE, ROOT)),
    case("set-agility-bad", "3 1 1 0", "3 1 2 0 wrong"),
    case("set-agility-good", "3 1 1 0 wrong", "3 1 2 0"),
    case("set-agility-selector", "3 0 1 0", "3 1 2 0 wrong"),
    case("set-rollover", "3 1 1 0 wrong", "3 1 1 0"),
    case("set-usable-beside", "3 1 1 0", "3 1 99 0", "1 1 1 0"),
    case("set-wrong-beside", "3 1 1 0 wrong", "3 1 99 0"),
    # none that can be used
    case("un-pkix", "1 1 1 0", "0 0 1 2"),
    case("un-type", "3 1 99 0"),
    case("un-selector", "3 9 1 0"),
    case("un-short", "3 1 1 0 short"),
    case("un-garbage", "3 0 0 0 garbage"),
    case("un-garbage-key", "3 1 0 0 garbage"),
    # none at all: PKIX alone
    case("pkix-good"),
    case("pkix-unsent", sent=()),
    case("pkix-selfsigned", issuers=(), sent=()),
    case("pkix-expired", valid="past"),
    case("pkix-weak-key", key=WEAK),
    case("pkix-renewed-issuer", former=OLD_MIDDLE, sent=(3, 1)),
    case("pkix-stranger", issuers=(replace(ROOT, subject="Unknown", key=60),), sent=(1,)),
)


@dataclass(frozen=True)
class Made:
    """What a server has: PEM for it, its chain and key; and TLSA records for the zone file."""

    pem: bytes
    tlsa: tuple[str, ...]


def make(one: Case, host: str, domain: str) -> Made:
    """Issue the certificates of a case."""

    def named(text: str) -> str:
        return text.format(host=host, domain=domain)

    leaf = replace(
        one.leaf, subject=named(one.leaf.subject), names=tuple(map(named, one.leaf.names))
    )
    makes = (leaf, *one.issuers)
    ders = [
        _issue(item, makes[i + 1] if i + 1 < len(makes) else None, sha1=one.sha1 and i == 0)
        for i, item in enumerate(makes)
    ]
    if one.former is not None:
        ders.append(_issue(one.former, one.issuers[1]))
    stranger = _issue(Make("Stranger", 50, ca=True), None)
    shown = [ders[0], *(stranger if number < 0 else ders[number] for number in one.sent)]
    return Made(_private(leaf.key) + _pem(shown), tuple(_record(words, ders) for words in one.tlsa))


_TODAY = time.time()
"""The lab's tools verify by the clock."""


def _issue(make: Make, issuer: Make | None, *, sha1: bool = False) -> bytes:
    return issue(make, issuer, sha1=sha1, now=_TODAY)


def _private(number: int) -> bytes:
    return key(number).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def trusted() -> bytes:
    """The root that clients trust, and before it what it was until it was renewed, as PEM."""
    return _pem([_issue(replace(ROOT, valid="past"), None), _issue(ROOT, None)])


def _pem(ders: Sequence[bytes]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders)


def _record(words: str, ders: Sequence[bytes]) -> str:
    usage, selector, matching, number, *how = words.split()
    der = ders[int(number)]
    data = public_key_info(der) if selector == "1" else der
    if how == ["wrong"]:
        data = b"another" + data
    if matching == "2":
        data = hashlib.sha512(data).digest()
    elif matching != "0":
        data = hashlib.sha256(data).digest()
    if how == ["short"]:
        data = data[:-1]
    elif how == ["garbage"]:
        data = b"garbage"
    return f"{usage} {selector} {matching} {data.hex()}"
