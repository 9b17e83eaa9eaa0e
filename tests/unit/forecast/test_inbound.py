"""Our own domain as others see it: each problem, what it means, and what breaks first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from requiretls_milter.forecast.inbound import InboundReport, ServerReadiness, judge_inbound
from requiretls_milter.forecast.inboundserver import Urgency
from requiretls_milter.model import (
    AddressLookup,
    DnsOutcome,
    DomainEvidence,
    MtaStsEvidence,
    MtaStsMode,
    MtaStsPolicy,
    MxEvidence,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    PublishedEvidence,
    Reply,
)
from tests.support.build import (
    BAD,
    NOW,
    Presented,
    certificate,
    clear,
    domain,
    host,
    probe,
    trust,
)

MX1 = "mx1.example.org"
DAY = 86_400.0
BROKEN, ENDS, ADVICE = Urgency.BROKEN, Urgency.ENDS, Urgency.ADVICE
GOOD_POLICY = MtaStsPolicy(MtaStsMode.ENFORCE, (MX1,), 30 * 86_400, "1")
SPARE = replace(BAD, data=bytes(31) + b"\1")
"""A record for the next key."""
OURS = certificate()
END = NOW + 30 * DAY
"""When the certificates of these tests end."""


def published(policy: MtaStsPolicy | None = GOOD_POLICY, **others: object) -> PublishedEvidence:
    found = PublishedEvidence(MtaStsEvidence(policy, fetched_at=NOW), tlsrpt=True)
    return replace(found, **others)  # type: ignore[arg-type]


def good() -> DomainEvidence:
    return domain(host(OURS.tlsa(), SPARE))


def seen(
    evidence: DomainEvidence,
    others: PublishedEvidence | None = None,
    *,
    now: float = NOW,
    validates: bool = True,
) -> InboundReport:
    others = published() if others is None else others
    return judge_inbound(evidence, others, trust(), now, validates=validates)


def problems(report: InboundReport) -> dict[str, Urgency]:
    """Each problem with what it means; it is one of the domain, or of a server of it."""
    assert {one.host for one in report.problems} <= {"", *(one.host for one in report.servers)}
    assert all(one.text and one.text.isprintable() for one in report.problems)
    return {one.problem.value: one.severity for one in report.problems}


def test_a_domain_that_does_everything_has_no_problem() -> None:
    report = seen(good())
    assert problems(report) == {}
    assert report.breaks_first is None
    assert report.unseen == frozenset()
    (server,) = report.servers
    assert (server.host, server.readiness) == (MX1, ServerReadiness.READY)
    assert server.certificate_expires == END
    assert report.policy_expires == NOW + 30 * DAY
    assert report.verdict == (
        "Nothing that was seen breaks soon. Ends first: the certificate of mx1.example.org, on "
        "2027-02-14."
    )


def test_what_ends_first_is_told_even_if_it_is_far_away() -> None:
    report = seen(good(), published(policy_certificate=OURS.chain[0]))
    assert report.policy_certificate_expires == END
    early = replace(report, policy_certificate_expires=END - DAY)
    first = early.ends_first
    assert first is not None
    assert (first.what, first.host, first.at) == ("policy_certificate", "", END - DAY)
    assert "Ends first: the certificate of the MTA-STS policy host, on 2027-02-13." in early.verdict
    nothing = seen(domain(host(OURS.tlsa(), SPARE, seen=clear())))
    assert nothing.ends_first is None


# ---------------------------------------------------------------- the server


def test_a_server_that_lost_starttls_is_broken() -> None:
    report = seen(domain(host(OURS.tlsa(), SPARE, seen=clear())))
    assert problems(report) == {"starttls_not_offered": BROKEN}
    assert report.servers[0].readiness is ServerReadiness.NOT_READY
    assert report.breaks_first is not None
    assert report.breaks_first.host == MX1


@pytest.mark.parametrize(
    ("session", "problem", "said"),
    [
        (clear(), "starttls_not_offered", "STARTTLS is not offered"),
        (
            replace(clear(), starttls_offered=True, starttls_reply=Reply(454, "4.7.0", "later")),
            "starttls_refused",
            "STARTTLS is refused: 454 later",
        ),
        (
            probe(requiretls=False),
            "requiretls_not_offered",
            "REQUIRETLS is not offered inside TLS",
        ),
        (
            ProbeEvidence("192.0.2.1", ProbeStage.HANDSHAKE, ProbeFailure.CLOSED),
            "tls_handshake_failed",
            "TLS does not come about: closed",
        ),
        (
            ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, ProbeFailure.REFUSED),
            "server_unreachable",
            "no session: refused",
        ),
        (
            ProbeEvidence(
                "192.0.2.1", ProbeStage.BANNER, ProbeFailure.REPLY, Reply(554, "", "no service")
            ),
            "server_rejects",
            "the server refuses the session: 554 no service",
        ),
    ],
)
def test_what_a_session_lacks_is_told(session: ProbeEvidence, problem: str, said: str) -> None:
    report = seen(domain(host(OURS.tlsa(), SPARE, seen=session)))
    assert problems(report) == {problem: BROKEN}
    assert report.problems[0].text == f"192.0.2.1: {said}"


@pytest.mark.parametrize("stage", [ProbeStage.CONNECT, ProbeStage.HANDSHAKE])
@pytest.mark.parametrize(
    ("error", "failure", "said"),
    [
        ("no route to host", ProbeFailure.REFUSED, "no route to host"),
        ("", ProbeFailure.REFUSED, "refused"),
        ("", None, "no answer"),
    ],
)
def test_a_session_that_does_not_come_about_is_told_with_what_is_known_of_it(
    stage: ProbeStage, error: str, failure: ProbeFailure | None, said: str
) -> None:
    session = ProbeEvidence("192.0.2.1", stage, failure, error=error)
    (problem,) = seen(domain(host(OURS.tlsa(), SPARE, seen=session))).problems
    assert problem.text.startswith("192.0.2.1: ")
    assert problem.text.endswith(f": {said}")


@pytest.mark.parametrize(
    "failure", [ProbeFailure.FORBIDDEN, ProbeFailure.LIMIT, ProbeFailure.UNREACHABLE]
)
def test_what_our_own_side_hinders_is_not_seen_and_no_problem(failure: ProbeFailure) -> None:
    session = ProbeEvidence("192.0.2.1", ProbeStage.CONNECT, failure)
    report = seen(domain(host(OURS.tlsa(), SPARE, seen=session)))
    assert problems(report) == {}
    assert report.unseen == {MX1}
    assert report.servers[0].readiness is ServerReadiness.UNKNOWN


def test_one_address_of_several_is_enough_to_break() -> None:
    one = host(OURS.tlsa(), SPARE)
    both = replace(one, probes=(probe(), clear("192.0.2.2")))
    report = seen(domain(both))
    assert problems(report) == {"starttls_not_offered": BROKEN}
    assert "192.0.2.2" in report.problems[0].text


def test_what_servers_say_is_printable() -> None:
    session = replace(clear(), starttls_offered=True, starttls_reply=Reply(454, "", "\x1b[2J\n"))
    report = seen(domain(host(OURS.tlsa(), SPARE, seen=session)))
    assert report.problems[0].text.isprintable()


# ---------------------------------------------------------------- TLSA


def test_a_record_that_no_longer_matches_is_broken() -> None:
    report = seen(domain(host(BAD)))
    assert problems(report) == {"tlsa_does_not_match": BROKEN}
    assert report.servers[0].readiness is ServerReadiness.NOT_READY


def test_unsigned_records_protect_nobody() -> None:
    evidence = domain(host(secure=False))
    report = seen(evidence, published(unsigned_tlsa=(MX1,)))
    assert problems(report) == {"tlsa_unsigned": ADVICE}
    report = seen(evidence, published(None, unsigned_tlsa=(MX1,)))
    assert problems(report) == {"tlsa_unsigned": BROKEN, "policy_missing": ADVICE}


def test_a_server_without_records_is_advised_to_have_some() -> None:
    assert problems(seen(domain(host()))) == {"tlsa_missing": ADVICE}


def test_records_of_which_none_is_usable_are_broken() -> None:
    report = seen(domain(host(replace(BAD, usage=1))))
    assert problems(report) == {"tlsa_unusable": BROKEN}


def test_a_failed_lookup_of_records_is_broken_and_not_seen() -> None:
    report = seen(domain(host(tlsa_outcome=DnsOutcome.ERROR)))
    assert problems(report) == {"lookup_failed": BROKEN}
    assert report.unseen == {MX1}


# ---------------------------------------------------------------- rollover


def test_a_record_of_the_key_alone_needs_the_same_key_again() -> None:
    assert problems(seen(domain(host(OURS.tlsa())))) == {"rollover_unprepared": ADVICE}


def test_a_record_of_the_certificate_alone_breaks_with_its_successor() -> None:
    evidence = domain(host(OURS.tlsa(selector=0)))
    late = seen(evidence, now=END - 29 * DAY)
    assert problems(late) == {"rollover_unprepared": ENDS}
    assert late.breaks_first is not None
    assert late.breaks_first.at == END
    assert problems(seen(evidence, now=END - 30 * DAY)) == {"rollover_unprepared": ADVICE}


def test_a_record_of_the_authority_survives_a_renewal() -> None:
    assert problems(seen(domain(host(OURS.tlsa(usage=2, selector=0))))) == {}
    assert problems(seen(domain(host(OURS.tlsa(), OURS.tlsa(usage=2, selector=0))))) == {}


# ---------------------------------------------------------------- certificates


def test_a_certificate_that_ends_soon_is_told_with_its_day() -> None:
    report = seen(good(), now=END - 13 * DAY)
    assert problems(report) == {"certificate_expires": ENDS}
    assert report.breaks_first is not None
    assert report.breaks_first.at == END
    assert "ends on 2027-02-14" in report.breaks_first.text
    assert report.verdict == f"Breaks first: certificate_expires of {MX1}, on 2027-02-14."
    assert report.servers[0].readiness is ServerReadiness.READY


def test_a_certificate_of_a_short_life_is_told_after_two_thirds_of_it() -> None:
    # It is valid for 40 days: a third of that is less than 21 days.
    assert problems(seen(good(), now=END - 40 * DAY / 3 - 1)) == {}
    assert problems(seen(good(), now=END - 40 * DAY / 3 + 1)) == {"certificate_expires": ENDS}


def test_an_expired_certificate_breaks_senders_that_go_by_mta_sts() -> None:
    report = seen(good(), now=END + 1)
    assert problems(report) == {"certificate_expired": BROKEN}


def test_an_expired_certificate_does_not_matter_to_dane_ee() -> None:
    report = seen(good(), published(None), now=END + 1)
    assert problems(report) == {"certificate_expired": ADVICE, "policy_missing": ADVICE}
    assert report.servers[0].readiness is ServerReadiness.READY


@pytest.mark.parametrize("kind", ["wrongname", "untrusted", "selfsigned"])
def test_a_certificate_that_no_authority_vouches_for_breaks_mta_sts(kind: str) -> None:
    wrong = certificate(kind=kind)
    report = seen(domain(host(wrong.tlsa(), SPARE, seen=probe(presented=wrong))))
    assert problems(report) == {"certificate_not_verified": BROKEN}
    report = seen(domain(host(wrong.tlsa(), SPARE, seen=probe(presented=wrong))), published(None))
    assert problems(report) == {"policy_missing": ADVICE}


def test_the_name_counts_with_a_record_of_the_authority() -> None:
    wrong = certificate(kind="wrongname")
    record = wrong.tlsa(usage=2, selector=0)
    evidence = domain(host(record, seen=probe(presented=wrong)))
    report = seen(evidence, published(None))
    assert problems(report) == {"certificate_not_verified": BROKEN, "policy_missing": ADVICE}


def test_a_certificate_that_cannot_be_read_is_broken() -> None:
    garbage = Presented((b"\x30\x00",), b"", b"", b"")
    report = seen(domain(host(seen=probe(presented=garbage))))
    assert problems(report) == {"certificate_not_verified": BROKEN, "tlsa_missing": ADVICE}
    assert report.problems[0].text == "192.0.2.1: the certificate cannot be read"


# ---------------------------------------------------------------- the domain


def test_unsigned_mx_records_break_all_servers_unless_a_policy_vouches() -> None:
    report = seen(domain(host(), secure=False), published(None))
    assert problems(report)["mx_unsigned"] is BROKEN
    assert report.servers[0].readiness is ServerReadiness.NOT_READY
    report = seen(domain(host(OURS.tlsa(), SPARE), secure=False))
    assert problems(report) == {"mx_unsigned": ADVICE}
    assert report.servers[0].readiness is ServerReadiness.READY


def test_nothing_is_said_of_signatures_if_the_resolver_does_not_validate() -> None:
    report = seen(domain(host(secure=False), secure=False), validates=False)
    assert problems(report) == {}
    assert "" in report.unseen


@pytest.mark.parametrize(
    ("mx", "problem"),
    [
        (MxEvidence(DnsOutcome.ERROR, error="MX example.org: SERVFAIL"), "lookup_failed"),
        (MxEvidence(DnsOutcome.NXDOMAIN, secure=True), "no_server"),
        (MxEvidence(DnsOutcome.FOUND, secure=True, null_mx=True), "no_server"),
    ],
)
def test_a_domain_without_servers_is_broken(mx: MxEvidence, problem: str) -> None:
    report = seen(replace(domain(), mx=mx))
    assert problems(report) == {problem: BROKEN}
    assert report.problems[0].host == ""


def test_a_lookup_that_was_not_made_is_no_problem() -> None:
    mx = MxEvidence(DnsOutcome.ERROR, error="budget", unasked=True)
    report = seen(replace(domain(), mx=mx))
    assert problems(report) == {}
    assert report.unseen == {""}


def test_a_host_without_an_address_is_broken() -> None:
    one = replace(host(), addresses=AddressLookup(DnsOutcome.NXDOMAIN), probes=())
    report = seen(domain(one))
    assert problems(report) == {"lookup_failed": BROKEN}


# ---------------------------------------------------------------- MTA-STS and TLSRPT


def test_a_policy_host_that_fails_is_broken_though_a_policy_is_kept() -> None:
    evidence = replace(good(), mta_sts=MtaStsEvidence(GOOD_POLICY, fetched_at=NOW - DAY))
    failed = MtaStsEvidence(error="policy of example.org: HTTP status 404")
    report = seen(evidence, published(mta_sts=failed))
    assert problems(report) == {"policy_host_fails": BROKEN}
    assert report.policy_expires == NOW + 29 * DAY
    # Senders that use DANE get through.
    assert report.servers[0].readiness is ServerReadiness.READY


def test_an_expired_policy_host_is_told_by_its_certificate() -> None:
    old = certificate("mta-sts.example.org", "expired").chain[0]
    failed = MtaStsEvidence(error="policy of example.org: certificate has expired")
    report = seen(good(), published(mta_sts=failed, policy_certificate=old))
    assert problems(report) == {
        "policy_host_fails": BROKEN,
        "policy_certificate_expired": BROKEN,
    }


def test_a_policy_host_whose_certificate_ends_soon_is_told() -> None:
    own = certificate("mta-sts.example.org").chain[0]
    evidence = domain(host(OURS.tlsa(usage=2, selector=0)))
    report = seen(evidence, published(policy_certificate=own), now=END - 10 * DAY)
    assert problems(report)["policy_certificate_expires"] is ENDS


def test_octets_that_are_no_certificate_of_a_policy_host_are_passed_over() -> None:
    assert problems(seen(good(), published(policy_certificate=b"\x30\x00"))) == {}


def test_a_record_that_is_gone_is_broken_while_senders_keep_the_policy() -> None:
    evidence = replace(good(), mta_sts=MtaStsEvidence(GOOD_POLICY, fetched_at=NOW - DAY))
    report = seen(evidence, published(None))
    assert problems(report) == {"policy_missing": BROKEN}
    assert report.problems[0].text == "the MTA-STS record is gone"
    withdrawn = replace(GOOD_POLICY, mode=MtaStsMode.NONE)
    evidence = replace(good(), mta_sts=MtaStsEvidence(withdrawn, fetched_at=NOW - DAY))
    report = seen(evidence, published(None))
    assert problems(report) == {"policy_missing": ADVICE}
    assert report.problems[0].text == "no MTA-STS record"


def test_a_server_that_the_policy_does_not_name_is_refused_by_its_senders() -> None:
    other = replace(GOOD_POLICY, mx=("*.other.example",))
    report = seen(good(), published(other))
    assert problems(report) == {"mx_not_in_policy": BROKEN}
    testing = replace(other, mode=MtaStsMode.TESTING)
    assert problems(seen(good(), published(testing))) == {
        "mx_not_in_policy": ADVICE,
        "policy_not_enforced": ADVICE,
    }


def test_a_policy_that_is_kept_for_less_than_a_day_is_told() -> None:
    short = replace(GOOD_POLICY, max_age=86_399)
    assert problems(seen(good(), published(short))) == {"policy_max_age_short": ADVICE}


def test_a_domain_without_tlsrpt_is_advised_to_have_it() -> None:
    assert problems(seen(good(), published(tlsrpt=False))) == {"tlsrpt_missing": ADVICE}
    assert problems(seen(good(), published(tlsrpt=None))) == {}


def test_a_policy_that_was_not_asked_for_is_not_seen() -> None:
    report = seen(good(), published(mta_sts=MtaStsEvidence(error="budget", unasked=True)))
    assert problems(report) == {}
    assert report.unseen == {""}


# ---------------------------------------------------------------- order


def test_of_what_means_the_same_that_without_a_time_comes_first() -> None:
    nothing = PublishedEvidence(MtaStsEvidence(), tlsrpt=False)
    report = seen(good(), nothing, now=END - 10 * DAY)
    assert [(one.problem.value, one.severity, one.at) for one in report.problems] == [
        ("policy_missing", ADVICE, None),
        ("tlsrpt_missing", ADVICE, None),
        ("certificate_expires", ADVICE, END),
    ]


def test_what_is_broken_comes_before_what_ends_and_that_before_advice() -> None:
    session = probe(presented=certificate("mx2.example.org"))
    second = host(BAD, name="mx2.example.org", preference=20, seen=session)
    evidence = domain(host(OURS.tlsa()), second)
    both = replace(GOOD_POLICY, mx=(MX1, "mx2.example.org"))
    report = seen(evidence, published(both, tlsrpt=False), now=END - 10 * DAY)
    severities = [one.severity for one in report.problems]
    assert severities == sorted(severities, key=tuple(Urgency).index)
    assert report.problems[0].problem == "tlsa_does_not_match"
    assert [one.readiness for one in report.servers] == [
        ServerReadiness.READY,
        ServerReadiness.NOT_READY,
    ]
