"""DANE and PKIX as we verify, against OpenSSL's own X509_verify_cert()."""

from __future__ import annotations

import functools
import os
import tempfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from requiretls_milter.forecast import certificate, dane, pkix
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.model import TlsaRecord
from tests.support import build, chains, openssl
from tests.support.chains import DOMAIN, HOST, Chain

NAMES = (HOST, DOMAIN)


@pytest.fixture(autouse=True, scope="module")
def oracle() -> None:
    try:
        openssl.dane((chains.issue(chains.Make("x", 1), None),), (), (HOST,))
    except openssl.Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no OpenSSL to compare with: {reason}")
        pytest.skip(f"no OpenSSL to compare with: {reason}")


@st.composite
def cases(draw: st.DrawFn) -> tuple[Chain, tuple[TlsaRecord, ...]]:
    chain = draw(chains.chains())
    return chain, draw(chains.record_sets(chain))


@settings(max_examples=400)
@given(cases())
def test_r38_a_chain_matches_its_tlsa_records_where_openssl_says_so(
    case: tuple[Chain, tuple[TlsaRecord, ...]],
) -> None:
    chain, records = case
    accepted = tuple(record for record in records if record.usage in (2, 3))
    # The one difference: a key alone as anchor of what it has signed by SHA-1.
    bare_key = any((r.usage, r.selector, r.matching_type) == (2, 1, 0) for r in accepted)
    weak = any(certificate.parse(der).weak_signature for der in chain.presented)
    assume(not (bare_key and weak))
    usable = dane.usable(accepted)
    verdict = openssl.dane(chain.presented, accepted, NAMES)
    assert len(usable) == verdict.usable
    if usable:
        error = dane.verify(chain.presented, usable, NAMES, build.NOW)
        assert (error == "") == (verdict.error == ""), (error, verdict.error)


@given(cases())
def test_r40_the_order_of_the_records_does_not_matter(
    case: tuple[Chain, tuple[TlsaRecord, ...]],
) -> None:
    chain, records = case
    usable = dane.usable(records)
    for changed in (usable[::-1], usable * 2):
        assert (dane.verify(chain.presented, changed, NAMES, build.NOW) == "") == (
            dane.verify(chain.presented, usable, NAMES, build.NOW) == ""
        )


@functools.lru_cache(maxsize=200)
def trusting(authority: bytes) -> TrustStore:
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(x509.load_der_x509_certificate(authority).public_bytes(Encoding.PEM))
        file.flush()
        return TrustStore.load(file.name)


@settings(max_examples=300)
@given(chains.chains())
def test_r06_a_chain_leads_to_a_trusted_authority_where_openssl_says_so(chain: Chain) -> None:
    root = chain.all[-1]
    verdict = openssl.pkix(chain.presented, (root,), (HOST,))
    error = pkix.verify(chain.presented, (HOST,), trusting(root), build.NOW)
    assert (error == "") == (verdict.error == ""), (error, verdict.error)


LABELS = ("mx", "MX", "*", "m*", "*x", "www", "example", "org", "xn--bcher-kva", "", "a.b")
names = st.one_of(
    st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join),
    st.sampled_from(("*.org", "*.example.org", "*.mx.example.org", ".example.org", "*")),
)
references = st.builds(
    "{}{}".format,
    st.sampled_from(("", "", ".")),
    st.lists(st.sampled_from(("mx", "www", "example", "org")), min_size=2, max_size=4).map(
        ".".join
    ),
)


@settings(max_examples=300)
@given(st.lists(names.filter(bool), max_size=3), names.filter(bool), references)
def test_a_certificate_names_what_openssl_says_it_does(
    dns_names: list[str], common_name: str, reference: str
) -> None:
    root = chains.Make("Root", 3, ca=True)
    leaf = chains.issue(chains.Make(common_name, 1, tuple(dns_names), use="server"), root)
    authority = chains.issue(root, None)
    error = pkix.verify((leaf,), (reference,), trusting(authority), build.NOW)
    verdict = openssl.pkix((leaf,), (authority,), (reference,))
    assert (error == "") == (verdict.error == ""), (error, verdict.error)
