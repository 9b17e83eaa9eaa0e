"""The rules of the operator, and the decisions that follow from a forecast. Pure.

:class:`RuleSet` finds the rule for a sender's domain, a recipient's domain and a next hop. The
order of precedence is ``rules.recipient``, ``rules.nexthop``, ``rules.sender``, and last
``[rules]``. Among tables of one kind the exact name comes first, then the longest ``.parent``, as
in the tables of Postfix. A domain of a list (``rules.list``) is as one with the table of that list;
if it has a table of its own too, that one comes first. A key that a table leaves out is inherited
from the next table that matches. But ``require`` is true if any of the tables that match says so.

:func:`decide` decides on one recipient, :func:`decide_message` on the message at its end. Nothing
here knows a milter, a network or a clock.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from requiretls_milter.model import (
    OTHER_DOMAIN,
    UNKNOWN_STATUS,
    Action,
    Decision,
    EnforceFor,
    Forecast,
    HopKind,
    Mode,
    NextHop,
    OnNoncompliant,
    OnTemporary,
    OnUnknown,
    OnUnreachable,
    Outcome,
    Reason,
    Requirement,
    SmtpReply,
    Standing,
)
from requiretls_milter.syntax import status
from requiretls_milter.syntax.names import patterns
from requiretls_milter.syntax.text import bounded, printable

if TYPE_CHECKING:
    from requiretls_milter import config

REMEMBERED = 4096
"""Combinations of domains for which the rule is remembered; it is cheap to find again."""

MAX_REPLY_TEXT = 400
"""Characters in the text of a reply; RFC 5321 section 4.5.3.1.5 allows 512 octets in a line."""

# ---------------------------------------------------------------- finding the rule


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule that is in force for one recipient; its keys are those of ``[rules]``.

    ``decide_wait`` and ``downgrade_grace`` are in seconds. ``domain`` is a label of the metrics:
    the key of the first table by recipient or next hop that matched, or ``other``.
    """

    mode: Mode
    require: bool
    honour_lost: bool
    enforce_for: EnforceFor
    decide_wait: float
    on_temporary: OnTemporary
    on_unreachable: OnUnreachable
    on_unknown: OnUnknown
    on_noncompliant: OnNoncompliant
    downgrade_grace: float
    watch: bool
    domain: str = OTHER_DOMAIN

    def binds(self, standing: Standing) -> bool:
        """Whether ``enforce_for`` includes such a client: strangers must not learn forecasts."""
        return binds(self.enforce_for, standing)


def binds(enforce_for: EnforceFor, standing: Standing) -> bool:
    """Whether a value of ``enforce_for`` includes such a client."""
    match enforce_for:
        case EnforceFor.ALL:
            return True
        case EnforceFor.TRUSTED:
            return standing is not Standing.OTHER
        case EnforceFor.AUTHENTICATED:
            return standing is Standing.AUTHENTICATED


# A further key of [rules] is added in three places: here as a field of Rule, and in
# config/schema/rules.py as fields of Rules (with default and description) and of RuleTable (None:
# inherited). Everything else follows: KEYS, the search, `config explain`, the manual.
# tests/unit/rules/test_finding.py shows that the three agree.
KEYS = tuple(field.name for field in dataclasses.fields(Rule) if field.name != "domain")
"""The keys of a rule, as in the configuration, in the order of ``[rules]``."""


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """A value of a rule, and where it comes from.

    Attributes:
        value: of the rule.
        table: as the file names it.
        key: of that table, if it has another name than the value: "suspended" for a mode.
        listed: the domain or pattern of a list, if the table is that of a list.
    """

    value: Any
    table: str
    key: str = ""
    listed: str = ""


@dataclass(frozen=True, slots=True)
class _Match:
    """A table that matches: what it is looked up by, under which key, and its name in the file."""

    section: str
    pattern: str
    table: config.RuleTable
    name: str
    listed: str = ""


