"""A process that serves the real libmilter, with a forecast source that plays a script.

Started by the tests as a program: libmilter can be run once in a process, and
callbacks that kill one must not take the tests along. The script comes as JSON
on the command line; what was counted and logged goes to files.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn

import milter as libmilter

from requiretls_milter import config
from requiretls_milter.ipc.unixsocket import SocketError
from requiretls_milter.milter import adapter, serving, transaction
from requiretls_milter.milter.listener import Listener
from requiretls_milter.model import (
    Forecast,
    Outcome,
    Question,
    Reason,
    unknown_forecast,
)
from requiretls_milter.telemetry import log
from requiretls_milter.telemetry.counting import Counters


def forecast(
    status: str, reason: str, *, mx: str = "", compliant: bool | None = None, **more: Any
) -> Forecast:
    outcome = {"2": Outcome.DELIVER, "4": Outcome.DEFER, "5": Outcome.BOUNCE}.get(
        status[0], Outcome.UNKNOWN
    )
    return Forecast(status, outcome, Reason(reason), mx=mx, compliant=compliant, **more)


class ScriptedSource:
    """Answers by next hop.

    A script's value is a forecast's arguments, with ``after``: seconds until
    the answer (without it the answer is known already), or ``"never"``; or a word:
    ``raise`` (ask fails), ``exit`` (SystemExit), ``fail`` (the future has an exception).
    """

    def __init__(self, script: dict[str, Any], asked: Path) -> None:
        self._script = script
        self._asked = asked
        self._lock = threading.Lock()

    def ask(self, question: Question) -> Forecast | Future[Forecast]:
        with self._lock, self._asked.open("a") as lines:
            print(
                f"{os.getpid()} {question.nexthop} {question.transport} "
                f"{question.asked} {question.carried}",
                file=lines,
            )
        answer = self._script.get(question.nexthop, self._script.get("*"))
        if answer == "raise":
            raise RuntimeError("the source fails")
        if answer == "exit":
            raise SystemExit(3)
        if answer is None:
            return unknown_forecast("not in the script")
        future: Future[Forecast] = Future()
        if answer == "fail":
            future.set_exception(RuntimeError("the assessment fails"))
            return future
        arguments = dict(answer)
        after = arguments.pop("after", 0)
        result = forecast(**arguments)
        if not after:
            return result
        if after != "never":
            threading.Timer(after, future.set_result, (result,)).start()
        return future


def report(counters: Counters, directory: Path) -> None:
    """Write what was counted, and what is under way; each file appears whole."""
    totals = counters.totals()
    lines = [f"{name}{{{','.join(labels)}}} {value:g}" for name, labels, value in totals.counters]
    lines += [f"{name}_count {sum(counts)}" for name, counts, _ in totals.histograms]
    state = f"{serving.transactions_in_progress()} {serving.longest_callback():.3f}"
    for name, text in (("totals", "\n".join(lines)), ("state", state)):
        draft = directory / f"draft.{os.getpid()}"
        draft.write_text(text)
        draft.replace(directory / f"{name}.{os.getpid()}")


def serve(
    settings: config.Config, script: dict[str, Any], directory: Path, listener: Listener
) -> NoReturn:
    """Serve until SIGTERM; ends as a worker does, with the process and all that is open."""
    counters = Counters([*settings.rules.recipient, *settings.rules.nexthop])
    source = ScriptedSource(script, directory / "asked")
    context = serving.WorkerContext(settings, source, counters, "host.example.net")
    thread = threading.Thread(target=adapter.serve, args=(context,), daemon=True)
    thread.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGUSR1, lambda *_: listener.stop_accepting())
    reload = directory / "reload.toml"

    def take_new(*_: object) -> None:
        context.config = config.parse(reload.read_bytes(), "reload.toml")

    signal.signal(signal.SIGHUP, take_new)
    report(counters, directory)
    (directory / f"ready.{os.getpid()}").write_text("")
    while not stopping.wait(0.02) and thread.is_alive():
        report(counters, directory)
    report(counters, directory)
    os._exit(0)


def main() -> int:
    directory = Path(sys.argv[1])
    settings = config.parse((directory / "config.toml").read_bytes(), "config.toml")
    script = json.loads((directory / "script.json").read_text())
    log.configure(settings.log.format, settings.log.level)
    sabotage = script.pop("sabotage", "")
    if sabotage:
        _sabotage(sabotage)
    if script.pop("watch_socket", False):
        _watch_socket(settings.milter.socket.path, directory / "steps")
    try:
        listener = adapter.listen(settings.milter)
    except SocketError as error:
        print(error, file=sys.stderr)
        return 2
    workers = script.pop("workers", 1)
    if workers == 1:
        serve(settings, script, directory, listener)
    children = []
    for _ in range(workers):
        child = os.fork()
        if child == 0:
            serve(settings, script, directory, listener)
        children.append(child)

    def pass_on(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    for child in children:
        while True:
            try:
                os.waitpid(child, 0)
                break
            except InterruptedError:
                continue
    return 0


def _watch_socket(path: str, steps: Path) -> None:
    """Note mode and group of the socket as libmilter makes it, and after each change of them."""

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            result = function(*arguments)
            status = os.stat(path)
            with steps.open("a") as lines:
                print(f"{stat.S_IMODE(status.st_mode):o} {status.st_gid}", file=lines)
            return result

        return step

    for module, name in ((libmilter, "opensocket"), (os, "chmod"), (os, "chown")):
        setattr(module, name, noting(getattr(module, name)))


def _sabotage(what: str) -> None:
    """Make a part of the program fail as a mistake of ours would."""

    def broken(*_: object, **__: object) -> Any:
        raise SystemExit(7)

    setattr(transaction.Transaction, what, broken)


if __name__ == "__main__":
    sys.exit(main())
