"""The seam between receiving and assessing: where a forecast comes from."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from requiretls_milter.model import Forecast, Question


class ForecastSource(Protocol):
    """Answers questions about next hops; used from any thread.

    Implementations: the engine over its socket (:mod:`engine.client`), and the
    assessor within the process (``check``, tests).
    """

    def ask(self, question: Question) -> Future[Forecast]:
        """Start an assessment, or find that one is known already.

        Returns at once. The future yields a forecast and never an exception:
        where the engine is gone or too slow it yields an ``unknown`` one.
        """
        ...