class RuleSet:
    """``[rules]``, with a search for the rule that is in force."""

    def __init__(self, rules: config.Rules) -> None:
        self._rules = rules
        self._listed: dict[str, dict[str, str]] = {}
        for name, listed in rules.list.items():
            by_pattern = self._listed.setdefault(listed.match, {})
            by_pattern.update(dict.fromkeys(listed.domains_file.domains, name))
        self.by_domain = bool(rules.recipient or rules.nexthop or rules.sender or self._listed)
        self.find = functools.lru_cache(maxsize=REMEMBERED)(self._find)
        """:meth:`_find`, remembered."""

    def _matching(self, sender: str, recipient: str, nexthop: str, alias: str) -> Iterator[_Match]:
        """Yield each table that matches, in order of precedence."""
        for section, domain in (
            ("recipient", alias),
            ("recipient", recipient if recipient != alias else ""),
            ("nexthop", nexthop),
            ("sender", sender),
        ):
            tables, listed = getattr(self._rules, section), self._listed.get(section, {})
            if not domain or not (tables or listed):
                continue
            for pattern in patterns(domain):
                if pattern in tables:
                    name = f'rules.{section}."{pattern}"'
                    yield _Match(section, pattern, tables[pattern], name)
                if pattern in listed:
                    table = listed[pattern]
                    name = f"rules.list.{table}"
                    yield _Match(section, pattern, self._rules.list[table], name, pattern)

    def matching(
        self, sender: str, recipient: str, nexthop: str, alias: str = ""
    ) -> list[dict[str, ValueOrigin]]:
        """The keys that each matching table sets, in order of precedence.

        The last table is ``[rules]``, which has every key. Arguments as for :meth:`explain`.
        """
        found = []
        for match in self._matching(sender, recipient, nexthop, alias):
            values = {key: getattr(match.table, key) for key in KEYS}
            found.append(
                {
                    key: ValueOrigin(value, match.name, listed=match.listed)
                    for key, value in values.items()
                    if value is not None
                }
            )
        found.append({key: ValueOrigin(getattr(self._rules, key), "rules") for key in KEYS})
        return found

    def explain(
        self, sender: str, recipient: str, nexthop: str, alias: str = ""
    ) -> dict[str, ValueOrigin]:
        """Each key of the rule for these domains, with its origin.

        Args:
            sender: the domain of the reverse-path, as A-labels; "" for the null reverse-path.
            recipient: the domain of the recipient, as A-labels.
            nexthop: the host of the next hop, A-labels or an address; "" for a local one.
            alias: the domain of the address that the client gave, if the MTA makes the recipient
                of it; it goes first.
        """
        matching = self.matching(sender, recipient, nexthop, alias)
        explained = {}
        for key in KEYS:
            origins = [table[key] for table in matching if key in table]
            if key == "require":
                explained[key] = next((o for o in origins if o.value), origins[0])
            else:
                explained[key] = origins[0]
        if self._rules.suspended and explained["mode"].value.acts:
            explained["mode"] = ValueOrigin(Mode.MONITOR, "rules", "suspended")
        return explained

    def requires(self, recipient: str, nexthop: str) -> bool:
        """Whether REQUIRETLS is asked of mail to a domain, whoever sends it.

        Arguments as for :meth:`explain`; much cheaper than :meth:`find` for a domain not seen
        before.
        """
        matching = self._matching("", recipient, nexthop, "")
        return self._rules.require or any(match.table.require for match in matching)

    def of_nexthop(self, nexthop: NextHop) -> Rule:
        """The rule for mail to a next hop, whoever sends it.

        The domain of the recipients is that of the next hop, unless it names a server.
        """
        by_domain = nexthop.kind in (HopKind.MX, HopKind.SRV)
        return self.find("", nexthop.host if by_domain else "", nexthop.host)

    def _find(self, sender: str, recipient: str, nexthop: str, alias: str = "") -> Rule:
        """The rule for these domains; arguments as for :meth:`explain`."""
        label = next(
            (
                match.pattern
                for match in self._matching(sender, recipient, nexthop, alias)
                if match.section != "sender"
            ),
            OTHER_DOMAIN,
        )
        explained = self.explain(sender, recipient, nexthop, alias)
        values = {key: origin.value for key, origin in explained.items()}
        return Rule(**values, domain=label)


# ---------------------------------------------------------------- the decision


