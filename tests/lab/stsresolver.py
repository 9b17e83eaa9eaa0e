"""postfix-mta-sts-resolver, the policy service that most sites run beside their Postfix."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

from tests.lab import netns, roots, runs
from tests.lab.lab import write_once
from tests.lab.postfix import RESOLV_CONF
from tests.lab.processes import Server, accepts

_SETTINGS = """\
host: 127.0.0.1
port: {port}
cache_grace: 0
cache:
  type: internal
default_zone:
  strict_testing: false
  timeout: 4
"""


class StsResolver:
    """``with StsResolver(port, ca_file):`` answers at that port of the loopback."""

    def __init__(self, port: int, ca_file: Path) -> None:
        """*ca_file* has those whom its HTTPS trusts.

        Raises:
            LabUnavailable: its root cannot be made.
        """
        with netns.outside():
            self._root = roots.ensure(roots.MTA_STS_RESOLVER)
        self._port = port
        self._ca_file = ca_file

    @property
    def pid(self) -> int:
        """Of the process that keeps the daemon."""
        return self._server.pid

    def __enter__(self) -> StsResolver:
        """Start it; return when it accepts connections."""
        write_once(self._root / "etc/resolv.conf", RESOLV_CONF)
        self._run = runs.make(self._root)
        shutil.copyfile(self._ca_file, self._run.outside / "ca.pem")
        (self._run.outside / "settings.yml").write_text(_SETTINGS.format(port=self._port))
        self._server = Server(
            "mta-sts-daemon",
            ["/usr/bin/mta-sts-daemon", "-c", f"{self._run.inside}/settings.yml"],
            log=self._run.outside / "log",
            root=self._root,
            environment={
                "PATH": os.environ.get("PATH", os.defpath),
                "SSL_CERT_FILE": f"{self._run.inside}/ca.pem",
            },
        )
        self._server.wait_until(lambda: accepts("127.0.0.1", self._port), "accepting lookups")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it and remove its files."""
        self._server.stop()
        self._run.remove()
