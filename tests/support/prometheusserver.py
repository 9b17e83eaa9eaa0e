"""A real Prometheus, from Debian's package, unpacked as the lab unpacks its servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.processes import Process, free_port
from tests.support.waiting import PATIENCE, eventually

JOB = "requiretls-milter"


def promtool(root: Path, *arguments: str | Path, text: str | None = None) -> str:
    """Run promtool; what it printed.

    Raises:
        AssertionError: it complained.
    """
    command = [root / "usr/bin/promtool", *arguments]
    run = subprocess.run(command, input=text, capture_output=True, text=True, timeout=100)
    printed = run.stdout + run.stderr
    assert run.returncode == 0, printed
    return printed


class PrometheusApi:
    """What a server on this host answers.

    Args:
        port: of loopback.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """The series that an expression has now."""
        return list(self.get("query", query=expression)["result"])

    def answers(self) -> bool:
        """Whether it does."""
        try:
            return bool(self.query("vector(1)"))
        except OSError:
            return False

    def wait_for(self, expression: str, wait: float = PATIENCE) -> list[Any]:
        """Wait until an expression has a series."""
        return list(eventually(lambda: self.query(expression), expression, wait=wait))


class PrometheusServer(PrometheusApi):
    """One server on loopback that scrapes one target each second.

    Args:
        root: with the package.
        target: address and port of the milter's metrics.
        rules: files of rules that it evaluates.
    """

    def __init__(self, root: Path, target: str, rules: Sequence[Path] = ()) -> None:
        super().__init__(free_port())
        self._root = root
        self._home = Path(tempfile.mkdtemp(prefix="prometheus-"))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": JOB, "static_configs": [{"targets": [target]}]},
            ],
        }
        # JSON is YAML as well.
        (self._home / "prometheus.yml").write_text(json.dumps(config))

    def __enter__(self) -> PrometheusServer:
        self._process = Process(
            [
                self._root / "usr/bin/prometheus",
                f"--config.file={self._home}/prometheus.yml",
                f"--storage.tsdb.path={self._home}/data",
                f"--web.listen-address=127.0.0.1:{self._port}",
                "--web.console.templates=",
                "--web.console.libraries=",
            ],
            self._home / "log",
            env={**os.environ, "GOMAXPROCS": "1"},
        )
        self._process.wait_until(self.answers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        shutil.rmtree(self._home)

    def scraped(self, times: int = 1) -> None:
        """Wait until the target was scraped this often, from now on."""
        began = time.time()

        def enough() -> bool:
            window = max(1, int(time.time() - began))
            found = self.query(f'count_over_time(up{{job="{JOB}"}}[{window}s])')
            return bool(found) and float(found[0]["value"][1]) >= times

        eventually(enough, f"{times} scrapes")
