"""What becomes of one message at one server, and of a message at several servers in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from requiretls_milter.forecast.servers import Server, Sharing, sharings
from requiretls_milter.model import (
    UNKNOWN_STATUS,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reason,
    Reply,
)
from requiretls_milter.syntax import status

NOTHING_RECORDED = ""
"""The status of a server that is passed over without a word (new-style MTA-STS)."""

OLD_TLS = frozenset({"SSLv3", "TLSv1", "TLSv1.0", "TLSv1.1"})
"""Versions that do not count as TLS where it matters (RFC 8996)."""


def tls_weakness(probe: ProbeEvidence) -> str:
    """Why its TLS is none for an MTA that verifies the server; the empty string where it is."""
    if probe.tls_version in OLD_TLS:
        return f"it speaks no more than {probe.tls_version}"
    return probe.only_opportunistic


@dataclass(frozen=True, slots=True)
class Attempt:
    """How the attempt at one server ends.

    ``ends``: no further server is tried. ``verified``: the MTA itself made sure
    that the server is the MX host. ``requiretls_sent``: MAIL carries the
    parameter. ``tls`` is Postfix's token for its log.
    """

    server: Server | None
    status: str
    reason: Reason
    text: str = ""
    tls: str | None = None
    ends: bool = False
    verified: bool = False
    requiretls_sent: bool = False

    @property
    def delivered(self) -> bool:
        """Whether the server would take the message."""
        return self.status == status.SUCCESS

    @property
    def family(self) -> str:
        """The word of inet_protocols for the server's address; "" where there is no server."""
        return self.server.family if self.server else ""

    @property
    def recorded_failure(self) -> bool:
        """Whether this is what remains if no later server does better."""
        return not self.ends and self.status != NOTHING_RECORDED


def unknown(server: Server, text: str) -> Attempt:
    """The attempt that evidence does not cover: it may end in any way."""
    return Attempt(server, UNKNOWN_STATUS, Reason.UNKNOWN, text, ends=True)


def order_is_fixed(groups: Sequence[Sequence[object]], limit: int) -> bool:
    """Whether there is nothing to shuffle and nobody to leave out."""
    return (not limit or len(groups) <= limit) and all(len(group) == 1 for group in groups)


def in_order(attempts: Iterable[Attempt], recorded: Attempt | None = None) -> Attempt:
    """What remains when servers are tried in this order: as :func:`in_turn`, where that is fixed.

    The first success ends it, else the last failure recorded decides; *recorded*
    is what was before any server is tried.

    No attempt is made once one has ended it.
    """
    remaining = recorded or _NOBODY_TRIED
    for attempt in attempts:
        if attempt.ends:
            return attempt
        if attempt.status == NOTHING_RECORDED:
            remaining = replace(remaining, tls=attempt.tls)
        else:
            remaining = attempt
    return remaining


def in_turn(
    groups: tuple[tuple[Attempt, ...], ...], limit: int, recorded: Attempt | None = None
) -> tuple[Attempt, ...]:
    """All that can remain when servers are tried in turn, those of a group in random order.

    At most *limit* servers are tried in all (0: no limit). More than one where
    their order can change what remains.
    """
    if order_is_fixed(groups, limit):
        return (in_order((attempt for (attempt,) in groups), recorded),)
    return tuple(
        outcome
        for sharing in sharings([[attempt.family for attempt in group] for group in groups], limit)
        for outcome in _outcomes(groups, sharing, recorded or _NOBODY_TRIED)
    )


def _outcomes(
    groups: tuple[tuple[Attempt, ...], ...], sharing: Sharing, recorded: Attempt
) -> list[Attempt]:
    """All that can be the last word, whatever the order within each group."""
    ended: list[Attempt] = []
    remaining = [recorded]
    left = [share.slots for share in sharing.shares]
    first = sharing.first
    for group in groups:
        draws = []
        for number, share in enumerate(sharing.shares):
            members = [attempt for attempt in group if attempt.family in share.families]
            draws.append(_Draw(members, min(left[number], len(members))))
            left[number] -= draws[-1].count
        ended += _may_end(draws, first)
        if not all(draw.may_avoid_an_end for draw in draws):
            return ended
        passed_over = [attempt for draw in draws for attempt in draw.passed_over]
        if passed_over:
            remaining = [replace(attempt, tls=passed_over[-1].tls) for attempt in remaining]
        silent = all(draw.may_be_silent for draw in draws)
        failing = _may_be_last(draws, first)
        if failing or not silent:
            remaining = (remaining if silent else []) + failing
        first = ""
    return ended + remaining


