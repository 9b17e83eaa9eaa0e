"""What a Redis may say, and what an operator may write of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from redis import exceptions

from requiretls_milter.engine.downgrades import decode_history
from requiretls_milter.engine.records import RecordError
from requiretls_milter.engine.turns import spending
from requiretls_milter.evidence.budgets import MAX_DEBTS, ROUNDING, Budget, Debt, Ledger
from requiretls_milter.store.base import (
    CLOCK_SKEW,
    MAX_VALUE,
    StoreDataError,
    StoreKind,
)
from requiretls_milter.store.rediswire import MAX_ITEMS, MAX_REPLY, BoundedParser, RecordCodec
from requiretls_milter.syntax.endpoint import EndpointError, parse_store_url
from requiretls_milter.syntax.secrecy import MASK
from requiretls_milter.telemetry.labels import Bound
from tests.fuzz import expect, inputs

_LOOP = asyncio.new_event_loop()

_NOW = 1.8e9

MAX_ERROR = 600
"""Characters of what is said of a bad URL."""

_NO_REPLY = (exceptions.RedisError, OSError, ValueError, TypeError, EOFError, RecursionError)
"""What the store takes for a failure of Redis."""


def redis_reply(data: bytes) -> None:
    """A stream of replies: each is a value of bounded size, or ends the connection."""
    _LOOP.run_until_complete(_read_all(data))


async def _read_all(data: bytes) -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    parser = BoundedParser(socket_read_size=65_536)
    parser.on_connect(SimpleNamespace(_reader=stream, encoder=None))  # type: ignore[no-untyped-call]
    while True:
        parser.renew()
        try:
            reply = await parser.read_response(disable_decoding=True)
        except _NO_REPLY:
            return
        items, octets = _size(reply)
        assert items <= MAX_ITEMS
        assert octets <= min(MAX_REPLY, len(data))


def _size(reply: Any) -> tuple[int, int]:
    if isinstance(reply, list):
        sizes = [_size(item) for item in reply]
        return 1 + sum(items for items, _ in sizes), sum(octets for _, octets in sizes)
    return 1, len(reply) if isinstance(reply, bytes) else 0


def redis_record(data: bytes) -> None:
    """A string that a Redis has under one of our keys, with a secret of the fleet and without."""
    for codec in (RecordCodec(), RecordCodec(b"s" * 32)):
        try:
            record = codec.decode(StoreKind.PROBE, "key", data)
        except StoreDataError as error:
            expect.one_line(str(error), MAX_ERROR)
            continue
        if record is None:
            continue
        assert len(record.value) <= MAX_VALUE
        again = codec.decode(StoreKind.PROBE, "key", codec.encode(StoreKind.PROBE, "key", record))
        assert again is not None
        assert again.value == record.value


def offered_record(data: bytes) -> None:
    """What a host offered, as a store gives it back: nothing in it lies ahead."""
    try:
        history = decode_history(data, _NOW)
    except RecordError:
        return
    assert 0 <= history.first_seen <= history.last_seen <= _NOW + CLOCK_SKEW
    assert 0 <= history.lost_at <= _NOW + CLOCK_SKEW


def spent_record(data: bytes) -> None:
    """What was spent of the budgets, as a store gives it back: no more than can have been."""
    try:
        kept = spending.decode(data)
    except RecordError:
        return
    ledger = Ledger([Budget(120, 60.0, Bound.ADDRESS_PER_MINUTE)])
    debts = [Debt(key, seconds) for key, seconds in kept.debts]
    ledger.restore(debts, _NOW - kept.at, 1.0)
    assert len(ledger) <= MAX_DEBTS
    (budget,) = ledger.budgets
    for debt in ledger.debts(1.0):
        assert all(0 <= seconds <= budget.longest + ROUNDING for seconds in debt.seconds)


def store_url(data: bytes) -> None:
    """``store.url``: what it is shown as reads back, and has no password."""
    text = inputs.text(data)
    try:
        url = parse_store_url(text)
    except EndpointError as error:
        expect.one_line(str(error), MAX_ERROR)
        return
    masked = parse_store_url(url.masked)
    assert masked.masked == url.masked
    assert url.has_password is (MASK in url.masked and url.kind == "redis")
    assert not (url.crosses_network_in_clear and text.startswith("rediss://"))
