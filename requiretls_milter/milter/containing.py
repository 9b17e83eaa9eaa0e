"""What becomes of an exception in a callback: it is counted and logged, and goes no further.

An exception that left a callback would be pymilter's to answer. Log line: ``event=callback_failed``
(a fault of this program, with ``stage``).
"""

from __future__ import annotations

import contextlib

from requiretls_milter.milter.serving import current
from requiretls_milter.telemetry.labels import Stage
from requiretls_milter.telemetry.log import get_logger

_log = get_logger("milter.adapter")


def count_failure(stage: Stage) -> None:
    """Count and log the exception that is being handled."""
    with contextlib.suppress(BaseException):
        serving = current()
        if serving is not None:
            serving.context.counters.inc("callback_errors_total", (stage,))
    with contextlib.suppress(BaseException):
        _log.exception("callback_failed", stage=stage)


class Apart:
    """Contains the exceptions of a part of a callback whose failure must not change the answer."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        if kind is not None:
            count_failure(self._stage)
        return True
