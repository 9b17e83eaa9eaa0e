"""Our own log, among the lines of others; what strangers wrote stands in it too."""

from __future__ import annotations

from requiretls_milter.config import Config
from requiretls_milter.reports import audit, would_have
from requiretls_milter.rules import RuleSet
from tests.fuzz import inputs

_RULES = RuleSet(
    Config.model_validate(
        {"rules": {"recipient": {"example.org": {"mode": "defer"}}, "enforce_for": "all"}}
    ).rules
)


def log_lines(data: bytes) -> None:
    """Lines of a log."""
    lines = inputs.text(data).split("\n")
    seen = list(would_have.read(lines))
    assert len(seen) <= len(lines)
    audited = audit.audit(lines)
    assert audited.results.total() + audited.waiting <= len(lines)
    for verdict in would_have.replay(seen, _RULES):
        assert verdict.deferred + verdict.refused <= len(seen)
        assert sum(hits.deferred for hits in verdict.domains.values()) == verdict.deferred
        assert sum(hits.refused for hits in verdict.domains.values()) == verdict.refused
