"""How often recipients were put off because their route is another one (``rules.on_mixed``).

A mail server that is answered 452 brings the recipient in its next transaction, in which it comes
first and is accepted. A client that always sends the whole message again, with the same recipients
in the same order, would never get through: after :data:`MAX_TIMES` it is believed to be one, and
the message passes with a mixed route.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from requiretls_milter.bounded import BoundedMap
from requiretls_milter.clocks import SYSTEM_CLOCKS

MAX_TIMES = 3
"""How often a recipient of the same message is put off by one worker. With the workers together it
is still less often than a mail server tries within an hour or two."""

MAX_KEPT = 10_000
"""Recipients that are remembered. One that is forgotten too early is put off a few times more."""

LIFE = 86_400.0
"""Seconds after which a recipient is put off anew: the client may have been repaired."""


class PutOff:
    """Remembers the recipients that were put off; safe to use from any thread.

    Args:
        monotonic: a clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = SYSTEM_CLOCKS.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._times: BoundedMap[int, tuple[int, float]] = BoundedMap(MAX_KEPT)

    def once_more(self, *what: str | bytes) -> bool:
        """Note that a recipient is to be put off; False if that was done too often.

        Args:
            what: the client, its message and the recipient. It is kept as a number only.
        """
        key = hash(what)
        now = self._monotonic()
        with self._lock:
            times, since = self._times.get(key) or (0, now)
            if now - since >= LIFE:
                times, since = 0, now
            if times >= MAX_TIMES:
                return False
            self._times.put(key, (times + 1, since))
        return True
