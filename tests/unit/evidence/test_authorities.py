"""The authorities that count: a file of the operator's, or the system's store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from requiretls_milter.evidence.authorities import TrustStoreError, load_trust_store
from requiretls_milter.forecast.judge import judge
from requiretls_milter.model import Requirement
from tests.support.authority import Authority
from tests.support.build import NOW, RFC8689, domain, forecast, host

VERIFY = """
import gc, sys
from OpenSSL import SSL
from requiretls_milter.evidence.authorities import load_trust_store
trust = load_trust_store("")
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
        load_trust_store(str(path))


def test_a_digest_is_that_of_the_authorities_and_not_of_the_file(tmp_path: Path) -> None:
    one, other = (Authority(tmp_path, name).path.read_text("ascii") for name in ("one", "other"))
    contents = (one, other, one + other, other + f"# the same, twice\n{one}{one}")
    digests = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.pem"
        path.write_text(content)
        digests.append(load_trust_store(str(path)).digest)
    assert digests[2] == digests[3]
    assert len(set(digests)) == 3


def test_a_file_with_something_that_is_no_certificate_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    good = Authority(tmp_path).path.read_text("ascii")
    path.write_text(good + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(TrustStoreError, match="not a PEM file of certificates"):
        load_trust_store(str(path))


def test_what_the_systems_store_has_that_is_no_certificate_vouches_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Authority(tmp_path)
    (tmp_path / "00000000.0").write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    (tmp_path / "00000001.0").symlink_to("nowhere")
    (tmp_path / "00000002.0").write_bytes(good.path.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("SSL_CERT_DIR", f"/nonexistent:{tmp_path}")
    assert load_trust_store().digest == load_trust_store(str(good.path)).digest


def test_the_systems_authorities_count_where_no_file_is_named() -> None:
    """None of them is the tests' own."""
    asked = Requirement.REQUIRETLS
    evidence = domain(host())
    result = judge(
        evidence, asked=asked, carried=asked, profile=RFC8689, trust=load_trust_store(), now=NOW
    )
    assert forecast(evidence, RFC8689).status == "2.0.0"
    assert result.status == "5.7.10"
    assert "self-signed certificate in certificate chain" in result.text