class Why(enum.StrEnum):
    """Why a recipient is accepted, deferred or refused; ``why=`` of the log."""

    MODE = "mode"  # off or monitor: never acts
    NOT_ASKED = "not_asked"  # REQUIRETLS is not asked
    NULL_SENDER = "null_sender"  # RFC 8689 sections 4.2.1 and 5
    NOT_ENFORCED = "not_enforced"  # the rule does not act on mail of this client
    LOCAL = "local"
    WILL_DELIVER = "will_deliver"
    LEFT_TO_MTA = "left_to_mta"  # the failure is not about TLS, or the server's own code
    TEMPORARY = "temporary"
    UNREACHABLE = "unreachable"  # deferred, though the failure is not about TLS (on_unreachable)
    UNKNOWN = "unknown"
    NONCOMPLIANT = "noncompliant"
    WILL_FAIL = "will_fail"
    DOWNGRADE = "downgrade"  # deferred instead of refused, during downgrade_grace
    TOO_MANY_TAGS = "too_many_tags"  # whatever the rule says
    MIXED = "mixed"  # put off, since its route is another one (rules.on_mixed)
    CONTRADICTION = "contradiction"  # a rule asks, but TLS-Required: No undoes it


_SENTENCES: dict[Reason, str] = {
    Reason.NONCOMPLIANT_UNVERIFIED: "the certificate of {server} would not be verified",
    Reason.NONCOMPLIANT_MX_INSECURE: "its MX is secured neither by DNSSEC nor by MTA-STS",
    Reason.NONCOMPLIANT_NOT_OFFERED: "{server} does not offer REQUIRETLS",
    Reason.NONCOMPLIANT_WEAK_TLS: "the TLS of {server} is weaker than RFC 9325 allows",
    Reason.MX_LOOKUP_INSECURE: "its MX is secured neither by DNSSEC nor by MTA-STS",
    Reason.MX_NOT_IN_MTA_STS_POLICY: "{server} is not in its MTA-STS policy",
    Reason.STARTTLS_NOT_OFFERED: "{server} does not offer STARTTLS",
    Reason.STARTTLS_REFUSED: "{server} refuses STARTTLS",
    Reason.TLS_HANDSHAKE_FAILED: "the TLS handshake with {server} fails",
    Reason.CERTIFICATE_NOT_VERIFIED: "the certificate of {server} does not verify",
    Reason.REQUIRETLS_NOT_OFFERED: "{server} does not offer REQUIRETLS",
    Reason.TLS_LEVEL_DOES_NOT_VERIFY: "this system cannot verify the certificate of {server}",
    Reason.MTA_POLICY_INVALID: "this system's REQUIRETLS policy is not valid",
    Reason.POLICY_LOOKUP_FAILED: "its DANE or MTA-STS policy cannot be looked up",
    Reason.NO_TLSA_RECORDS: "{server} has no TLSA record by which this system could verify it",
    Reason.MX_UNSIGNED: "its MX is not signed, as this system demands",
    Reason.UNREACHABLE: "{server} cannot be reached",
    Reason.DNS_FAILURE: "its DNS does not answer",
    Reason.SERVER_REJECTS: "{server} turns mail away for now",
    Reason.UNKNOWN: "what its servers offer could not be found out in time",
}

PERMANENT = (status.ENCRYPTION_NEEDED, status.REQUIRETLS_NEEDED)
"""The permanent failures that RFC 8689 section 4.2.1 defines; others are left to the MTA."""

PUT_OFF = SmtpReply(
    452,
    status.TOO_MANY_RECIPIENTS,
    "too many recipients: this one takes another route, send it separately",
)
"""To a recipient whose route is not that of those accepted before (``on_mixed``).

A client takes it for the reply of a server that has a limit of recipients, and brings the recipient
in another transaction (RFC 5321 section 4.5.3.1.10).
"""

_NOT_OFFERED = frozenset({Reason.NONCOMPLIANT_NOT_OFFERED, Reason.REQUIRETLS_NOT_OFFERED})


def exemption(
    rule: Rule, *, asked: Requirement, standing: Standing, null_sender: bool, local: bool
) -> Why | None:
    """Why *rule* accepts a recipient whatever is forecast; None if the forecast decides.

    This is the only place that says whether a rule can act: :func:`decide` begins with it, and a
    transaction calls it before it waits for a forecast.

    Args:
        rule: the rule in force.
        asked: for this recipient.
        standing: of the client that sends.
        null_sender: the reverse-path is empty (R7).
        local: the MTA delivers without SMTP (R19).
    """
    if not rule.mode.acts:
        return Why.MODE
    if asked is not Requirement.REQUIRETLS:
        return Why.NOT_ASKED
    if null_sender:
        return Why.NULL_SENDER
    if not rule.binds(standing):
        return Why.NOT_ENFORCED
    return Why.LOCAL if local else None


