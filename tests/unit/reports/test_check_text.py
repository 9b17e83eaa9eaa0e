"""What ``check`` prints for people."""

from __future__ import annotations

from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    HopKind,
    MtaStsEvidence,
    MtaStsMode,
    MxEvidence,
    NextHop,
)
from requiretls_milter.reports.check import next_hop_report
from requiretls_milter.reports.check_text import MAX_PATTERNS, to_text
from requiretls_milter.reports.observation import Observation, ObservedBy
from tests.support import build
from tests.support.asking import asks
from tests.support.build import clear, domain, host, probe, replace

DANE_RECORD = build.certificate().tlsa(3, 1, 1)


def lines(*evidence: DomainEvidence, by: ObservedBy = ObservedBy.COMMAND) -> list[str]:
    """The text with single blanks, without empty lines."""
    reports = [
        next_hop_report(
            str(one.nexthop),
            Observation(one, by),
            asking=asks(),
            profile=build.DANE,
            trust=build.trust(),
            now=build.NOW,
        )
        for one in evidence
    ]
    text = to_text(reports, now=build.NOW, width=120)
    return [" ".join(line.split()) for line in text.splitlines() if line]


def test_a_good_domain_is_shown_host_by_host_then_the_forecast() -> None:
    assert lines(domain(host(DANE_RECORD)))[:7] == [
        "example.org",
        "MX lookup signed, MTA-STS none",
        "10 mx1.example.org address signed",
        f"TLSA 3 1 1 {DANE_RECORD.data.hex()[:16]}...",
        "192.0.2.1 TLSv1.3 verified by DANE REQUIRETLS 2.0.0 ok",
        "Forecast 2.0.0 would be delivered: ok",
        "RFC 8689 2.0.0 ok",
    ]


def seen_at(moment: float) -> DomainEvidence:
    """A domain of which all was seen at one moment."""
    one = host(DANE_RECORD, seen=replace(probe(), probed_at=moment))
    addresses = replace(one.addresses, observed_at=moment)
    one = replace(one, addresses=addresses, tlsa=replace(one.tlsa, observed_at=moment))
    found = domain(one, sts=("mx1.example.org",))
    mta_sts = replace(found.mta_sts, fetched_at=moment)
    return replace(found, mx=replace(found.mx, observed_at=moment), mta_sts=mta_sts)


def test_each_piece_of_evidence_has_its_age() -> None:
    assert lines(seen_at(build.NOW - 200), by=ObservedBy.SERVICE)[:5] == [
        "example.org seen 3 min ago by the running service",
        "MX lookup signed (3 min ago), MTA-STS enforce: mx1.example.org (3 min ago)",
        "10 mx1.example.org address signed (3 min ago), in the MTA-STS policy",
        f"TLSA 3 1 1 {DANE_RECORD.data.hex()[:16]}... (3 min ago)",
        "192.0.2.1 TLSv1.3 verified by DANE REQUIRETLS 2.0.0 ok 3 min ago",
    ]


def test_what_was_seen_just_now_is_not_told_at_each_line() -> None:
    text = lines(seen_at(build.NOW - 2))
    assert text[0] == "example.org seen just now by this command"
    assert not any("ago" in line for line in text)


def test_a_policy_that_could_not_be_fetched_says_why() -> None:
    failed = MtaStsEvidence(error="policy of example.org: HTTP status 404 instead of 200")
    text = lines(replace(domain(host()), mta_sts=failed))
    assert f"MX lookup signed, MTA-STS failed: {failed.error}" in text
    kept = domain(host(), sts=("mx1.example.org",))
    text = lines(replace(kept, mta_sts=replace(kept.mta_sts, error="timed out")))
    assert "MX lookup signed, MTA-STS enforce: mx1.example.org, not renewed: timed out" in text


def test_an_mx_lookup_that_failed_is_not_called_unsigned() -> None:
    mx = MxEvidence(DnsOutcome.ERROR, error="timed out")
    text = lines(replace(domain(), mx=mx))
    assert "MX lookup failed, MTA-STS none" in text


def test_each_next_hop_has_its_part() -> None:
    text = lines(domain(host()), replace(domain(host()), nexthop=NextHop(HopKind.HOST, "b.test")))
    assert [line for line in text if line in ("example.org", "[b.test]")] == [
        "example.org",
        "[b.test]",
    ]


def test_what_is_wrong_is_said_in_words() -> None:
    text = lines(domain(host(seen=clear()), secure=False, sts=("mx2.example.org",)))
    assert "MX lookup not signed, MTA-STS enforce: mx2.example.org" in text
    assert "10 mx1.example.org address signed, not in the MTA-STS policy" in text
    assert any("STARTTLS not offered" in line for line in text)
    assert any("would fail permanently: " in line for line in text)


def test_a_certificate_that_does_not_verify_says_why() -> None:
    text = lines(domain(host(build.BAD)))
    assert any("not verified" in line for line in text)
    assert any(line.startswith("192.0.2.1: certificate: ") for line in text)


def test_a_delivery_against_rfc_8689_is_marked() -> None:
    text = lines(domain(host(DANE_RECORD), secure=False))
    assert any(line.endswith("(not a delivery as RFC 8689 requires it)") for line in text)


def test_a_host_without_an_address_or_a_tlsa_lookup_says_so() -> None:
    failed = host(tlsa_outcome=DnsOutcome.ERROR)
    nowhere = replace(failed, addresses=AddressLookup(DnsOutcome.NODATA, True, ()), probes=())
    assert "TLSA lookup failed" in lines(domain(failed))
    assert any(line.startswith("no address: ") for line in lines(domain(nowhere)))


def test_of_a_long_policy_the_first_patterns_are_shown() -> None:
    patterns = tuple(f"mx{number}.example.org" for number in range(MAX_PATTERNS + 1))
    text = lines(domain(host(), sts=patterns, mode=MtaStsMode.TESTING))
    shown = " ".join(patterns[:MAX_PATTERNS])
    assert f"MX lookup signed, MTA-STS testing: {shown} ..." in text


def test_r62_brackets_and_colons_are_no_markup() -> None:
    seen = replace(probe(), tls_version="[red]TLS[/] :smile:")
    assert any("[red]TLS[/] :smile:" in line for line in lines(domain(host(seen=seen))))


def test_the_reason_is_a_sentence_whose_host_names_stay() -> None:
    why = [line for line in lines(domain(host(DANE_RECORD))) if line.startswith("Why ")]
    assert why[0].startswith("Why mx1.example.org[192.0.2.1] would take ")
    assert lines(domain(host(seen=clear())))[-1].endswith(".")


def test_it_is_said_what_the_mta_acts_on_and_who_says_so() -> None:
    text = lines(domain(host(DANE_RECORD)))
    assert "Asked requiretls; Postfix 3.11.7 acts on it, as the running service knows" in text
    assert "Rule mode monitor: accepted by the milter" in text
