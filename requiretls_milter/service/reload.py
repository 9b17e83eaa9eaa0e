"""Reload: a new configuration on its way from the file to every child.

It is all or nothing, in four steps:

1. The supervisor reads and validates the file. A mistake ends the reload.
2. The engine gets the configuration, and may refuse it: only the engine finds out
   that a certificate does not fit its key, or that a trust store cannot be read.
3. When the engine has acknowledged it, the configuration is in force: a child that
   is started from now on begins with it. It goes to all workers.
4. When every child has acknowledged it, the reload is done.

A child that does not answer in time is stuck and is killed. A worker that takes its
place begins with the new configuration; an engine that dies before step 3 is taken
to have died of it, and the old configuration stays.

SIGHUPs that come meanwhile become one more reload afterwards.

Log lines, with keys that stay as they are: ``event=reloaded`` and
``event=reload_failed`` (with ``generation``, the one in force),
``event=reload_mistake``, ``event=config_warning``, ``event=needs_restart``,
``event=rules_suspended`` and ``event=rules_resumed``.

``rules.suspended`` is set by a command in the same way: a copy of the configuration in force goes
to every child. The next reload takes what the file says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from requiretls_milter import config as configuration
from requiretls_milter.config import Config, ConfigError
from requiretls_milter.ipc.child import take_log_settings
from requiretls_milter.service.children import Children
from requiretls_milter.service.configfile import ConfigFile, log_warnings
from requiretls_milter.service.sdnotify import ServiceManager
from requiretls_milter.service.spawn import Child
from requiretls_milter.telemetry import log

RELOAD_TIMEOUT = 15.0
"""Seconds for a child to acknowledge a configuration; it is killed after that."""

_log = log.get_logger("supervisor")


@dataclass(slots=True)
class _Unacknowledged:
    """A configuration that not every child has acknowledged.

    Attributes:
        deadline: when a child that has not answered is killed, on the monotonic clock.
        in_force: whether the engine has accepted it.
    """

    config: Config
    generation: int
    deadline: float
    in_force: bool = False


class Reloader:
    """The configuration in force, and how it is replaced by a new one.

    Args:
        path: the file; None for the usual place, or all defaults.
        config: what was read from it at the start.
        children: to be kept up to date.
        notifier: to tell systemd of a reload.
        kill: ends a child, for a reason.
        changed: called when :meth:`gauges` have new values.
    """

    def __init__(
        self,
        path: Path | None,
        config: Config,
        children: Children,
        notifier: ServiceManager,
        *,
        kill: Callable[[Child, str], None],
        changed: Callable[[], None],
    ) -> None:
        self.config = config
        self.generation = 1
        """The number of the configuration in force."""
        self._path = path
        self._children = children
        self._notifier = notifier
        self._kill = kill
        self._changed = changed
        self._last_generation = 1
        self._requested = False
        self._suspension: bool | None = None
        self._pending: _Unacknowledged | None = None
        self._succeeded = True
        self._succeeded_at = time.time()
        self._in_force_since = self._succeeded_at
        self._digests = config.digests()
        self._suspended = config.rules.suspended  # as all children know it
        self._file = ConfigFile(path)

    def request(self) -> None:
        """Read the file again, as soon as that is possible."""
        self._requested = True

    def suspend(self, suspended: bool) -> None:
        """Suspend the rules, or end that, as soon as possible and until the next reload."""
        self._suspension = suspended

    def gauges(self) -> Mapping[str, float]:
        """How the last reload went and whether another is due, for the engine to show."""
        return {
            "config_file_differs": float(self._file.differs),
            "rules_suspended": float(self.config.rules.suspended),
            "config_last_reload_successful": float(self._succeeded),
            "config_last_reload_success_timestamp_seconds": self._succeeded_at,
        }

    def shown(self) -> Mapping[str, Any]:
        """The configuration in force and how the last reload went; see ``wire.ServiceStatus``."""
        return {
            "config_path": str((self._path or configuration.DEFAULT_PATH).absolute()),
            "config_since": self._in_force_since,
            "config_digests": self._digests,
            "generation": self.generation,
            "reload_succeeded": self._succeeded,
            "suspended": self._suspended,
            "file_usable": self._file.usable,
            "file_differs": self._file.differs,
        }

    def step(self, now: float) -> None:
        """Begin what is wanted; kill children that do not answer in time."""
        pending = self._pending
        if pending is None and not self._requested and self._file.look(self.config):
            self._changed()
        if pending is None:
            # Only when every child can answer. One that is being replaced would start with the
            # old configuration while the new one is on its way.
            if self._requested and self._children.all_ready:
                self._requested = False
                self._suspension = None  # the file says what is to be in force
                self._begin(now)
            elif self._suspension is not None and self._children.all_ready:
                suspended, self._suspension = self._suspension, None
                self._begin_suspension(suspended, now)
        elif now >= pending.deadline:
            asked = self._children.workers if pending.in_force else [self._children.engine]
            for child in asked:
                if child is not None and child.generation != pending.generation:
                    self._kill(child, f"no answer to configuration {pending.generation}")
            pending.deadline = now + RELOAD_TIMEOUT

    def _begin(self, now: float) -> None:
        self._notifier.reloading()
        try:
            config = configuration.load(self._path)
        except ConfigError as error:
            for mistake in error.mistakes:
                _log.error("reload_mistake", mistake=mistake)
            self._end(f"{len(error.mistakes)} mistakes in the configuration")
            return
        log_warnings(config)
        fixed = self.config.changes_at_restart(config)
        for key in fixed:
            _log.warning("needs_restart", key=key)
        self._begin_with(_with_old(config, self.config, fixed), now)

    def _begin_suspension(self, suspended: bool, now: float) -> None:
        """Begin with the configuration in force, but for ``rules.suspended``."""
        if self.config.rules.suspended is suspended:
            return
        self._begin_with(self.config.with_suspension(suspended), now)

    def _begin_with(self, config: Config, now: float) -> None:
        self._last_generation += 1
        self._pending = _Unacknowledged(config, self._last_generation, now + RELOAD_TIMEOUT)
        if self._children.engine is not None:
            self._hand_over(self._children.engine, self._pending)

    def _hand_over(self, child: Child, pending: _Unacknowledged) -> None:
        child.send(
            "config",
            generation=pending.generation,
            config=pending.config.model_dump(mode="json"),
        )

    def acknowledged(self, child: Child, generation: int, error: str) -> None:
        """Take a child's answer to a configuration; ``error`` is "" if it has taken it."""
        pending = self._pending
        if pending is None or generation != pending.generation:
            return
        if error:
            self._end(f"{child.name}: {error}")
            return
        child.generation = generation
        if not pending.in_force:
            pending.in_force = True
            was_suspended = self.config.rules.suspended
            self.config, self.generation = pending.config, generation
            self._in_force_since, self._digests = time.time(), pending.config.digests()
            self._log_suspension(was_suspended)
            take_log_settings(pending.config)
            for worker in self._children.workers:
                self._hand_over(worker, pending)
        self.settle()

    def _log_suspension(self, was_suspended: bool) -> None:
        """Log at each new configuration that its rules are suspended, and once that they act."""
        if self.config.rules.suspended:
            text = "no rule defers or refuses any mail, whatever its mode"
            _log.warning("rules_suspended", generation=self.generation, text=text)
        elif was_suspended:
            text = "rules defer and refuse mail again"
            _log.warning("rules_resumed", generation=self.generation, text=text)

    def settle(self) -> None:
        """End the reload if every child has the new configuration."""
        if self._pending is None or not self._pending.in_force or not self._children.all_ready:
            return
        if all(child.generation == self.generation for child in self._children):
            self._end("")

    def engine_died(self) -> None:
        """Give up a configuration that the engine has not accepted."""
        if self._pending is not None and not self._pending.in_force:
            self._end("the engine died while it took the new configuration")

    def _end(self, error: str) -> None:
        self._pending = None
        self._succeeded = not error
        self._suspended = self.config.rules.suspended
        if error:
            _log.error("reload_failed", error=error, generation=self.generation)
        else:
            self._succeeded_at = time.time()
            _log.info("reloaded", generation=self.generation)
        self._changed()
        failure = f"reload failed: {error}; " if error else ""
        self._notifier.ready(failure + self.status())

    def status(self) -> str:
        """The line that ``systemctl status`` shows."""
        return f"{self._children.summary()}, configuration {self.generation}"


def _with_old(new: Config, old: Config, keys: tuple[str, ...]) -> Config:
    """``new`` with the values that ``old`` has for the dotted ``keys``."""
    sections: dict[str, dict[str, Any]] = {}
    for dotted in keys:
        section, _, key = dotted.partition(".")
        sections.setdefault(section, {})[key] = getattr(getattr(old, section), key)
    return new.model_copy(
        update={
            section: getattr(new, section).model_copy(update=values)
            for section, values in sections.items()
        }
    )
