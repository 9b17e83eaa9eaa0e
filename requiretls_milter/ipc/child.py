"""What both kinds of children are given by the supervisor, and what they tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from requiretls_milter.config import Config
from requiretls_milter.ipc.control import Channel
from requiretls_milter.telemetry import log

HEARTBEAT = 1.0
"""Seconds between two signs of life."""

ENGINE = "engine"
"""The engine's name; workers are called ``worker-1`` and so on."""

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_ORPHAN = 3
"""Exit status of a child whose supervisor is gone; nobody is left to read it but a human."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a child's life begins.

    ``incarnation`` grows from one life to the next, over all children.
    ``generation`` is that of the configuration.
    """

    name: str
    config: Config
    generation: int
    incarnation: int
    channel: Channel


def read_config(message: Mapping[str, Any]) -> tuple[Config, int]:
    """The configuration that a ``config`` message brings, and its generation."""
    return Config.model_validate(message["config"]), int(message["generation"])


def take_log_settings(config: Config) -> None:
    """Log as a configuration says."""
    log.configure(config.log.format, config.log.level)
