"""The configuration: read once, validated whole, frozen.

:func:`load` reads the file; :class:`Config` and its sections are the schema,
whose field descriptions are the reference manual (docs/configuration.md).
"""

from requiretls_milter.config.loading import DEFAULT_PATH, load, parse, read, warnings
from requiretls_milter.config.mistakes import ConfigError
from requiretls_milter.config.schema import (
    Config,
    Dns,
    Engine,
    Limits,
    Log,
    LogFormat,
    LogLevel,
    Metrics,
    Milter,
    Mta,
    PlainMail,
    Probe,
    Rules,
    RuleTable,
    Store,
    TransportOverrides,
)

__all__ = [
    "DEFAULT_PATH",
    "Config",
    "ConfigError",
    "Dns",
    "Engine",
    "Limits",
    "Log",
    "LogFormat",
    "LogLevel",
    "Metrics",
    "Milter",
    "Mta",
    "PlainMail",
    "Probe",
    "RuleTable",
    "Rules",
    "Store",
    "TransportOverrides",
    "load",
    "parse",
    "read",
    "warnings",
]
