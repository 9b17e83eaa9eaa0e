"""What the supervisor gives to each child, a worker or the engine, and what it expects of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from requiretls_milter.config import Config
from requiretls_milter.ipc.control import Channel
from requiretls_milter.telemetry import log

HEARTBEAT = 1.0
"""Seconds between two signs of life."""

SUPERVISOR = "supervisor"
ENGINE = "engine"
"""The names of two processes; see :func:`worker_name` for the others."""

_WORKER = "worker-"

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_ORPHAN = 3
"""Exit status of a child whose supervisor is gone. No process reads it; it helps with debugging."""


def worker_name(number: int) -> str:
    """The name of a worker; they are numbered from 1 on."""
    return f"{_WORKER}{number}"


def is_worker(name: str) -> bool:
    """Whether this is the name of a worker."""
    return name.startswith(_WORKER)


@dataclass(frozen=True, slots=True)
class Start:
    """What a child starts with.

    ``incarnation`` numbers the starts of all children in order; ``generation`` is that of the
    configuration. ``workers`` is how many workers the service has.
    """

    name: str
    config: Config
    generation: int
    incarnation: int
    channel: Channel
    workers: int = 0


def read_config(message: Mapping[str, Any]) -> tuple[Config, int]:
    """Return the configuration of a ``config`` message, and its generation."""
    return Config.model_validate(message["config"]), int(message["generation"])


def take_log_settings(config: Config) -> None:
    """Log as *config* says."""
    log.configure(config.log.format, config.log.level)
