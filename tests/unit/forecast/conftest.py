from __future__ import annotations

import os

import pytest

from tests.support import build, chains, openssl


@pytest.fixture(scope="session")
def openssl_to_compare_with() -> None:
    """Skip the test if there is no OpenSSL library to compare with; in CI that is a failure."""
    try:
        openssl.dane((chains.issue(chains.Make("x", 1), None),), (), (chains.HOST,), build.NOW)
    except openssl.Unavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no OpenSSL to compare with: {reason}")
        pytest.skip(f"no OpenSSL to compare with: {reason}")
