"""Whether a chain matches TLSA records, against OpenSSL's own X509_verify_cert()."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from requiretls_milter.forecast import certificate, dane
from requiretls_milter.model import TlsaRecord
from tests.support import build, chains, openssl
from tests.support.chains import DOMAIN, HOST, Chain

pytestmark = pytest.mark.usefixtures("openssl_to_compare_with")

NAMES = (HOST, DOMAIN)


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
    verdict = openssl.dane(chain.presented, accepted, NAMES, build.NOW)
    assert len(usable) == verdict.usable
    if usable:
        mismatch = dane.check(chain.presented, usable, NAMES, build.NOW).mismatch
        assert (mismatch is None) == (verdict.error == ""), (mismatch, verdict.error)


@given(cases())
def test_r40_the_order_of_the_records_does_not_matter(
    case: tuple[Chain, tuple[TlsaRecord, ...]],
) -> None:
    chain, records = case
    usable = dane.usable(records)
    for changed in (usable[::-1], usable * 2):
        assert (dane.check(chain.presented, changed, NAMES, build.NOW).mismatch is None) == (
            dane.check(chain.presented, usable, NAMES, build.NOW).mismatch is None
        )
