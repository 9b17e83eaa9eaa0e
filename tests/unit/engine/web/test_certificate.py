"""The certificate of the metrics server: a file that cannot be used is told, by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.config import Metrics
from requiretls_milter.engine.web.certificate import CertificateError, tls_context
from tests.support.authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_certificate_that_cannot_be_used_is_told_by_key_and_file(
    authority: Authority, tmp_path: Path
) -> None:
    one, other = authority.issue("a.example"), authority.issue("b.example")
    missing = str(tmp_path / "missing.pem")
    empty = tmp_path / "empty.pem"
    empty.touch()
    wrong = {
        r"metrics\.tls_certificate: .*missing\.pem cannot be read: No such file": Metrics(
            tls_certificate=missing, tls_key=str(one.path)
        ),
        r"metrics\.tls_key: .*missing\.pem cannot be read: No such file": Metrics(
            tls_certificate=str(one.path), tls_key=missing
        ),
        "are no certificate with its key: key values mismatch": Metrics(
            tls_certificate=str(one.path), tls_key=str(other.path)
        ),
        "are no certificate with its key: ": Metrics(
            tls_certificate=str(empty), tls_key=str(one.path)
        ),
        r"metrics\.tls_client_ca: .*empty\.pem holds no certificates": Metrics(
            tls_certificate=str(one.path), tls_key=str(one.path), tls_client_ca=str(empty)
        ),
    }
    for said, metrics in wrong.items():
        with pytest.raises(CertificateError, match=said):
            tls_context(metrics)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls_context(Metrics()) is None
