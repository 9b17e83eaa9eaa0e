"""``check``: mistakes that end it before anything is probed.

What it does with servers: tests/service/test_check.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.evidence.authorities import TrustStoreError
from requiretls_milter.forecast.pkix import TrustStore
from requiretls_milter.reports import assess
from tests.support.commandline import call


def test_each_malformed_next_hop_is_told(
    defaults: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "check", "good.test", "[a", "b..c", "--config", defaults)
    assert (done.status, done.out) == (2, "")
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["error", "error"]


def test_authorities_that_cannot_be_used_are_told(
    defaults: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if their file had changed since the configuration was read, which checks it too."""

    def refuse(path: str) -> TrustStore:
        raise TrustStoreError("no certificate in it")

    monkeypatch.setattr(assess, "load_trust_store", refuse)
    done = call(capsys, "check", "good.test", "--config", defaults)
    assert (done.status, done.out, done.err) == (2, "", "error: no certificate in it\n")
