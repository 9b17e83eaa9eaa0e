"""Chains to the authorities that count: a file of the operator's, or the system's store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings

from requiretls_milter.evidence.authorities import load_trust_store
from requiretls_milter.forecast import pkix
from tests.support import build, chains, openssl
from tests.support.chains import HOST, Chain, Make, issue, trusting


def test_an_authority_that_was_renewed_is_good_beside_what_it_was(tmp_path: Path) -> None:
    """With the same key, as the operator's own authority is renewed; in whatever order."""
    root, middle = Make("Root", 3, ca=True), Make("Middle", 2, ca=True)
    leaf = issue(Make(HOST, 1, (HOST,), ca=False), middle)
    roots = [issue(replace(root, valid="past"), None), issue(root, None)]
    issuers = [issue(replace(middle, valid="past"), root), issue(middle, root)]
    for listed in (roots, roots[::-1]):
        path = tmp_path / "ca.pem"
        path.write_bytes(b"".join(map(_pem, listed)))
        trust = load_trust_store(str(path))
        for sent in (issuers, issuers[::-1]):
            assert pkix.check((leaf, *sent), (HOST,), trust, build.NOW).mismatch is None
        assert (
            pkix.check((leaf, issuers[0]), (HOST,), trust, build.NOW).mismatch
            == "certificate has expired"
        )


def test_a_store_that_was_asked_about_one_time_answers_for_another(tmp_path: Path) -> None:
    """OpenSSL keeps the first time that a store is given: a renewed root would never count."""
    root, late = Make("Root", 3, ca=True), Make("Late", 2, ca=True, valid="future")
    roots = [issue(replace(root, valid="past"), None), issue(root, None)]
    leaf = issue(Make(HOST, 1, (HOST,), ca=False), root)
    too_early = (issue(Make(HOST, 1, (HOST,), ca=False), late), issue(late, root))
    while_former = build.NOW - 10 * 86_400.0
    for listed in (roots, roots[::-1]):
        path = tmp_path / "ca.pem"
        path.write_bytes(b"".join(map(_pem, listed)))
        trust = load_trust_store(str(path))
        for _ in range(2):
            flaw = pkix.check(too_early, (HOST,), trust, while_former).mismatch
            assert flaw is not None
            assert flaw.startswith("certificate is not yet valid")
            assert pkix.check((leaf,), (HOST,), trust, build.NOW).mismatch is None


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


@pytest.mark.usefixtures("openssl_to_compare_with")
@settings(max_examples=300)
@given(chains.chains())
def test_r06_a_chain_leads_to_a_trusted_authority_where_openssl_says_so(chain: Chain) -> None:
    root = chain.all[-1]
    verdict = openssl.pkix(chain.presented, (root,), (HOST,), build.NOW)
    mismatch = pkix.check(chain.presented, (HOST,), trusting(root), build.NOW).mismatch
    assert (mismatch is None) == (verdict.error == ""), (mismatch, verdict.error)
