"""Chains to the authorities that count: a file of the operator's, or the system's store."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings

from requiretls_milter.forecast import pkix
from requiretls_milter.forecast.pkix import TrustStore, TrustStoreError
from tests.support import build, chains, openssl
from tests.support.authority import Authority
from tests.support.chains import HOST, Chain, Make, issue, trusting

VERIFY = """
import gc, sys
from OpenSSL import SSL
from requiretls_milter.forecast.pkix import TrustStore
trust = TrustStore.load("")
gc.collect()
contexts = [SSL.Context(SSL.TLS_CLIENT_METHOD) for _ in range(50)]
for name in sys.argv[1:]:
    with open(name, "rb") as leaf:
        print(trust.path((leaf.read(),)).flaw or "verified")
"""


def test_the_systems_store_outlives_what_it_was_loaded_with(tmp_path: Path) -> None:
    """In a process of its own: a store that is freed too early kills it, or verifies anything."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    files = []
    for authority in (ours, theirs):
        path = tmp_path / f"{authority.path.stem}.der"
        path.write_bytes(authority.issue("mx.example.org").der)
        files.append(str(path))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", VERIFY, *files * 3],
        env={"SSL_CERT_FILE": str(ours.path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["verified", "unable to get local issuer certificate"] * 3


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("nothing", "no certificate in PEM form")],
)
def test_a_file_that_anchors_nothing_is_told(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TrustStoreError, match=said):
        TrustStore.load(str(path))


def test_an_authority_that_was_renewed_is_good_beside_what_it_was(tmp_path: Path) -> None:
    """With the same key, as the operator's own authority is renewed; in whatever order."""
    root, middle = Make("Root", 3, ca=True), Make("Middle", 2, ca=True)
    leaf = issue(Make(HOST, 1, (HOST,), ca=False), middle)
    roots = [issue(replace(root, valid="past"), None), issue(root, None)]
    issuers = [issue(replace(middle, valid="past"), root), issue(middle, root)]
    for listed in (roots, roots[::-1]):
        path = tmp_path / "ca.pem"
        path.write_bytes(b"".join(map(_pem, listed)))
        trust = TrustStore.load(str(path))
        for sent in (issuers, issuers[::-1]):
            assert pkix.mismatch((leaf, *sent), (HOST,), trust, build.NOW) is None
        assert (
            pkix.mismatch((leaf, issuers[0]), (HOST,), trust, build.NOW)
            == "certificate has expired"
        )


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


@pytest.mark.usefixtures("openssl_to_compare_with")
@settings(max_examples=300)
@given(chains.chains())
def test_r06_a_chain_leads_to_a_trusted_authority_where_openssl_says_so(chain: Chain) -> None:
    root = chain.all[-1]
    verdict = openssl.pkix(chain.presented, (root,), (HOST,), build.NOW)
    mismatch = pkix.mismatch(chain.presented, (HOST,), trusting(root), build.NOW)
    assert (mismatch is None) == (verdict.error == ""), (mismatch, verdict.error)
