"""A reload step by step, with children that answer as the test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from requiretls_milter import config as configuration
from requiretls_milter.service import reload
from requiretls_milter.service.reload import RELOAD_TIMEOUT, Reloader
from requiretls_milter.service.sdnotify import ServiceManager
from requiretls_milter.service.spawn import Child
from tests.unit.service.conftest import Family

Make = Callable[..., Family]


class Kit:
    """A reloader, its file, and what it does."""

    def __init__(self, path: Path, family: Family) -> None:
        self.path = path
        self.family = family
        self.killed: list[tuple[str, str]] = []
        self.changes = 0
        self.write("old.example")
        self.reloader = Reloader(
            path,
            configuration.load(path),
            family.children,
            ServiceManager({}),
            kill=self._kill,
            changed=self._changed,
        )

    def write(self, by: str, more: str = "") -> None:
        self.path.write_text(f'[milter]\nby = "{by}"\n{more}')

    def _kill(self, child: Child, reason: str) -> None:
        self.killed.append((child.name, reason))

    def _changed(self) -> None:
        self.changes += 1

    @property
    def by(self) -> str:
        """The value of the configuration in force."""
        return self.reloader.config.milter.by

    def begin(self, by: str = "new.example", more: str = "") -> None:
        self.write(by, more)
        self.reloader.request()
        self.reloader.step(100.0)

    def acknowledge(self, name: str, error: str = "") -> None:
        (message,) = self.family.told(name)
        assert message["op"] == "config"
        self.reloader.acknowledged(self.family[name], message["generation"], error)

    def done(self) -> bool:
        return self.reloader.gauges()["config_last_reload_successful"] == 1.0


@pytest.fixture
def kit(tmp_path: Path, family: Make, monkeypatch: pytest.MonkeyPatch) -> Kit:
    def ignore(_: Any) -> None:
        """The test's own log stays as it is."""

    monkeypatch.setattr(reload, "take_log_settings", ignore)
    return Kit(tmp_path / "config.toml", family(workers=2))


def test_a_configuration_goes_to_the_engine_first_and_then_to_the_workers(
    kit: Kit, logged: list[EventDict]
) -> None:
    kit.begin()
    assert kit.family.told("worker-1") == []
    assert (kit.by, kit.reloader.generation) == ("old.example", 1)
    kit.acknowledge("engine")
    assert (kit.by, kit.reloader.generation) == ("new.example", 2)
    kit.acknowledge("worker-1")
    assert "reloaded" not in [line["event"] for line in logged]
    kit.acknowledge("worker-2")
    assert [line["generation"] for line in logged if line["event"] == "reloaded"] == [2]
    assert kit.changes == 1


def test_what_the_engine_refuses_changes_nothing(kit: Kit, logged: list[EventDict]) -> None:
    kit.begin()
    kit.acknowledge("engine", "the key does not belong to the certificate")
    assert kit.by == "old.example"
    assert kit.family.told("worker-1") == []
    (line,) = [line for line in logged if line["event"] == "reload_failed"]
    assert line["error"] == "engine: the key does not belong to the certificate"
    assert not kit.done()


def test_a_mistake_in_the_file_never_reaches_a_child(kit: Kit, logged: list[EventDict]) -> None:
    before = kit.reloader.gauges()
    kit.begin(more="[nothing]\n")
    assert kit.family.told("engine") == []
    assert [line["event"] for line in logged] == ["reload_mistake", "reload_failed"]
    after = kit.reloader.gauges()
    assert after["config_last_reload_successful"] == 0.0
    stamp = "config_last_reload_success_timestamp_seconds"
    assert after[stamp] == before[stamp]


def test_a_reload_waits_until_all_children_are_ready(kit: Kit) -> None:
    kit.family["worker-1"].ready = False
    kit.begin()
    assert kit.family.told("engine") == []
    kit.family["worker-1"].ready = True
    kit.reloader.step(101.0)
    assert len(kit.family.told("engine")) == 1


def test_of_many_signals_while_one_reload_runs_one_more_reload_comes(kit: Kit) -> None:
    kit.begin()
    for _ in range(10):
        kit.reloader.request()
        kit.reloader.step(100.1)
    for name in ("engine", "worker-1", "worker-2"):
        kit.acknowledge(name)
    kit.write("last.example")
    kit.reloader.step(101.0)
    for name in ("engine", "worker-1", "worker-2"):
        kit.acknowledge(name)
    assert (kit.by, kit.reloader.generation) == ("last.example", 3)
    kit.reloader.step(102.0)
    assert kit.family.told("engine") == []


def test_an_engine_that_does_not_answer_is_killed_and_taken_to_have_died_of_it(
    kit: Kit, logged: list[EventDict]
) -> None:
    kit.begin()
    kit.reloader.step(100.0 + RELOAD_TIMEOUT - 0.1)
    assert kit.killed == []
    kit.reloader.step(100.0 + RELOAD_TIMEOUT)
    assert kit.killed == [("engine", "no answer to configuration 2")]
    kit.family.children.remove(kit.family["engine"])
    kit.reloader.engine_died()
    assert kit.by == "old.example"
    assert "reload_failed" in [line["event"] for line in logged]