def decide(
    rule: Rule,
    forecast: Forecast,
    *,
    asked: Requirement,
    carried: Requirement,
    standing: Standing,
    null_sender: bool,
    domain: str,
    now: float,
    by_rule: bool = False,
) -> Decision:
    """Decide on one recipient.

    Args:
        rule: the rule in force.
        forecast: of its next hop.
        asked: for this recipient.
        carried: what the MTA will act on.
        standing: of the client that sends.
        null_sender: the reverse-path is empty.
        domain: the recipient's, for the text of the reply.
        now: seconds since the epoch, for ``downgrade_grace``.
        by_rule: whether a rule asks, and not the message: the text of the reply says so.
    """
    told = _Told(forecast, domain, by_rule)
    local = forecast.reason is Reason.LOCAL
    exempt = exemption(rule, asked=asked, standing=standing, null_sender=null_sender, local=local)
    if exempt is not None:
        return _accept(exempt)
    if carried is Requirement.TLS_REQUIRED_NO:
        # The MTA would ignore DANE and MTA-STS for this mail, so that no delivery satisfies the
        # rule, now or later: mode defer refuses it too.
        reply = SmtpReply(550, status.ENCRYPTION_NEEDED, _contradiction(domain))
        return Decision(Action.REJECT, Why.CONTRADICTION, reply)

    if forecast.status == UNKNOWN_STATUS or forecast.outcome is Outcome.UNKNOWN:
        if defers_unknown(rule, carried):
            return _defer(status.POLICY_TEMPORARY, Why.UNKNOWN, told.text(temporary=True))
        return _accept(Why.UNKNOWN)

    if forecast.outcome is Outcome.DELIVER:
        if forecast.compliant is not False:
            return _accept(Why.WILL_DELIVER)
        if not refuses_noncompliant(rule, carried):
            return _accept(Why.NONCOMPLIANT)
        not_offered = forecast.reason in _NOT_OFFERED
        enhanced = status.REQUIRETLS_NEEDED if not_offered else status.ENCRYPTION_NEEDED
        return _refuse_with_grace(rule, enhanced, Why.NONCOMPLIANT, told, now)

    by_server = forecast.reason is Reason.SERVER_REJECTS
    about_tls = not by_server and forecast.status.startswith("4.7.")
    if forecast.outcome is Outcome.DEFER and not about_tls:
        if rule.on_unreachable is OnUnreachable.ACCEPT:
            return _accept(Why.LEFT_TO_MTA)
        # A code that the server chose would be a word of ours to the client.
        enhanced = status.CONNECT_FAILURE if by_server else forecast.status
        return _defer(enhanced, Why.UNREACHABLE, told.text(temporary=True))
    if by_server:
        return _accept(Why.LEFT_TO_MTA)
    if forecast.status in PERMANENT:
        return _refuse_with_grace(rule, forecast.status, Why.WILL_FAIL, told, now)
    if about_tls:
        if rule.mode is Mode.REJECT and rule.on_temporary is OnTemporary.ACCEPT:
            return _accept(Why.TEMPORARY)
        return _defer(forecast.status, Why.TEMPORARY, told.text(temporary=True))
    return _accept(Why.LEFT_TO_MTA)


def decide_message(decisions: Sequence[Decision]) -> Decision:
    """Decide on a message at its end, from the decisions on its accepted recipients.

    At the end only the whole message can be refused. The first of these that applies decides:

    1. a recipient has a contradiction (:attr:`Why.CONTRADICTION`): the message is refused;
    2. a recipient is accepted: the message is accepted, and the MTA bounces what fails;
    3. a recipient is deferred: the message is deferred, since the client tries again for all;
    4. every recipient is refused: the message is refused.
    """
    for decision in decisions:
        if decision.why == Why.CONTRADICTION:
            return decision
    for wanted in (Action.ACCEPT, Action.DEFER, Action.REJECT):
        for decision in decisions:
            if decision.action is wanted:
                return decision
    return _accept(Why.NOT_ASKED)


