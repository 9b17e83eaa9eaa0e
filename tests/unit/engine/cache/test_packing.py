"""Evidence becomes octets and comes back as it was; equal certificates are kept once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.engine.cache import packing
from requiretls_milter.engine.cache.packing import Certificates, Evidence, pack, unpack
from requiretls_milter.model import (
    AddressLookup,
    DomainEvidence,
    MtaStsEvidence,
    MxEvidence,
    ProbeEvidence,
    ProbeFailure,
    Reply,
    TlsaEvidence,
)
from tests.support import strategies

KINDS = (MxEvidence, MtaStsEvidence, AddressLookup, TlsaEvidence, ProbeEvidence)


def pieces(evidence: DomainEvidence) -> list[Evidence]:
    found: list[Evidence] = [evidence.mx, evidence.mta_sts]
    for host in evidence.hosts:
        found += host.addresses, host.tlsa, *host.probes
    return found


@given(strategies.domains(chaotic=True))
def test_evidence_comes_back_as_it_was(evidence: DomainEvidence) -> None:
    for one in pieces(evidence):
        packed = pack(one)
        assert unpack(packed, one.expires) == one
        assert unpack(packed, 7.0) == replace(one, expires=7.0)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_whatever_each_field_holds(kind: type[Evidence], data: st.DataObject) -> None:
    """Of each kind and each field that the model knows, also of those that come later."""
    one = data.draw(st.from_type(kind))
    if one.expires == one.expires:  # NaN is not equal to itself
        again = unpack(pack(one), one.expires)
        assert repr(again) == repr(one)


def test_a_session_that_failed_keeps_its_words() -> None:
    one = ProbeEvidence(
        "192.0.2.1",
        failure=ProbeFailure.REPLY,
        reply=Reply(554, "5.7.1", "no"),
        chain=(b"leaf", b"issuer"),
    )
    assert unpack(pack(one), 0.0) == one


def test_equal_certificates_are_kept_once() -> None:
    certificates = Certificates()
    first = certificates.shared((bytes([1] * 50), bytes([2] * 50)))
    second = certificates.shared((bytes([3] * 50), bytes(bytearray([2] * 50))))
    assert second == (bytes([3] * 50), bytes([2] * 50))
    assert second[1] is first[1]
    assert unpack(pack(ProbeEvidence("192.0.2.1", chain=second)), 0.0).chain[1] is first[1]  # type: ignore[union-attr]


def test_certificates_that_are_seen_often_stay_while_others_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "CERTIFICATES_OCTETS", 10_000)
    certificates = Certificates()
    (issuer,) = certificates.shared((bytes(1_000),))
    for number in range(100):
        _, again = certificates.shared((number.to_bytes(1_000), bytes(bytearray(1_000))))
        assert again is issuer
