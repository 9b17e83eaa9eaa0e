"""Limiters as the engine makes them."""

from __future__ import annotations

from typing import Any

from requiretls_milter.config import Limits
from requiretls_milter.engine.turns.shares import AllShares
from requiretls_milter.evidence.turns import Limiters
from requiretls_milter.telemetry.counting import Counters


def limiters(counters: Counters | None = None, **limits: Any) -> Limiters:
    """Those of a configuration with these limits."""
    return AllShares.of(Limits(**limits), counters or Counters()).limiters()
