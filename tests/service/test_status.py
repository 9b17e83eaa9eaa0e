"""``status``, ``suspend`` and ``resume`` with a running service."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.internet import Internet, loopback_internet
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]

REJECT = '[rules.recipient."lacking.test"]\nmode = "reject"\n'


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        yield one


def status(service: Service) -> tuple[int, dict[str, Any]]:
    done = service.command("status", "--format", "json")
    return done.returncode, json.loads(done.stdout)


def refused(service: Service) -> bool:
    with service.client() as client:
        outcome = client.message("<a@example.net>", ["<b@lacking.test>"], parameters=["REQUIRETLS"])
    return outcome.end is None


def test_all_that_refuses_mail_is_switched_off_and_on_again(make: Make, internet: Internet) -> None:
    service = make(internet.config + REJECT).start()
    eventually(lambda: refused(service), what="the forecast is known, and it refuses")
    done = service.command("suspend")
    assert done.returncode == 0, done
    assert not refused(service)
    assert service.metric("rules_suspended") == 1
    code, shown = status(service)
    assert (code, shown["state"], shown["rules_suspended"]) == (1, "degraded", True)
    assert len(service.events("rules_suspended")) == 1
    assert service.command("suspend").stdout == "rules are suspended already\n"
    findings = json.loads(service.command("doctor", "--format", "json").stdout)
    checks = [one["check"] for one in findings]
    assert "rules_suspended" in checks
    assert "config_differs" not in checks, "the file says what it said"

    assert service.command("resume").returncode == 0
    eventually(lambda: refused(service), what="it refuses again")

    service.command("suspend")
    service.send_signal(signal.SIGHUP)
    eventually(lambda: len(service.events("rules_resumed")) == 2, what="the reload")
    eventually(lambda: refused(service), what="the file is in force")


def test_a_worker_that_is_replaced_knows_that_rules_are_suspended(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config + REJECT, workers=1).start()
    eventually(lambda: refused(service))
    service.command("suspend")
    os.kill(service.events("ready")[-1]["pid"], signal.SIGKILL)
    eventually(lambda: len(service.events("died")) == 1)
    eventually(lambda: status(service)[1].get("state") == "degraded" and not refused(service))


def test_the_service_is_shown_with_its_domains_and_whether_its_file_differs(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config + REJECT, workers=1).start()
    eventually(lambda: status(service)[1]["domains"], what="the domain is assessed")
    code, shown = status(service)
    assert (code, shown["state"], shown["problems"]) == (0, "well", [])
    (domain,) = shown["domains"]
    assert (domain["domain"], domain["ready"], domain["status"]) == (
        "lacking.test",
        False,
        "5.7.30",
    )
    processes = {one["name"]: one for one in shown["processes"]}
    assert set(processes) == {"supervisor", "engine", "worker-1"}
    assert all(one["pid"] and one["ready"] for one in processes.values())

    service.configure(internet.config)
    config = status(service)[1]["config"]
    assert config["differs_in"] == ["rules"]
    text = service.command("status").stdout
    assert "the file differs in [rules] from what is in force" in text
    findings = json.loads(service.command("doctor", "--format", "json").stdout)
    (found,) = [one for one in findings if one["check"] == "config_differs"]
    assert "[rules]" in found["found"]

    service.config_path.write_text(service.config_path.read_text() + "[nonsense]\n")
    code, shown = status(service)
    assert code == 1
    assert shown["config"]["mistakes"]


def test_mistakes_in_the_file_keep_nobody_from_suspending_the_rules(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config + REJECT, workers=1).start()
    eventually(lambda: refused(service), what="the forecast is known, and it refuses")
    good = service.config_path.read_text()
    service.config_path.write_text(f"{good}mode = 'x'\n[nonsense]\n")
    done = service.command("suspend")
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "rules are suspended")
    assert done.stderr.startswith("warning: ")
    assert not refused(service)
    assert service.command("resume").returncode == 0
    eventually(lambda: refused(service), what="it refuses again")


@pytest.mark.parametrize("command", ["status", "suspend", "resume"])
def test_without_a_service_the_status_is_2(make: Make, command: str) -> None:
    done = make().command(command)
    assert done.returncode == 2
    assert "no service answers on" in done.stderr
    assert done.stderr.endswith("write suspended = true into [rules]\n") is (command == "suspend")
