"""Whether the configuration file still says what is in force, for ``config_file_differs``.

The values are compared, not the text: a comment changes nothing. A key that takes effect only at a
restart makes a difference until then, and a file with mistakes differs from whatever is in force.
"""

from __future__ import annotations

from pathlib import Path

from requiretls_milter import config as configuration
from requiretls_milter.config import Config, ConfigError


class ConfigFile:
    """Watches the file, which is read only when it has changed.

    Args:
        path: the file; None for the usual place.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[object, Config] | None = None
        self.differs = False
        """Whether the file says something else than what is in force, as of the last look."""
        self.usable = True
        """Whether the file could be used then."""

    def look(self, in_force: Config) -> bool:
        """Compare again, if the file or what is in force has changed; say whether the answer has.

        Args:
            in_force: the configuration of the running service.
        """
        mark = self._mark()
        if self._seen is not None and mark == self._seen[0] and in_force is self._seen[1]:
            return False
        self._seen = mark, in_force
        before = self.differs, self.usable
        try:
            self.differs, self.usable = configuration.load(self._path) != in_force, True
        except ConfigError:
            self.differs, self.usable = True, False
        return (self.differs, self.usable) != before

    def _mark(self) -> object:
        """What changes whenever the file does; None if it cannot be found."""
        try:
            found = (self._path or configuration.DEFAULT_PATH).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
