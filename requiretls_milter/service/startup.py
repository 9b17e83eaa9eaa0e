"""The start of the service: from a command line to a supervisor that has all it needs.

Started by root with the name of a user, the process makes what only root can make and becomes that
user (:mod:`.privileges`). The configuration is then read again: what the user cannot read would
fail only at the first reload.

Log lines, with keys that stay as they are: ``event=cannot_start``, ``event=config_invalid``,
``event=config_warning``, ``event=runs_as_root``, ``event=syslog_missing``.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from requiretls_milter import config as configuration
from requiretls_milter.config import Config, ConfigError
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.ipc.child import EXIT_FAILURE, SUPERVISOR, take_log_settings
from requiretls_milter.ipc.unixsocket import SocketError
from requiretls_milter.milter import adapter
from requiretls_milter.milter.listener import Listener
from requiretls_milter.service.configfile import log_warnings
from requiretls_milter.service.lockfile import LockFile
from requiretls_milter.service.logfile import LogFile, LogFileError
from requiretls_milter.service.privileges import AS_ROOT, UMASK, Identity, PrivilegeError
from requiretls_milter.service.sdnotify import ServiceManager
from requiretls_milter.service.supervisor import Supervisor
from requiretls_milter.service.title import name_process
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.syslog import Syslog

EXIT_USAGE = 2
"""Exit status of a configuration or command line that cannot be used.

The unit does not restart after it.
"""

_log = log.get_logger("supervisor")


@dataclass(frozen=True, slots=True)
class RunAs:
    """As whom the service runs, and where its log goes.

    Attributes:
        user: to become; "" to stay the user that started it.
        group: of that user; "" for the user's own.
        log_file: absolute; "" for standard error.
        syslog: the facility; "" for standard error.
    """

    user: str = ""
    group: str = ""
    log_file: str = ""
    syslog: str = ""


class StartupError(RequiretlsMilterError):
    """The command line cannot be followed on this host; the text says why. Exit status 2."""


def run(config_path: Path | None, run_as: RunAs) -> int:
    """Run the service until it is told to stop; returns the exit status.

    To be called in a process without threads.

    Args:
        config_path: the configuration; None for the usual place, or all defaults.
        run_as: user and log.

    Raises:
        StartupError: nothing was started.
    """
    log.set_process(SUPERVISOR)
    log.configure()
    try:
        with contextlib.ExitStack() as cleanup:
            return _Start(config_path, run_as, cleanup).run()
    except (PrivilegeError, LogFileError) as error:
        raise StartupError(str(error)) from error
    finally:
        log.last_words()


class _Start:
    def __init__(
        self, config_path: Path | None, run_as: RunAs, cleanup: contextlib.ExitStack
    ) -> None:
        self._config_path = config_path
        self._run_as = run_as
        self._cleanup = cleanup
        self._terminal: int | None = None
        self._listener: Listener | None = None

    def run(self) -> int:
        user, group = self._run_as.user, self._run_as.group
        identity = Identity.find(user, group) if user else None
        if identity is not None and not identity.is_ours:
            config = self._load()
            if config is None:
                return EXIT_USAGE
            identity.make_directories(config, self._run_as.log_file)
            if config.milter.socket.family != "unix":  # the port may be one that only root opens
                self._listener = self._listen(config)
                if self._listener is None:
                    return EXIT_FAILURE
            identity.become()
        log_file = self._open_log()
        config = self._load()
        if config is None:
            return EXIT_USAGE
        self._warn(config)
        os.umask(UMASK)
        name_process(SUPERVISOR)
        try:
            lock = self._cleanup.enter_context(contextlib.closing(LockFile(config.engine.socket)))
        except (OSError, SocketError) as error:
            self._refuse("cannot_start", error=str(error))
            return EXIT_FAILURE
        listener = self._listener or self._listen(config)
        if listener is None:
            return EXIT_FAILURE
        supervisor = Supervisor(
            self._config_path, config, ServiceManager(), listener, lock, log_file
        )
        self._leave_terminal()
        if self._run_as.syslog:
            _let_go_of_terminal()
        return supervisor.run()

    def _load(self) -> Config | None:
        try:
            config = configuration.load(self._config_path)
        except ConfigError as error:
            for mistake in error.mistakes:
                self._refuse("config_invalid", mistake=mistake)
            return None
        take_log_settings(config)
        return config

    def _listen(self, config: Config) -> Listener | None:
        try:
            return adapter.listen(config.milter)
        except (OSError, SocketError) as error:
            self._refuse("cannot_start", error=str(error))
            return None

    def _warn(self, config: Config) -> None:
        log_warnings(config)
        if os.geteuid() == 0:
            self._say("warning", "runs_as_root", text=AS_ROOT)

    # ------------------------------------------------------------ the log

    def _open_log(self) -> LogFile | None:
        """Turn the log to where it was told; until the service starts, errors come here as well."""
        run_as, file, problem = self._run_as, None, ""
        if run_as.log_file or run_as.syslog:
            self._terminal = os.dup(log.STDERR)
            self._cleanup.callback(self._leave_terminal)
        if run_as.log_file:
            file = LogFile(run_as.log_file)
        if run_as.syslog:
            daemon = Syslog(run_as.syslog)
            problem = daemon.problem()
            log.to_syslog(daemon)
            log.configure()
        log.write_at_turns()
        if problem:
            self._say("warning", "syslog_missing", error=problem)
        return file

    def _leave_terminal(self) -> None:
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def _refuse(self, event: str, **values: str) -> None:
        self._say("error", event, **values)

    def _say(self, level: str, event: str, **values: str) -> None:
        """Log what whoever starts the service should see, and show it if the log is elsewhere."""
        getattr(_log, level)(event, **values)
        if self._terminal is not None:
            text = f"{level}: {event}: {' '.join(values.values())}"
            with contextlib.suppress(OSError):  # nobody looks
                os.write(self._terminal, f"{log.loggable(text)}\n".encode())


def _let_go_of_terminal() -> None:
    """Whoever starts the service in the background may go; what is printed comes to the log."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, log.STDERR)
    os.close(nowhere)