def test_a_worker_that_does_not_answer_is_killed_and_its_successor_has_the_new_one(
    kit: Kit,
) -> None:
    kit.begin()
    kit.acknowledge("engine")
    kit.acknowledge("worker-1")
    kit.reloader.step(100.0 + RELOAD_TIMEOUT)
    assert kit.killed == [("worker-2", "no answer to configuration 2")]
    kit.family.children.remove(kit.family["worker-2"])
    kit.family.add("worker-2", kit.reloader.generation, ready=False)
    kit.reloader.settle()
    assert kit.changes == 0, "it is not ready"
    kit.family["worker-2"].ready = True
    kit.reloader.settle()
    assert kit.changes == 1


def test_an_engine_that_dies_once_the_configuration_is_in_force_ends_no_reload(kit: Kit) -> None:
    kit.begin()
    kit.acknowledge("engine")
    kit.reloader.engine_died()
    assert kit.by == "new.example"
    assert kit.changes == 0


def test_a_late_answer_to_an_earlier_configuration_is_ignored(kit: Kit) -> None:
    kit.begin()
    kit.reloader.acknowledged(kit.family["engine"], 1, "")
    assert kit.by == "old.example"


def test_what_only_takes_effect_at_a_restart_keeps_its_value_and_is_named(
    kit: Kit, logged: list[EventDict]
) -> None:
    kit.begin(more="workers = 7\n")
    kit.acknowledge("engine")
    assert kit.reloader.config.milter.workers == 0
    assert kit.by == "new.example"
    assert [line["key"] for line in logged if line["event"] == "needs_restart"] == [
        "milter.workers"
    ]


# ---------------------------------------------------------------- suspended by a command


def suspended(kit: Kit) -> tuple[bool, float, object]:
    """In force, as a gauge, and as told to a command that waits for all children."""
    reloader = kit.reloader
    shown = reloader.shown()["suspended"]
    return reloader.config.rules.suspended, reloader.gauges()["rules_suspended"], shown


def test_a_suspension_goes_to_every_child_as_a_reload_does(
    kit: Kit, logged: list[EventDict]
) -> None:
    kit.write("edited.example")  # not to be read now
    kit.reloader.suspend(True)
    kit.reloader.step(100.0)
    kit.acknowledge("engine")
    assert suspended(kit) == (True, 1.0, False)
    kit.acknowledge("worker-1")
    kit.acknowledge("worker-2")
    assert suspended(kit) == (True, 1.0, True)
    assert (kit.by, kit.reloader.generation) == ("old.example", 2)
    (line,) = [line for line in logged if line["event"] == "rules_suspended"]
    assert (line["log_level"], line["generation"]) == ("warning", 2)


def test_what_is_so_already_needs_no_new_configuration(kit: Kit) -> None:
    kit.reloader.suspend(False)
    kit.reloader.step(100.0)
    assert kit.family.told("engine") == []


def test_the_next_reload_takes_what_the_file_says(kit: Kit, logged: list[EventDict]) -> None:
    kit.reloader.suspend(True)
    kit.reloader.step(100.0)
    for name in ("engine", "worker-1", "worker-2"):
        kit.acknowledge(name)
    kit.begin()
    for name in ("engine", "worker-1", "worker-2"):
        kit.acknowledge(name)
    assert suspended(kit) == (False, 0.0, False)
    assert "rules_resumed" in [line["event"] for line in logged]


def test_a_suspension_in_the_file_is_logged_at_each_reload(
    kit: Kit, logged: list[EventDict]
) -> None:
    for _ in range(2):
        kit.begin(more="[rules]\nsuspended = true\n")
        for name in ("engine", "worker-1", "worker-2"):
            kit.acknowledge(name)
    assert [line["event"] for line in logged].count("rules_suspended") == 2


def test_what_is_shown_names_the_file_and_a_digest_of_each_section(kit: Kit) -> None:
    shown = kit.reloader.shown()
    assert shown["config_path"] == str(kit.path)
    assert shown["config_digests"] == kit.reloader.config.digests()


def test_the_status_tells_processes_and_configuration(kit: Kit) -> None:
    assert kit.reloader.status() == "3 of 3 processes ready, 0 connections, configuration 1"


def test_a_file_that_differs_from_what_is_in_force_is_shown_until_it_is_loaded(kit: Kit) -> None:
    def differs() -> bool:
        kit.reloader.step(100.0)
        return kit.reloader.gauges()["config_file_differs"] == 1.0

    assert not differs()
    kit.write("new.example")
    assert differs()
    assert kit.changes == 1
    kit.begin("new.example")
    for name in kit.family.children.names:
        kit.acknowledge(name)
    assert not differs()
