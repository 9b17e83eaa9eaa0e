"""``[log]``: how log lines are written, and which."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import BeforeValidator, Field

from requiretls_milter.config.schema.section import Section
from requiretls_milter.config.values import word


class LogFormat(enum.StrEnum):
    """How a log line is written."""

    LOGFMT = "logfmt"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """The least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Log(Section):
    """The log: on standard error, from which journald takes it, in a file or at a syslog daemon."""

    format: Annotated[LogFormat, BeforeValidator(word(LogFormat))] = Field(
        LogFormat.LOGFMT,
        description='"logfmt" (key=value, for people and grep) or "json" (one object per line).',
    )
    level: Annotated[LogLevel, BeforeValidator(word(LogLevel))] = Field(
        LogLevel.INFO,
        description=(
            'The least severity that is logged: "debug", "info", "warning" or "error". At info '
            "there is one line for each recipient of a message for which something is asked."
        ),
    )
