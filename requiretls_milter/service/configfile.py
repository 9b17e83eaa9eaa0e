"""The service's configuration file: what to warn of, and whether it still says what is in force.

For ``config_file_differs`` the values are compared, not the text: a comment changes nothing.
Included files and lists of domains are part of it. A key that takes effect only at a restart makes
a difference until then, and a file with mistakes differs from whatever is in force.
"""

from __future__ import annotations

from pathlib import Path

from requiretls_milter import config as configuration
from requiretls_milter.config import Config, ConfigError
from requiretls_milter.config.reading import Watched
from requiretls_milter.telemetry import log

_log = log.get_logger("supervisor")


def log_warnings(config: Config) -> None:
    """Log what is allowed in a configuration, but probably not meant, or dangerous."""
    for warning in (*configuration.warnings(config), *configuration.exposures(config)):
        _log.warning("config_warning", text=warning)


class ConfigFile:
    """Watches the files, which are read only when one of them has changed.

    Args:
        path: the main file; None for the usual place.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[Watched, Config] | None = None
        self.differs = False
        """Whether the files say something else than what is in force, as of the last look."""
        self.usable = True
        """Whether they could be used then."""

    def look(self, in_force: Config) -> bool:
        """Compare again, if a file or what is in force has changed; say whether the answer has.

        Args:
            in_force: the configuration of the running service.
        """
        if (
            self._seen is not None
            and in_force is self._seen[1]
            and not self._seen[0].have_changed()
        ):
            return False
        before = self.differs, self.usable
        try:
            found = configuration.load(self._path)
        except ConfigError as error:
            watched, self.differs, self.usable = error.watched, True, False
        else:
            watched, self.differs, self.usable = found.origin.watched, found != in_force, True
        self._seen = watched, in_force
        return (self.differs, self.usable) != before
