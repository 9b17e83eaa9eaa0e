from __future__ import annotations

import pytest

from requiretls_milter.model import HopKind, Mode, NextHop, TlsLevel, TlsPolicy


@pytest.mark.parametrize(
    ("hop", "text"),
    [
        (NextHop(HopKind.MX, "example.org"), "example.org"),
        (NextHop(HopKind.MX, "example.org", 587), "example.org:587"),
        (NextHop(HopKind.HOST, "mx.example.org"), "[mx.example.org]"),
        (NextHop(HopKind.ADDRESS, "2001:db8::1", 2525), "[2001:db8::1]:2525"),
        (NextHop(HopKind.LOCAL, ""), "local"),
    ],
)
def test_a_next_hop_is_written_as_postfix_writes_it(hop: NextHop, text: str) -> None:
    assert str(hop) == text


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (TlsPolicy(TlsLevel.DANE_ONLY), "dane-only"),
        (
            TlsPolicy(TlsLevel.SECURE, ("a.example", ".b.example")),
            "secure match=a.example:.b.example",
        ),
    ],
)
def test_a_tls_policy_is_written_as_postfix_writes_it(policy: TlsPolicy, text: str) -> None:
    assert str(policy) == text


def test_only_defer_and_reject_act() -> None:
    assert [mode for mode in Mode if mode.acts] == [Mode.DEFER, Mode.REJECT]