def never_deferred(decision: Decision, carried: Requirement) -> Decision:
    """The decision that takes the place of a deferral if no client would try again.

    The MTA keeps a requirement that it carries, so that the recipient can be accepted. One that
    the milter alone keeps is kept only by a refusal.
    """
    if decision.action is not Action.DEFER or decision.reply is None:
        return decision
    if carried is Requirement.REQUIRETLS:
        return _accept(Why(decision.why))
    reply = decision.reply
    enhanced = status.as_permanent(reply.enhanced)
    return Decision(Action.REJECT, decision.why, SmtpReply(550, enhanced, reply.text))


def defers_unknown(rule: Rule, carried: Requirement) -> bool:
    """Whether *rule*, if it acts, defers a recipient without a forecast."""
    if rule.on_unknown is OnUnknown.AUTO:
        return carried is not Requirement.REQUIRETLS
    return rule.on_unknown is OnUnknown.DEFER


def refuses_noncompliant(rule: Rule, carried: Requirement) -> bool:
    """Whether *rule*, if it acts, refuses a delivery that RFC 8689 would not make."""
    if rule.on_noncompliant is OnNoncompliant.AUTO:
        return carried is not Requirement.REQUIRETLS
    return rule.on_noncompliant is OnNoncompliant.REFUSE


@functools.cache
def _accept(why: Why) -> Decision:
    return Decision(Action.ACCEPT, why)


def _defer(enhanced: str, why: Why, text: str) -> Decision:
    return Decision(Action.DEFER, why, SmtpReply(451, enhanced, text))


def _refuse(rule: Rule, enhanced: str, why: Why, text: str) -> Decision:
    """Refuse with *enhanced* (5.x.x), or in mode defer with the same code as 4.x.x.

    The code always has the class of the enhanced code.
    """
    if rule.mode is Mode.DEFER:
        return _defer(status.as_temporary(enhanced), why, text)
    return Decision(Action.REJECT, why, SmtpReply(550, enhanced, text))


def _refuse_with_grace(rule: Rule, enhanced: str, why: Why, told: _Told, now: float) -> Decision:
    """Refuse, or defer if the downgrade is new: a certificate renewed badly only delays mail."""
    text, downgraded_at = told.text(), told.forecast.downgraded_at
    since = now - downgraded_at
    if rule.mode is Mode.REJECT and downgraded_at and since < rule.downgrade_grace:
        text = _bounded(f"{text}; until recently more was offered there")
        return _defer(status.as_temporary(enhanced), Why.DOWNGRADE, text)
    return _refuse(rule, enhanced, why, text)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the text of a reply is made of; see :func:`decide`."""

    forecast: Forecast
    domain: str
    by_rule: bool

    def text(self, *, temporary: bool = False) -> str:
        server = self.forecast.mx or "its server"
        sentence = _SENTENCES.get(self.forecast.reason, "delivery to {server} would fail")
        now = " now" if temporary else ""
        # A sender that did not ask has to learn whose demand it is.
        ours = "; a rule of this system requires REQUIRETLS" if self.by_rule else ""
        return _bounded(
            f"REQUIRETLS cannot be honoured{now} for {self.domain}: "
            f"{sentence.format(server=server)}{ours}"
        )


def refuse_too_many_tags(name: str, limit: int) -> Decision:
    """Refuse a message with more than *limit* copies of the tag's field *name*.

    No rule decides about it, and no message is exempt. Honest mail does not have that many, a
    bounce neither: it has the fields of the message that failed in its body. Deferred, the message
    would come again and cost the same again.
    """
    text = _bounded(f"more than {limit} header fields {name}: only this system writes them")
    return Decision(Action.REJECT, Why.TOO_MANY_TAGS, SmtpReply(550, status.REFUSED, text))


def _contradiction(domain: str) -> str:
    return _bounded(
        f"TLS-Required: No contradicts what a rule of this system requires for mail to {domain}"
    )


def _bounded(text: str) -> str:
    """The text of a reply: printable ASCII, cut (R62), as the domain comes from a stranger."""
    return bounded(printable(text, MAX_REPLY_TEXT + 1), MAX_REPLY_TEXT)