class _Draw:
    """So many of some servers are tried; which ones is random."""

    def __init__(self, members: list[Attempt], count: int) -> None:
        self.count = count
        drawn = members if count else []
        self.ending = [attempt for attempt in drawn if attempt.ends]
        self.failing = [attempt for attempt in drawn if attempt.recorded_failure]
        self.passed_over = [attempt for attempt in drawn if attempt.status == NOTHING_RECORDED]
        self.may_avoid_an_end = count <= len(self.failing) + len(self.passed_over)
        self.may_be_silent = count <= len(self.passed_over)


def _may_end(draws: list[_Draw], first: str) -> list[Attempt]:
    """The attempts that may end it: each, but behind one of family *first* that does not."""
    before = [
        attempt
        for draw in draws
        for attempt in (*draw.failing, *draw.passed_over)
        if attempt.family == first
    ]
    return [
        attempt
        for draw in draws
        for attempt in draw.ending
        if not first or attempt.family == first or before
    ]


def _may_be_last(draws: list[_Draw], first: str) -> list[Attempt]:
    """The failures that may be the last one recorded where nothing ends it.

    The only one of family *first* is tried before all others: they have to be
    passed over then.
    """
    last: list[Attempt] = []
    for draw in draws:
        any_order = draw.count > 1 or all(
            other.may_be_silent for other in draws if other is not draw
        )
        last += [attempt for attempt in draw.failing if any_order or attempt.family != first]
    return last


_NOBODY_TRIED = Attempt(
    None,
    status.NO_SERVER_LEFT,
    Reason.MX_NOT_IN_MTA_STS_POLICY,
    "no server of the domain is in its MTA-STS policy",
)


# ---------------------------------------------------------------- broken sessions


IN_CLEAR = frozenset(
    {ProbeStage.NOT_PROBED, ProbeStage.CONNECT, ProbeStage.BANNER, ProbeStage.EHLO}
)
"""Stages that every delivery passes, whatever it wants of TLS."""


def session_failure(server: Server, stages: frozenset[ProbeStage]) -> Attempt | None:
    """The attempt that ends because the session broke at one of *stages*; None where it did not.

    A delivery that does not want TLS never comes to the stages after EHLO, and
    one that verifies certificates gives up before the EHLO inside TLS: so each
    is asked for in its turn. The handshake itself is for the profile to judge.
    """
    probe = server.probe
    if probe.stage not in stages:
        return None
    match probe.stage:
        case ProbeStage.NOT_PROBED:
            return unknown(server, f"{server.name} has not been probed")
        case ProbeStage.CONNECT if probe.failure is ProbeFailure.FORBIDDEN:
            return unknown(server, f"{server.name} may not be probed: probe.allow_networks")
        case ProbeStage.CONNECT:
            return Attempt(
                server,
                status.CONNECT_FAILURE,
                Reason.UNREACHABLE,
                f"no connection to {server.name}: {_failure(probe)}",
            )
        case _ if probe.failure is ProbeFailure.LIMIT:
            return unknown(server, f"{server.name} says too much at {probe.stage}: {probe.error}")
        case _ if probe.reply is not None:
            return _refused_by_reply(server, probe.reply, probe.stage)
        case _:
            return Attempt(
                server,
                status.LOST_CONNECTION,
                Reason.UNREACHABLE,
                f"lost connection with {server.name} at {probe.stage}: {_failure(probe)}",
            )


def _failure(probe: ProbeEvidence) -> str:
    return probe.error or str(probe.failure)


def _refused_by_reply(server: Server, reply: Reply, stage: ProbeStage) -> Attempt:
    """A server's own reply that is no 2xx: its code, a 5xx greeting taken for temporary.

    smtp_skip_5xx_greeting: a 5xx greeting is another server's chance. What is
    neither 4xx nor 5xx breaks the protocol, and ends the delivery.
    """
    code = reply_status(reply)
    if stage is ProbeStage.BANNER and reply.code // 100 == 5:
        code = "4" + code[1:]
    return Attempt(
        server,
        code,
        Reason.SERVER_REJECTS,
        f"{server.name} refused to talk: {reply.code} {reply.text}",
        ends=code.startswith("5"),
    )


def reply_status(reply: Reply) -> str:
    """The enhanced status code of a refusal, or x.0.0 by the class of its code.

    What is no refusal is a protocol error where it ends a session: never a success.
    """
    klass = reply.code // 100
    if klass not in (4, 5):
        return status.PROTOCOL_ERROR
    enhanced = reply.enhanced
    same_class = status.is_enhanced(enhanced) and enhanced.startswith(f"{klass}.")
    return enhanced if same_class else f"{klass}.0.0"
