"""/healthz says how the service is: whether the MTA is served, and what is wrong."""

from __future__ import annotations

import os
import signal
import urllib.error
from collections.abc import Callable

from tests.service.test_socket_files import another_program
from tests.support.service import Service
from tests.support.waiting import eventually

Make = Callable[..., Service]


def health(service: Service) -> tuple[int, str]:
    """Status and text of /healthz; 0 if nothing answers."""
    try:
        return 200, service.http("/healthz").rstrip("\n")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().rstrip("\n")
    except OSError:
        return 0, ""


def test_a_whole_service_is_ok_as_soon_as_it_is_ready(make: Make) -> None:
    service = make().start()
    assert health(service) == (200, "ok")


def test_while_a_worker_hangs_it_is_degraded_and_while_all_do_it_has_failed(make: Make) -> None:
    service = make().start()
    workers = ["worker-1", "worker-2"]
    for name in workers:
        os.kill(service.children[name], signal.SIGSTOP)
        if name == workers[0]:
            eventually(lambda: health(service) == (200, "degraded: worker-1 is not ready"))
    both = (503, "failed: worker-1 is not ready, worker-2 is not ready")
    eventually(lambda: health(service) == both)
    for name in workers:
        os.kill(service.children[name], signal.SIGCONT)
    eventually(lambda: health(service) == (200, "ok"))


def test_a_worker_that_is_replaced_is_told_of_until_it_is_ready(make: Make) -> None:
    service = make(limits={"service.restarts.FIRST_BACKOFF": 1.0}).start()
    pid = service.kill("worker-2")
    eventually(lambda: health(service) == (200, "degraded: worker-2 is not ready"))
    service.replaced("worker-2", pid)
    eventually(lambda: health(service) == (200, "ok"))


def test_without_its_socket_the_service_has_failed(make: Make) -> None:
    service = make().start()
    with another_program(service.socket_path):
        lost = (503, "failed: the milter's socket is not in its place")
        eventually(lambda: health(service) == lost)
    eventually(lambda: health(service) == (200, "ok"))


def test_a_service_that_stops_has_failed_for_those_who_look(make: Make) -> None:
    service = make().start()
    with service.client() as client:
        client.mail("<alice@example.net>", "REQUIRETLS")
        client.rcpt("<bob@example.org>")
        service.send_signal(signal.SIGTERM)
        eventually(lambda: health(service) == (503, "failed: the service is stopping"))
        client.eoh()
        assert client.eom().passed
    assert service.wait() == 0


def test_an_engine_that_comes_back_knows_how_the_service_is(make: Make) -> None:
    service = make().start()
    os.kill(service.children["worker-1"], signal.SIGSTOP)
    eventually(lambda: health(service)[1] == "degraded: worker-1 is not ready")
    pid = service.kill("engine")
    eventually(lambda: service.children.get("engine", pid) != pid)
    eventually(lambda: health(service) == (200, "degraded: worker-1 is not ready"))
    os.kill(service.children["worker-1"], signal.SIGCONT)
    eventually(lambda: health(service) == (200, "ok"))
