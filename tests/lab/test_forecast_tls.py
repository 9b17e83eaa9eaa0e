"""Odd keys, certificates, suites and groups: the forecast is what the real Postfix makes of them.

Each server is met in several ways: by DANE-EE, by DANE-TA, by a certification authority (MTA-STS),
and where Postfix verifies nobody and makes do with TLS that it would not have otherwise.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ssl
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab.hostile import HostileServer
from tests.lab.lab import Lab
from tests.lab.labconfig import told_apart
from tests.lab.milter import Milter
from tests.lab.sweep import differences, knowing_all, send
from tests.lab.versions import as_recorded
from tests.support.pki import Authority, spki
from tests.support.scenario import Domain, Mx, Scenario, Sts

pytestmark = pytest.mark.lab

PARALLEL = 8

UNSIGNED = Mx(zone="uns", addr="refused", tlsa=())
SIGNED = Mx(addr="refused", tlsa=())

WAYS = {
    "ee": ("dane/enforce", Domain(mx=(SIGNED,))),  # its TLSA record is made with the key
    "ta": ("dane/enforce", Domain(mx=(Mx(addr="refused", tlsa=("2 1 1 ca",)),))),
    "authority": ("sts/enforce", Domain(zone="uns", sts=Sts(), mx=(UNSIGNED,))),
    "may": ("may/disable", Domain(mx=(SIGNED,))),
    # a record that nobody can use: no authentication, though it was planned
    "unusable": ("dane/enforce", Domain(mx=(Mx(addr="refused", tlsa=("3 1 9 match",)),))),
}

KEYS: dict[str, Callable[[], Any]] = {
    "p192": lambda: ec.generate_private_key(ec.SECP192R1()),
    "p224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "dsa": lambda: dsa.generate_private_key(2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - that it is weak
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-exponent-3": lambda: rsa.generate_private_key(3, 2048),
}


def usage(**bits: bool) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names})


@dataclass(frozen=True)
class Odd:
    """A server's key, what its certificate says, and its TLS."""

    key: str = "p256"
    extension: x509.ExtensionType | None = None
    critical: bool = False
    digest: hashes.SHA224 | hashes.SHA256 | hashes.SHA3_256 | None = None
    ciphers: str = "ALL"
    at_most: ssl.TLSVersion | None = None
    group: str = ""
    wants_certificate: bool = False

    def configure(self, context: ssl.SSLContext) -> None:
        context.set_ciphers(f"{self.ciphers}:@SECLEVEL=0")
        if self.at_most is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # some are too old: that is it
                context.minimum_version = ssl.TLSVersion.TLSv1
                context.maximum_version = self.at_most
        if self.group:
            context.set_ecdh_curve(self.group)
        if self.wants_certificate:
            context.verify_mode = ssl.CERT_REQUIRED

    def pem(self, name: str, key: Any, issuer: Authority) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        )
        if self.extension is not None:
            builder = builder.add_extension(self.extension, critical=self.critical)
        certificate = builder.sign(issuer.key, self.digest or hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        made = certificate.public_bytes(serialization.Encoding.PEM)
        return bytes(private + made + issuer.pem)


TLS_1_2 = ssl.TLSVersion.TLSv1_2
FOR_CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
FOR_ANYTHING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
UNHEARD_OF = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")

SUITES = (
    *("AES128-SHA", "AES128-GCM-SHA256", "AES128-CCM8", "CAMELLIA128-SHA", "ARIA128-GCM-SHA256"),
    *("ECDHE-RSA-AES128-SHA", "ECDHE-RSA-CHACHA20-POLY1305", "DHE-RSA-AES128-SHA256"),
    *("NULL-SHA256", "ECDHE-RSA-NULL-SHA", "AECDH-AES128-SHA", "ADH-AES128-SHA"),
)
GROUPS = ("X25519", "X448", "secp224r1", "secp521r1", "brainpoolP256r1")

SERVERS: dict[str, Odd] = {
    **{f"key-{key}": Odd(key) for key in KEYS},
    **{f"key-{key}-12": Odd(key, at_most=TLS_1_2) for key in ("p256", "ed25519", "rsa2048")},
    **{f"suite-{suite}": Odd("rsa2048", ciphers=suite, at_most=TLS_1_2) for suite in SUITES},
    **{f"group-{group}": Odd(group=group) for group in GROUPS},
    **{f"group-{group}-12": Odd(group=group, at_most=TLS_1_2) for group in GROUPS},
    "tls-10": Odd("rsa2048", at_most=ssl.TLSVersion.TLSv1),
    "tls-11": Odd("rsa2048", at_most=ssl.TLSVersion.TLSv1_1),
    "for-clients": Odd(extension=FOR_CLIENTS),
    "for-anything": Odd(extension=FOR_ANYTHING),
    "for-signatures": Odd(extension=usage(digital_signature=True), critical=True),
    "for-agreement": Odd(extension=usage(key_agreement=True), critical=True),
    "for-certificates": Odd(extension=usage(key_cert_sign=True), critical=True),
    "for-encryption": Odd("rsa2048", extension=usage(key_encipherment=True), critical=True),
    "an-authority": Odd(extension=x509.BasicConstraints(ca=True, path_length=0), critical=True),
    "unheard-of": Odd(extension=UNHEARD_OF, critical=True),
    "sha224": Odd(digest=hashes.SHA224()),
    "sha3": Odd(digest=hashes.SHA3_256()),
    "wants-certificate": Odd(wants_certificate=True),
    "wants-certificate-12": Odd(wants_certificate=True, at_most=TLS_1_2),
}


def label(name: str) -> str:
    return "tls-" + name.lower().replace(".", "-")


PLACES = {
    (name, way): told_apart(Scenario(f"{label(name)}-{way}", profile, domains=(domain,)))
    for name in SERVERS
    for way, (profile, domain) in WAYS.items()
}


@pytest.fixture(scope="module")
def milter(lab: Lab) -> Iterator[Milter]:
    lab.plan.add(PLACES.values())
    # One of each kind: making a hundred takes ten seconds of processor time.
    keys = {kind: make() for kind, make in KEYS.items()}
    with contextlib.ExitStack() as stack:
        for (name, way), scenario in PLACES.items():
            server = SERVERS[name]
            (host,) = lab.hosts(scenario)
            key = keys[server.key]
            path = lab.directory / f"{scenario.id}.pem"
            path.write_bytes(server.pem(host.name, key, lab.plan.pki.authority))
            if way == "ee":
                digest = hashlib.sha256(spki(key.public_key())).hexdigest()
                record = f"_25._tcp.{host.name}. 300 TLSA 3 1 1 {digest}"
                lab.plan.records["sig.test"].append(record)
            stack.enter_context(HostileServer(host.address, path, configure=server.configure))
        lab.update()
        yield stack.enter_context(knowing_all(lab))


@pytest.mark.parametrize("way", WAYS)
def test_odd_tls_is_forecast_as_postfix_finds_it(lab: Lab, milter: Milter, way: str) -> None:
    here = [PLACES[name, way] for name in SERVERS]
    with ThreadPoolExecutor(PARALLEL) as pool:
        made = list(pool.map(lambda scenario: send(lab, milter, scenario), here))
    as_recorded(differences(made))
    # it is worth something: much of it is taken, and some is not
    endings = [next(iter(done.values()))[0] for _, _, done in made]
    assert endings.count("2.0.0") > 15
    assert endings.count("4.7.5") > 0
    if way == "authority":
        assert endings.count("5.7.10") > 3
