"""The seam between receiving mail and assessing next hops: how a worker gets its forecasts."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from requiretls_milter.model import Forecast, Question


class ForecastSource(Protocol):
    """Answers questions about next hops; safe to use from any thread.

    Implementations: the engine over its socket (:mod:`requiretls_milter.ipc.client`),
    and scripted answers in tests.
    """

    def ask(self, question: Question) -> Forecast | Future[Forecast]:
        """Take a forecast that is known already, or start an assessment.

        Returns at once. The future yields a forecast and never an exception: if the
        engine is gone or too slow, the forecast is unknown.
        """
        ...
