"""Our own log, among the lines of others; what strangers wrote stands in it too."""

from __future__ import annotations

import io

from requiretls_milter.config import Config
from requiretls_milter.reports import audit, would_have
from requiretls_milter.reports.logs import lines
from requiretls_milter.reports.logs.events import event_of
from requiretls_milter.reports.logs.times import Times
from requiretls_milter.rules import RuleSet

_LATEST = 1_800_000_000.0
_RULES = RuleSet(
    Config.model_validate(
        {"rules": {"recipient": {"example.org": {"mode": "defer"}}, "enforce_for": "all"}}
    ).rules
)


def log_lines(data: bytes) -> None:
    """Lines of a log."""
    found = list(lines.lines(io.BytesIO(data)))
    assert all(len(line.text) <= lines.MAX_LINE for line in found)
    times = Times(_LATEST)
    events = [event for line in found if (event := event_of(line, times)) is not None]
    seen = list(would_have.read(events))
    assert len(seen) <= len(events) <= len(found)
    audited = audit.audit(events)
    assert audited.results.total() <= len(events)
    for verdict in would_have.replay(seen, _RULES):
        assert verdict.deferred + verdict.refused <= len(seen)
        assert sum(hits.deferred for hits in verdict.domains.values()) == verdict.deferred
        assert sum(hits.refused for hits in verdict.domains.values()) == verdict.refused
