"""What becomes of one message at one server, and of a message at several servers in turn.

Postfix records how the attempt at a server failed and goes on to the next server. The
first attempt that *ends* the delivery decides; if none does, the last failure recorded
decides. That is :func:`result_in_order`. But Postfix shuffles servers of equal
preference, and there may be more servers than it may try, so that a delivery may have
several results. :func:`possible_results` finds them all without going through all orders.

A worked example
----------------
An MX host with two addresses, A (IPv4) and B (IPv6). A fails for now ("4.4.1"); B
takes the message, which ends the delivery::

    groups = ((A, B),)      one group, since both are of one preference

``limit`` (smtp_mx_address_limit) is the number of *slots*: each server that is tried takes
one. With ``limit`` 1 either A or B is tried:

1. :func:`~requiretls_milter.forecast.reach.sharings` gives one slot, for either family.
2. ``_Draw([A, B], 1)``: of A and B one is tried. ``ending`` is [B], ``failing`` [A].
3. ``_possible_ends`` is [B]: the slot may go to B, and B ends the delivery.
4. ``can_go_on`` is true: the slot may go to A, and then no attempt ends the delivery.
5. ``_possible_last_failures`` is [A]: in that case A's failure is recorded last.

The results are (B, A): "2.0.0" or "4.4.1", as chance decides. With ``limit`` 2 both
are tried: ``can_go_on`` is false, since two slots need two servers, and only A does not
end the delivery. The only result is B.

``first`` (the family of the server that is tried first) matters if each family has more
servers than half of the limit. With limit 3, two IPv4 servers A, C and two IPv6 servers
B, D, the family of the first server has two slots, the other family has one. Say that
all four fail. If IPv6 goes first, then B, D and either A or C are tried. B or D is the
first of the three, and the other two come in any order: each of the four can be the last
one recorded. But if D were the only IPv6 server of the best group, it would be tried
before all others of the group, and could not be the last one recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from requiretls_milter.forecast import sentences
from requiretls_milter.forecast.reach import MailServer, Sharing, is_order_fixed, sharings
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    Needs,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reason,
    Reply,
)
from requiretls_milter.syntax import status

NOTHING_RECORDED = ""
"""The status of an attempt that records nothing: with ``mta_sts = "mx-patterns"`` Postfix passes
over a server that the MTA-STS policy does not name."""

OLD_TLS = frozenset({"SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1"})
"""Versions that do not count as TLS if the server has to be verified (RFC 8996)."""


def tls_weakness(probe: ProbeEvidence) -> str | None:
    """Say why an MTA that verifies the server would not accept its TLS; None if it would."""
    if probe.tls_version in OLD_TLS:
        return f"it speaks no more than {probe.tls_version}"
    return probe.only_opportunistic or None


class DeliveryAttempt(NamedTuple):
    """How the attempt at one server ends.

    Attributes:
        server: the server; None if the delivery ends before any server is tried.
        status: the enhanced status code, UNKNOWN_STATUS or NOTHING_RECORDED.
        reason: what decided.
        text: the same as a sentence for people.
        tls: the token that Postfix logs after ``tls=``; None if it logs none.
        ends: no further server is tried.
        verified: the MTA itself made sure that the server is the MX host.
        requiretls_sent: the MAIL command carries the parameter REQUIRETLS.
        outside: the last server was not even called, so that no session's failure is reported.
        small_key: a key by which the MTA made sure has less than 112 bits of security (R64).
        until: when a certificate on which this rests begins or ceases to be valid, seconds
            since the epoch; infinity if it rests on none.
    """

    server: MailServer | None
    status: str
    reason: Reason
    text: str = ""
    tls: str | None = None
    ends: bool = False
    verified: bool = False
    requiretls_sent: bool = False
    small_key: bool = False
    outside: bool = False
    until: float = math.inf

    @property
    def delivered(self) -> bool:
        """Whether the server would take the message."""
        return self.status == status.SUCCESS

    @property
    def families(self) -> frozenset[str]:
        """The address families that the server may be of; empty if there is no server."""
        return self.server.families if self.server else frozenset()

    @property
    def is_passed_over(self) -> bool:
        """Whether the attempt neither ends the delivery nor records anything."""
        return self.status == NOTHING_RECORDED

    def until_at_most(self, until: float) -> DeliveryAttempt:
        """Make it end at *until*, if it does not end before that."""
        return self if self.until <= until else self._replace(until=until)

    @property
    def is_recorded_failure(self) -> bool:
        """Whether the delivery ends with this failure if no later attempt changes it."""
        return not self.ends and not self.is_passed_over


AttemptGroups = tuple[tuple[DeliveryAttempt, ...], ...]
"""The attempts at servers in groups that Postfix shuffles, the best group first."""


def unknown(server: MailServer, text: str) -> DeliveryAttempt:
    """Make the attempt that evidence does not cover: it may end in any way."""
    return DeliveryAttempt(server, UNKNOWN_STATUS, Reason.UNKNOWN, text, ends=True)


def without_smtputf8(
    server: MailServer, offered: bool | None, needs: Needs, where: str
) -> DeliveryAttempt | None:
    """Fail at a server that lacks SMTPUTF8 if the message needs it; the next one may offer it."""
    if not needs.smtputf8 or offered:
        return None
    if offered is None:
        return unknown(server, f"it is not known whether {server.name} offers SMTPUTF8 {where}")
    text = sentences.smtputf8_not_offered(server, where)
    return DeliveryAttempt(server, status.SMTPUTF8_NEEDED, Reason.SMTPUTF8_NOT_OFFERED, text)


def unless_too_large(result: DeliveryAttempt, needs: Needs) -> DeliveryAttempt:
    """Make a delivery fail if the message is larger than the server takes.

    That ends the delivery, whatever the next server takes. It is found out last, before MAIL.
    """
    server = result.server
    if not result.delivered or server is None:
        return result
    if not 0 < server.probe.size_limit < needs.size:
        return result
    return DeliveryAttempt(
        server,
        status.MESSAGE_TOO_LARGE,
        Reason.MESSAGE_TOO_LARGE,
        sentences.message_too_large(server, needs.size),
        tls=result.tls,
        ends=True,
        until=result.until,
    )


IN_EHLO, IN_SECOND_EHLO = "before TLS", "inside TLS"
"""Where a keyword is missing."""


_NO_SERVER_TRIED = DeliveryAttempt(
    None,
    status.NO_SERVER_LEFT,
    Reason.MX_NOT_IN_MTA_STS_POLICY,
    "no server of the domain is in its MTA-STS policy",
)


# ---------------------------------------------------------------- several servers in turn


def result_in_order(
    attempts: Iterable[DeliveryAttempt], recorded: DeliveryAttempt | None = None
) -> DeliveryAttempt:
    """Return what the delivery ends with if servers are tried in this order (R11).

    No further attempt is taken from *attempts* once one has ended the delivery.

    Args:
        attempts: one for each server.
        recorded: the failure that is recorded before any server is tried, if one is.
    """
    last = recorded or _NO_SERVER_TRIED
    for attempt in attempts:
        if attempt.ends:
            return attempt
        if not attempt.is_passed_over:
            last = attempt
            continue
        # A server that is passed over leaves the recorded failure as it is, but Postfix logs
        # that server's token.
        last = last._replace(tls=attempt.tls, outside=True)
    return last


def possible_results(
    groups: AttemptGroups, limit: int, recorded: DeliveryAttempt | None = None
) -> tuple[DeliveryAttempt, ...]:
    """List all that the delivery can end with if servers of a group are in random order (R11).

    Args:
        groups: the attempts at all servers.
        limit: how many servers are tried at most; 0 for no limit.
        recorded: the failure that is recorded before any server is tried, if one is.
    """
    if is_order_fixed(groups, limit):
        return (result_in_order((attempt for (attempt,) in groups), recorded),)
    ways = sharings(groups, limit)
    if ways is None:
        return _results_beside_unseen(groups)
    return tuple(
        result for way in ways for result in _results(groups, way, recorded or _NO_SERVER_TRIED)
    )


def _results_beside_unseen(groups: AttemptGroups) -> tuple[DeliveryAttempt, ...]:
    """List the results if unseen servers, of unknown number and family, may take any slot.

    All that is certain is that a server of the best group is tried first.
    """
    if all(attempt.ends for attempt in groups[0]):
        return groups[0]
    unseen = (attempt for group in groups for attempt in group if len(attempt.families) > 1)
    return (next(unseen),)


class _Draw:
    """*count* of some attempts are made; chance decides which."""

    def __init__(self, attempts: list[DeliveryAttempt], count: int) -> None:
        self.count = count
        possible = attempts if count else []
        self.ending = [attempt for attempt in possible if attempt.ends]
        self.failing = [attempt for attempt in possible if attempt.is_recorded_failure]
        self.passed_over = [attempt for attempt in possible if attempt.is_passed_over]
        self.can_go_on = count <= len(self.failing) + len(self.passed_over)
        """It may be that none of the attempts that are made ends the delivery."""
        self.can_record_nothing = count <= len(self.passed_over)
        """It may be that all servers that are tried are passed over."""


def _results(
    groups: AttemptGroups, sharing: Sharing, recorded: DeliveryAttempt
) -> list[DeliveryAttempt]:
    """List the results for one way of sharing the limit, group by group.

    ``ends`` collects the attempts that may end the delivery in the groups so far.
    ``last`` holds what may be recorded if none of them does.
    """
    ends: list[DeliveryAttempt] = []
    last = [recorded]
    left = [share.slots for share in sharing.shares]
    first = sharing.first
    for group in groups:
        draws = []
        for number, share in enumerate(sharing.shares):
            sharers = [attempt for attempt in group if attempt.families <= share.families]
            draws.append(_Draw(sharers, min(left[number], len(sharers))))
            left[number] -= draws[-1].count
        ends += _possible_ends(draws, first)
        if not all(draw.can_go_on for draw in draws):
            return ends
        passed_over = [attempt for draw in draws for attempt in draw.passed_over]
        if passed_over:
            token = passed_over[-1].tls
            last = [attempt._replace(tls=token, outside=True) for attempt in last]
        failures = _possible_last_failures(draws, first)
        if all(draw.can_record_nothing for draw in draws):
            last += failures
        else:
            last = failures
        first = ""  # only the very first server's family is known
    return ends + last


def _possible_ends(draws: list[_Draw], first: str) -> list[DeliveryAttempt]:
    """List the attempts that may end the delivery in this group.

    If *first* is set, a server of that family goes first. An attempt of the other
    family can only end the delivery if one of family *first* may not have ended it.
    """
    first_may_go_on = any(
        first in attempt.families
        for draw in draws
        for attempt in (*draw.failing, *draw.passed_over)
    )
    return [
        attempt
        for draw in draws
        for attempt in draw.ending
        if not first or first in attempt.families or first_may_go_on
    ]


def _possible_last_failures(draws: list[_Draw], first: str) -> list[DeliveryAttempt]:
    """List the failures that may be the last one recorded in this group.

    If *first* is set, a server of that family goes first. If it is the only one of its
    family, it is the last one recorded only if all others may be passed over.
    """
    failures: list[DeliveryAttempt] = []
    for draw in draws:
        others_may_be_silent = all(other.can_record_nothing for other in draws if other is not draw)
        any_may_be_last = draw.count > 1 or others_may_be_silent
        failures += [
            attempt for attempt in draw.failing if any_may_be_last or first not in attempt.families
        ]
    return failures


# ---------------------------------------------------------------- broken sessions


IN_CLEAR = frozenset(
    {ProbeStage.NOT_PROBED, ProbeStage.CONNECT, ProbeStage.BANNER, ProbeStage.EHLO}
)
"""Stages that every delivery passes, with or without TLS."""

AT_SECOND_EHLO = frozenset({ProbeStage.EHLO_TLS})
"""The stage that a delivery with TLS passes after the handshake."""


def session_failure(server: MailServer, stages: frozenset[ProbeStage]) -> DeliveryAttempt | None:
    """Make the attempt that fails because the session broke at one of *stages*; None if it did not.

    A delivery without TLS never comes to the stages after EHLO, and a delivery that verifies
    certificates may give up before the EHLO inside TLS. So a profile calls this function
    several times, with the stages that come next. Each profile judges a failed handshake
    itself.
    """
    probe = server.probe
    if probe.stage not in stages:
        return None
    match probe.stage:
        case ProbeStage.NOT_PROBED:
            why = f": {probe.error}" if probe.error else ""
            return unknown(server, f"{server.name} has not been probed{why}")
        case ProbeStage.CONNECT if probe.failure is ProbeFailure.FORBIDDEN:
            return unknown(server, f"{server.name} may not be probed: probe.allow_networks")
        case ProbeStage.CONNECT:
            return DeliveryAttempt(
                server,
                status.CONNECT_FAILURE,
                Reason.UNREACHABLE,
                f"no connection to {server.name}: {sentences.failure_of(probe)}",
            )
        case _ if probe.failure is ProbeFailure.LIMIT:
            return unknown(server, f"{server.name} says too much at {probe.stage}: {probe.error}")
        case _ if probe.reply is not None:
            return _refused_by_reply(server, probe.reply, probe.stage)
        case _:
            return DeliveryAttempt(
                server,
                status.LOST_CONNECTION,
                Reason.UNREACHABLE,
                f"lost connection with {server.name} at {probe.stage}: "
                + sentences.failure_of(probe),
            )


def _refused_by_reply(server: MailServer, reply: Reply, stage: ProbeStage) -> DeliveryAttempt:
    """Fail with a server's own refusal.

    After a 5xx greeting the next server is tried (smtp_skip_5xx_greeting): it counts as
    temporary. A reply that is neither 2xx, 4xx nor 5xx breaks the protocol and ends the
    delivery.
    """
    code = reply_status(reply)
    if stage is ProbeStage.BANNER and reply.code // 100 == 5:
        code = "4" + code[1:]
    return DeliveryAttempt(
        server,
        code,
        Reason.SERVER_REJECTS,
        f"{server.name} refused to talk: {reply.code} {reply.text}",
        ends=code.startswith("5"),
    )


def reply_status(reply: Reply) -> str:
    """Return the enhanced status code of a refusal, or x.0.0 by the class of its code.

    A reply that ends a session without being a refusal is a protocol error, never a success.
    """
    klass = reply.code // 100
    if klass not in (4, 5):
        return status.PROTOCOL_ERROR
    enhanced = reply.enhanced
    same_class = status.is_enhanced(enhanced) and enhanced.startswith(f"{klass}.")
    return enhanced if same_class else f"{klass}.0.0"
