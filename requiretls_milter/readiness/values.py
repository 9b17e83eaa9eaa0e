"""What a report on readiness rests on: plain values, whoever found them out."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from requiretls_milter.forecast.inbound import InboundReport
from requiretls_milter.model import Feature, Reason
from requiretls_milter.readiness.days import Day, MailSource


class HopState(enum.StrEnum):
    """What would become of REQUIRETLS mail to a next hop."""

    READY = "ready"  # delivered as RFC 8689 requires
    NONCOMPLIANT = "noncompliant"  # delivered, but not as RFC 8689 requires
    BOUNCE = "bounce"
    DEFER = "defer"
    UNKNOWN = "unknown"


class Policy(enum.StrEnum):
    """By what a domain lets others verify its servers."""

    DANE = "dane"
    MTA_STS = "mta-sts"
    BOTH = "dane+mta-sts"
    NEITHER = "neither"
    UNKNOWN = "unknown"


class Step(enum.StrEnum):
    """What a next hop needs for REQUIRETLS mail (RFC 8689 section 4.2.1), and we for ours."""

    MX_NAME = "mx_name"
    STARTTLS = "starttls"
    CERTIFICATE = "certificate"
    STRONG_TLS = "strong_tls"
    REQUIRETLS = "requiretls"
    OWN_SETTINGS = "own_settings"  # the next hop has all it needs: our MTA is what hinders


@dataclass(frozen=True, slots=True)
class HopReadiness:
    """A next hop that mail goes to, and what would become of REQUIRETLS mail to it.

    Attributes:
        nexthop: as the MTA has it.
        mail: recipients to which mail went there; 0 if that is not known.
        state: what would become of it.
        status, reason, text, mx: of the forecast.
        level: the TLS level at which the MTA would deliver, of Postfix; "" if it has none.
        tls_version: of the session with the server that decides; "" if there was none.
        policy: by what its servers can be verified.
        missing: the steps that the server that has most of them lacks; None if that is not known.
        downgraded_at: since when it offers less than before, seconds since the epoch; 0 if it
            does not.
    """

    nexthop: str
    mail: int
    state: HopState
    status: str
    reason: Reason
    text: str = ""
    mx: str = ""
    level: str = ""
    tls_version: str = ""
    policy: Policy = Policy.UNKNOWN
    missing: tuple[Step, ...] | None = None
    downgraded_at: float = 0.0

    @property
    def is_just_below(self) -> bool:
        """Whether one step alone is missing."""
        return self.missing is not None and len(self.missing) == 1


@dataclass(frozen=True, slots=True)
class Downgrade:
    """A host or domain that ceased to offer something, as the log tells it.

    Attributes:
        subject: the host or domain.
        feature: what it offered.
        at: when that was missed, seconds since the epoch; None if the log does not say.
        restored_at: when it was there again; None if that is not in the log.
    """

    subject: str
    feature: Feature
    at: float | None
    restored_at: float | None = None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How forecasts compare with the deliveries after them; as ``audit`` counts them."""

    equal: int
    later: int
    unknown: int
    different: int
    waiting: int

    @property
    def compared(self) -> int:
        """The forecasts of which it is known whether they came true."""
        return self.equal + self.different


@dataclass(frozen=True, slots=True)
class Readiness:
    """All that a report shows.

    Attributes:
        made_at: seconds since the epoch.
        source: where the next hops are from.
        mta: what the MTA is and carries, in words.
        destinations: the next hops that were assessed.
        left_out: next hops that were not assessed, since there are too many.
        left_out_mail: recipients of these, and of next hops whose names are not known.
        since, until: the first and the last mail that counts, seconds since the epoch; None if
            that is not known.
        resolver_validates: whether anything can count as signed.
        days: the history, the oldest first.
        is_kept: whether a running service keeps the history.
        downgrades: as the log tells them.
        own: our own domains, as others see them; None if ``[watch]`` names none.
        accuracy: None without a log that holds forecasts.
    """

    made_at: float
    source: MailSource
    mta: str
    destinations: tuple[HopReadiness, ...]
    left_out: int = 0
    left_out_mail: int = 0
    since: float | None = None
    until: float | None = None
    resolver_validates: bool = True
    days: tuple[Day, ...] = ()
    is_kept: bool = False
    downgrades: tuple[Downgrade, ...] = ()
    own: tuple[InboundReport, ...] | None = None
    accuracy: Accuracy | None = None
