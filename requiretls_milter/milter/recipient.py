"""One recipient of a message: where it goes, what is asked of that, and what is decided. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from requiretls_milter import rules
from requiretls_milter.milter import tag as tags
from requiretls_milter.milter.requirement import NOTHING_ASKED, Asked
from requiretls_milter.model import (
    LOCAL_FORECAST,
    Decision,
    Forecast,
    HopKind,
    Mode,
    NextHop,
    Question,
    Requirement,
    unknown_forecast,
    unusable_forecast,
)
from requiretls_milter.syntax.expansion import Expansion
from requiretls_milter.telemetry.labels import Expanded

MAX_ADDRESS = 1000
"""Characters of an envelope address that are kept; RFC 5321 section 4.5.3.1 allows 320."""


@dataclass(slots=True, eq=False)
class Recipient:
    """One recipient that the MTA accepted, and what became of it.

    Attributes:
        address: as the client wrote it.
        mailer: macro ``{rcpt_mailer}``.
        host: macro ``{rcpt_host}``.
        resolved: the address as the MTA understands it; "" if the MTA does not tell. To
            Postfix ``example.org!bob`` is ``bob@example.org``, and rules are by domain.
        rule: the rule in force. Until it is looked up (see :attr:`Settings.simple`) it is
            None, and the attributes below have their defaults.
        domain: of the address, as an A-label if it is a domain name.
        transport: by which the MTA will deliver: that of {rcpt_mailer}, unless it hands the mail
            over or tells none.
        nexthop: None also if the MTA named a next hop that cannot be parsed.
        nexthop_text: in canonical form, or as the MTA named it if it cannot be parsed.
        nexthop_error: why it cannot be parsed.
        unusable: smtp(8) of Postfix cannot use it.
        asked: what is asked, as far as it is known.
        question: for the engine; None if no forecast is needed.
        pending: the answer, or the future that yields it.
        forecast: the answer.
        decision: what is done with this recipient, as far as it is decided.
        gone: refused or deferred at RCPT, so that the message no longer has this recipient.
        waited: seconds that SMTP waited for the forecast.
        downgraded: seconds since the next hop stopped offering something; 0.0 if it did not.
        expanded: what its lookup in the tables of aliases gave; None if there was none.
        not_expanded: why it is not known what the MTA makes of it.
        expanding: yields what the MTA makes of it; None if that is known, or not asked for.
        expansions: the recipients in its place; empty if it stays as it is. Its own rule, next hop
            and forecast are then those of the worst of them, and its decision is the hardest.
        alias: of such a recipient the domain, or address, that the client gave.
    """

    address: str
    mailer: str
    host: str
    resolved: str = ""
    rule: rules.Rule | None = None
    domain: str = ""
    transport: str = ""
    nexthop: NextHop | None = None
    nexthop_text: str = ""
    nexthop_error: str = ""
    unusable: bool = False
    asked: Asked = NOTHING_ASKED
    question: Question | None = None
    pending: Forecast | Future[Forecast] | None = None
    forecast: Forecast | None = None
    decision: Decision | None = None
    gone: bool = False
    waited: float = 0.0
    downgraded: float = 0.0
    expanded: Expanded | None = None
    not_expanded: str = ""
    expanding: Future[Expansion] | None = None
    expansions: Sequence[Recipient] = ()
    alias: str = ""

    @property
    def targets(self) -> Sequence[Recipient]:
        """Where the message goes: the recipient itself, or what the MTA makes of it."""
        return self.expansions or (self,)

    @property
    def local(self) -> bool:
        """Whether the MTA delivers to this recipient without SMTP."""
        if self.expansions:
            return all(one.local for one in self.expansions)
        return self.nexthop is not None and self.nexthop.kind is HopKind.LOCAL

    @property
    def counts(self) -> bool:
        """Whether it is tagged and counted: its rule was looked up and its mode is not ``off``."""
        if self.expansions:
            return any(one.counts for one in self.expansions)
        return self.rule is not None and self.rule.mode is not Mode.OFF

    @property
    def assessed(self) -> bool:
        """Whether it gets a forecast: something is asked, or a survey is configured."""
        if self.expansions:
            return any(one.assessed for one in self.expansions)
        if self.asked.requirement is Requirement.NONE and self.question is None:
            return False
        return self.rule is not None and self.rule.mode is not Mode.OFF

    @property
    def way(self) -> tuple[Requirement, bool]:
        """What the route of a message follows from, as far as this recipient is concerned."""
        asked = self.asked.requirement
        return asked, asked is not Requirement.NONE and any(one.local for one in self.targets)

    def leave_unexpanded(self, why: str) -> None:
        """Note that it is not known what the MTA makes of it: it stays as it was given."""
        self.expanded = Expanded.UNKNOWN
        self.not_expanded = why

    def forecast_without_question(self) -> Forecast:
        """The forecast of a recipient about which the engine is not asked."""
        if self.local:
            return LOCAL_FORECAST
        if self.unusable:
            return unusable_forecast(self.nexthop_error)
        return unknown_forecast(self.nexthop_error)

    def badness(self) -> tuple[int, bool]:
        """How bad its forecast is, for comparisons; one without a forecast is the best."""
        return (-1, False) if self.forecast is None else tags.badness(self.forecast)


def kept_address(address: str) -> str:
    """An address, or the beginning and the end of an absurdly long one.

    The end has the domain, and rules are by domain.
    """
    if len(address) <= MAX_ADDRESS:
        return address
    local, at, domain = address.rpartition("@")
    return local[: MAX_ADDRESS // 2] + at + domain[: MAX_ADDRESS // 2 - 1]
