"""``[rules]`` and its tables by domain: what follows from a forecast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from requiretls_milter import model
from requiretls_milter.config import fields, values
from requiretls_milter.config.domainlist import MAX_DOMAINS
from requiretls_milter.config.fields import Flag, Wait
from requiretls_milter.config.schema.section import Section
from requiretls_milter.config.values import MILTER_COMMAND_TIMEOUT
from requiretls_milter.syntax import names


class RuleTable(Section):
    """A rule for one domain; None is inherited from the next table that matches."""

    mode: fields.ModeWord | None = Field(None, description="As [rules] mode.")
    require: Flag | None = Field(
        None, description="As [rules] require; true in any table that matches is enough."
    )
    honour_lost: Flag | None = Field(None, description="As [rules] honour_lost.")
    enforce_for: fields.EnforceForWord | None = Field(None, description="As [rules] enforce_for.")
    decide_wait: Wait | None = Field(None, description="As [rules] decide_wait.")
    on_temporary: fields.OnTemporaryWord | None = Field(
        None, description="As [rules] on_temporary."
    )
    on_unreachable: fields.OnUnreachableWord | None = Field(
        None, description="As [rules] on_unreachable."
    )
    on_unknown: fields.OnUnknownWord | None = Field(None, description="As [rules] on_unknown.")
    on_noncompliant: fields.OnNoncompliantWord | None = Field(
        None, description="As [rules] on_noncompliant."
    )
    downgrade_grace: fields.Grace | None = Field(None, description="As [rules] downgrade_grace.")
    watch: Flag | None = Field(None, description="As [rules] watch.")


class RuleList(RuleTable):
    """A rule for every domain of a list."""

    domains_file: fields.DomainListField = Field(
        description=(
            "Text file with the domains, one a line. A relative path begins where this file lies."
        ),
    )
    match: fields.MatchWord = Field(
        model.Match.RECIPIENT,
        description='By what the domains are looked up: "recipient", "nexthop" or "sender".',
    )


RuleTables = Annotated[Mapping[fields.DomainPattern, RuleTable], BeforeValidator(values.no_twins)]


_TABLES = (
    'By {what}: [rules.{key}."example.org"], or ".example.org" for its subdomains. The exact '
    "name comes first, then the longest pattern. {order} A key that a table leaves out is "
    "inherited."
)


class Rules(Section):
    """What follows from a forecast. Only mail for which REQUIRETLS is asked is ever acted on."""

    mode: fields.ModeWord = Field(
        model.Mode.MONITOR,
        description=(
            'What the milter does: "off" (no tag, no count), "monitor" (tag and count), "defer" '
            '(also answer 451 if the delivery would fail), "reject" (also answer 550 if it would '
            "fail for good). monitor by default: look first, act later. No mode lets a message "
            "with more forged tags than limits.tags pass."
        ),
    )
    suspended: Flag = Field(
        False,
        description=(
            "Whether every rule that would act (mode defer or reject, in any table) is as if its "
            'mode were "monitor", and no recipient is put off by on_mixed: one line that switches '
            "all enforcement off. requiretls-milter suspend does the same to the running service, "
            "until the next reload. The MTA goes on doing what it does with REQUIRETLS itself."
        ),
    )
    require: Flag = Field(
        False,
        description=(
            "Whether REQUIRETLS is asked on behalf of the sender, whatever the message says. True "
            "in any table that matches is enough: a narrower table cannot take it back. The MTA "
            "does not know of this requirement, so that only modes defer and reject keep it."
        ),
    )
    honour_lost: Flag = Field(
        False,
        description=(
            "Whether REQUIRETLS is asked if an earlier hop was asked for it and the requirement "
            "was lost on the way (RFC 8689 section 6). If false, such mail is only counted and "
            "logged."
        ),
    )
    enforce_for: fields.EnforceForWord = Field(
        model.EnforceFor.TRUSTED,
        description=(
            'Whose mail may be deferred or refused: that of clients that are "authenticated" '
            '(SASL), "trusted" (these, and those in milter.trusted_networks) or "all". A stranger '
            "whose mail is refused learns a forecast."
        ),
    )
    decide_wait: Wait = Field(
        10,
        description=(
            "Seconds that a recipient may wait for its forecast in modes defer and reject. After "
            "them the forecast is unknown. Less than milter_command_timeout of Postfix "
            f"({MILTER_COMMAND_TIMEOUT} s), or the MTA gives the milter up."
        ),
    )
    tag_wait: Wait = Field(
        2,
        description=(
            "Seconds that the end of a message may wait for the forecasts in its tag. The number "
            "holds for the whole message, so that it is not in the tables by domain."
        ),
    )
    on_temporary: fields.OnTemporaryWord = Field(
        model.OnTemporary.ACCEPT,
        description=(
            'What mode reject does if the forecast is 4.7.x: "accept" (the MTA queues the mail and '
            'tries again) or "defer" (the client tries again).'
        ),
    )
    on_unreachable: fields.OnUnreachableWord = Field(
        model.OnUnreachable.ACCEPT,
        description=(
            "What modes defer and reject do if delivery would fail for now for another reason than "
            "TLS: no server can be reached, DNS does not answer, or the server turns mail away "
            '(4.x.x, but not 4.7.x). "accept": the MTA queues the mail, and delivers it later by '
            "its own settings, without any further look at the rule. An MTA that does not itself "
            'keep the requirement may then deliver in clear. "defer": the client tries again, so '
            "that the mail meets the rule when the server is back."
        ),
    )
    on_unknown: fields.OnUnknownWord = Field(
        model.OnUnknown.AUTO,
        description=(
            'What modes defer and reject do without a forecast: "accept" or "defer". "auto": '
            "accept if the MTA itself keeps the requirement, else defer."
        ),
    )
    on_noncompliant: fields.OnNoncompliantWord = Field(
        model.OnNoncompliant.AUTO,
        description=(
            "What modes defer and reject do if the MTA would deliver, but not as RFC 8689 demands: "
            '"accept" or "refuse". "auto": accept if the MTA itself keeps the requirement, else '
            "refuse."
        ),
    )
    on_mixed: fields.OnMixedWord = Field(
        model.OnMixed.ACCEPT,
        description=(
            'What becomes of a message whose recipients take different routes: "accept" (its tag '
            'has route=mixed, on which no recipe matches), or "split": a recipient whose route is '
            "not that of those accepted before is put off (452 4.5.3), so that the client brings "
            "it in a transaction of its own (RFC 5321 section 4.5.3.1.10), and a recipe binds "
            "exactly the recipients for whom something is asked. Clients that authenticate are "
            "never put off: a mail program does not try again. Needed only with recipes that "
            "match on the route. It holds for all mail, so that it is not in the tables by domain."
        ),
    )
    downgrade_grace: fields.Grace = Field(
        432_000,
        description=(
            "Seconds for which mail is deferred instead of refused after a next hop stopped "
            "offering STARTTLS, REQUIRETLS, TLSA or MTA-STS. 0: it is refused at once. The "
            "default is five days, as long as mail is queued: a failed renewal should delay mail, "
            "and an attack should not look like a final answer."
        ),
    )
    watch: Flag = Field(
        False,
        description=(
            "Whether the servers of a domain that has a table by recipient or next hop are watched "
            "as our own are: see [watch]. For partners whose postmasters want to be told."
        ),
    )
    recipient: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the domain of the recipient",
            key="recipient",
            order="These tables take precedence over [rules.nexthop].",
        ),
    )
    nexthop: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the next hop",
            key="nexthop",
            order="These tables take precedence over [rules.sender].",
        ),
    )
    sender: RuleTables = Field(
        {},
        description=_TABLES.format(
            what="the domain of the envelope sender",
            key="sender",
            order="These tables take precedence over [rules].",
        ),
    )

    list: Mapping[fields.ListName, RuleList] = Field(
        {},
        description=(
            "One rule for many domains: [rules.list.NAME], where NAME is yours. domains_file names "
            "a text file with a domain on each line, in Unicode or as A-labels, or .example.org "
            "for subdomains; what follows a # is a comment. A relative path begins where the file "
            'lies that has it. match says by what the domains are looked up: "recipient" (the '
            'default), "nexthop" or "sender". A domain of a list is as one with a table of these '
            "keys; a table of its own takes precedence over the list, key by key. A domain may "
            "stand in one list of each match only. All lists together have at most "
            f"{MAX_DOMAINS:,} domains. The files are read at start and at reload."
        ),
    )

    def tables(self) -> Iterator[tuple[str, str, RuleTable]]:
        """Each table below [rules] as (section, name, rule), in order of precedence."""
        sections: tuple[tuple[str, Mapping[str, RuleTable]], ...] = (
            ("recipient", self.recipient),
            ("nexthop", self.nexthop),
            ("sender", self.sender),
            ("list", self.list),
        )
        for section, tables in sections:
            for name, table in tables.items():
                yield section, name, table

    def by_domain(self) -> Iterator[tuple[str, str, RuleTable]]:
        """Each rule of a domain as (section, pattern, rule): those of lists once for each domain.

        A domain with a table of its own that stands in a list as well comes twice, its table first.
        """
        for section, name, table in self.tables():
            if isinstance(table, RuleList):
                for pattern in table.domains_file.domains:
                    yield table.match, pattern, table
            else:
                yield section, name, table

    def mode_of(self, section: str, name: str) -> model.Mode:
        """The mode of a table: its own, or that which it inherits from others of its section.

        Args:
            section: "recipient", "nexthop", "sender" or "list".
            name: of the table.
        """
        tables: Mapping[str, RuleTable] = getattr(self, section)
        inherited = (
            table.mode
            for pattern in ([name] if section == "list" else names.patterns(name))
            for table in (tables.get(pattern), self._list_of(section, pattern))
            if table is not None and table.mode is not None
        )
        return next(inherited, self.mode)

    def _list_of(self, match: str, pattern: str) -> RuleList | None:
        found = (one for one in self.list.values() if one.match == match)
        return next((one for one in found if pattern in one.domains_file.domains), None)

    @property
    def acts(self) -> bool:
        """Whether any rule may defer or refuse mail."""
        if self.suspended:
            return False
        modes = (table.mode for _, _, table in self.tables())
        return self.mode.acts or any(mode is not None and mode.acts for mode in modes)

    @property
    def longest_decide_wait(self) -> float:
        """The largest ``decide_wait`` of any rule, in seconds."""
        waits = (table.decide_wait for _, _, table in self.tables())
        return max([self.decide_wait, *(wait for wait in waits if wait is not None)])
