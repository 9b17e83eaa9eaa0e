"""``check``: mistakes that end it before anything is probed.

What it does with servers: tests/service/test_check.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import call


def test_each_malformed_next_hop_is_told(
    defaults: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(capsys, "check", "good.test", "[a", "b..c", "--config", defaults)
    assert (done.status, done.out) == (2, "")
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["error", "error"]


def test_authorities_that_cannot_be_used_are_told(
    defaults: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authorities = defaults.with_name("authorities.pem")
    # DER, but no certificate: OpenSSL finds that out, not the check of the configuration.
    authorities.write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    defaults.write_text(f"probe.ca_file = '{authorities}'\n")
    done = call(capsys, "check", "good.test", "--config", defaults)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"error: {authorities}: not a PEM file of certificates\n"
