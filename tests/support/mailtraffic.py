"""Mail as milter and Postfix log it, with what a comparison of the two has to find.

What is expected is known from how a message is made, not from any reading of its lines.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

MILTER, POSTFIX = "milter", "postfix"
"""The two logs."""

UNDER_WAY = 40
"""Messages whose lines alternate."""


@dataclass
class Expected:
    """What the comparison finds."""

    results: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    different: set[str] = field(default_factory=set)
    """Queue IDs."""
    lines: int = 0


Line = tuple[str, str]
"""The log, and what is logged."""

_SENT = "250 2.0.0 Ok: queued as 9F"
_NO_USER = "host mx1[192.0.2.1] said: 550 5.1.1 no (in reply to RCPT TO command)"


class Traffic:
    """So many recipients of messages with one recipient each.

    Args:
        recipients: how many have a forecast.
        seed: of the choices.
        start: the time of the first line, in seconds since the epoch.
    """

    def __init__(self, recipients: int, seed: int, start: float) -> None:
        self.expected = Expected()
        self._left = recipients
        self._number = 0
        self._chance = random.Random(seed)  # noqa: S311 - mail, not a secret
        self._now = start

    def lines(self) -> Iterator[Line]:
        """The lines of both logs, in the order in which they are written."""
        under_way: list[list[Line]] = []
        while self._left or under_way:
            if self._left and len(under_way) < UNDER_WAY:
                under_way.append(self._message())
            one = self._chance.choice(under_way)
            log, text = one.pop(0)
            if not one:
                under_way.remove(one)
            self._now += 0.003
            self.expected.lines += 1
            yield log, self._dated(log, text)

    def _dated(self, log: str, text: str) -> str:
        time = datetime.fromtimestamp(self._now, UTC).isoformat()
        if log == MILTER:
            return f"timestamp={time.replace('+00:00', 'Z')} level=info {text}\n"
        return f"{time} mx postfix/{text}\n"

    def _message(self) -> list[Line]:
        self._number += 1
        n, chance = self._number, self._chance
        queue_id = f"4dBGw{n:06X}z1Kb".replace("A", "v").replace("E", "w")
        to = f"user{n % 97}@partner.example"
        lines: list[Line] = [(POSTFIX, f"smtpd[9]: {queue_id}: client=c[198.51.100.7]")]

        def forecast(status: str, reason: str, tls: str = "", action: str = "accept") -> None:
            self._left -= action == "accept" and reason != "local"
            lines.append(
                (
                    MILTER,
                    f"event=recipient component=milter.account queue_id={queue_id} "
                    f"sender=<s@own.example> to=<{to}> requirement=requiretls "
                    f"nexthop=partner.example forecast={status} reason={reason} tls={tls} "
                    f"action={action} "
                    f'text="mx1 said: \\"{queue_id}: to=<{to}>, dsn=9\\""',
                )
            )

        def attempt(status: str, said: str = _SENT, tls: str = "", behind: str = "") -> None:
            word = {"2": "sent", "4": "deferred", "5": "bounced"}[status[0]]
            relay = "127.0.0.1[127.0.0.1]:10025" if "queued as F" in said else "mx1[192.0.2.1]:25"
            token = f"tls={tls}, " if tls else ""
            lines.append(
                (
                    POSTFIX,
                    f"smtp[7]: {behind or queue_id}: to=<{to}>, relay={relay}, delay=0.1, "
                    f"delays=0/0/0/0.1, {token}dsn={status}, status={word} ({said})",
                )
            )

        def counts(result: str, reason: str = "") -> None:
            self.expected.results[result] += 1
            if result == "different":
                self.expected.reasons[reason] += 1
                self.expected.different.add(queue_id)

        match chance.choices(range(12), (20, 30, 10, 8, 1, 1, 1, 3, 3, 3, 6, 4))[0]:
            case 0:  # asks for nothing
                attempt("2.0.0")
            case 1:
                forecast("2.0.0", "ok", "dane/requiretls")
                attempt("2.0.0", tls="dane/requiretls")
                counts("equal")
            case 2:
                forecast("5.7.30", "requiretls_not_offered")
                attempt("5.7.30", "REQUIRETLS is not offered")
                counts("equal")
            case 3:  # is tried again
                forecast("4.4.1", "unreachable")
                attempt("4.4.1", "connect to mx1[192.0.2.1]:25: Connection refused")
                attempt("2.0.0")
                counts("equal")
            case 4:
                forecast("2.0.0", "ok")
                attempt("4.4.1", "connect to mx1[192.0.2.1]:25: Connection refused")
                attempt("2.0.0")
                counts("different", "ok")
            case 5:
                forecast("5.7.30", "requiretls_not_offered")
                attempt("2.0.0")
                counts("different", "requiretls_not_offered")
            case 6:
                forecast("2.0.0", "ok", "dane/requiretls")
                attempt("2.0.0", tls="may:none")
                counts("different", "ok")
            case 7:
                forecast("2.0.0", "ok")
                attempt("5.1.1", _NO_USER)
                counts("later")
            case 8:
                forecast("unknown", "unknown")
                attempt("2.0.0")
                counts("unknown")
            case 9:
                forecast("2.0.0", "ok")
                counts("waiting")
            case 10:  # through a content filter
                behind = f"F{n:010X}"
                forecast("5.7.30", "requiretls_not_offered")
                lines.append((POSTFIX, f"smtpd[8]: {behind}: client=localhost[127.0.0.1]"))
                attempt("2.0.0", f"250 2.0.0 from MTA: 250 2.0.0 Ok: queued as {behind}")
                attempt("5.7.30", "REQUIRETLS is not offered", behind=behind)
                lines.append((POSTFIX, f"qmgr[5]: {behind}: removed"))
                counts("equal")
            case _:  # refused, or local
                reason, action = chance.choice((("unreachable", "defer"), ("local", "accept")))
                forecast("2.0.0", reason, action=action)
                attempt("2.0.0")
        if not chance.randrange(10):
            lines.insert(0, (POSTFIX, f"smtpd[9]: warning: {queue_id}: \x1b\udcff to=<{to}>"))
        lines.append((POSTFIX, f"qmgr[5]: {queue_id}: removed"))
        return lines
