"""What a host can do to the service: shortages, endless signals, memory that may not execute."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from requiretls_milter.engine.outage import MIN_FAILED
from tests.service.conftest import QUIET
from tests.support.dnsserver import failure
from tests.support.internet import Internet, loopback_internet
from tests.support.milterclient import MilterClient
from tests.support.processes import alive
from tests.support.service import MACROS, Service
from tests.support.waiting import eventually

Make = Callable[..., Service]

PR_SET_MDWE = 65
"""prctl(2), since Linux 6.3: what MemoryDenyWriteExecute= wants, by the kernel's own hand."""

UNDER_MDWE = f"""
import ctypes, os, sys
assert ctypes.CDLL(None).prctl({PR_SET_MDWE}, 1, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""

REFUSED = 77

EXECUTABLE = f"""
import mmap, sys
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    sys.exit({REFUSED})
"""


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        yield one


def mdwe_is_there() -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if ctypes.CDLL(None).prctl(PR_SET_MDWE, 1, 0, 0, 0) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not mdwe_is_there(), reason="this kernel has no PR_SET_MDWE")
def test_the_service_runs_where_no_memory_is_both_writable_and_executable(
    make: Make, internet: Internet
) -> None:
    below = [sys.executable, "-c", UNDER_MDWE]
    proof = subprocess.run([*below, sys.executable, "-c", EXECUTABLE], check=False)
    assert proof.returncode == REFUSED
    service = make(internet.config, below=below).start()
    assert "forecast=2.0.0; reason=ok" in service.send("<bob@good.test>")[0]
    assert "forecast=5.7.30" in service.send("<bob@lacking.test>")[0]
    # It is inherited: what is told of the engine holds for the process that runs now.
    pid = service.kill("engine")
    service.replaced("engine", pid)
    eventually(lambda: "forecast=2.0.0" in service.send("<bob@good.test>")[0])


# ---------------------------------------------------------------- shortages


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_worker_out_of_descriptors_serves_the_clients_that_it_has_and_then_the_others(
    make: Make,
) -> None:
    service = make(workers=1).start()
    worker = service.children["worker-1"]
    most = descriptors(worker) + 4
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (most, hard))
    assert served_in_shortage(service)
    assert eventually(service.send, what="service after the shortage")
    assert service.children["worker-1"] == worker


def served_in_shortage(service: Service) -> int:
    """How many connections are served before one hangs, which an MTA's time-out ends.

    libmilter has it so: it neither accepts nor refuses what it cannot serve.
    """
    with ExitStack() as connections:
        served = [connections.enter_context(service.client())]
        for _ in range(20):
            try:
                client = MilterClient(str(service.socket_path), MACROS, timeout=0.5)
            except TimeoutError:
                break
            client.wait_for(30.0)  # what is served may be slow
            served.append(connections.enter_context(client))
        else:
            pytest.fail("there was no shortage")
        for client in served:
            assert passes(client)
        return len(served)


def passes(client: MilterClient) -> bool:
    outcome = client.message("<a@example.net>", ["<b@example.org>"], parameters=["REQUIRETLS"])
    return outcome.end is not None and outcome.end.passed and len(outcome.edits) == 1


def test_an_engine_out_of_descriptors_calls_nothing_secure_and_comes_back(
    make: Make, internet: Internet
) -> None:
    service = make(internet.config + "retry_after = 1\n", workers=1).start()
    engine = service.children["engine"]
    _, hard = resource.prlimit(engine, resource.RLIMIT_NOFILE)
    resource.prlimit(engine, resource.RLIMIT_NOFILE, (3, hard))
    started = time.monotonic()
    (tag,) = service.send("<bob@good.test>")
    assert time.monotonic() - started < 5
    assert re.search(r"forecast=(unknown|4\.4\.3);", tag)
    resource.prlimit(engine, resource.RLIMIT_NOFILE, (hard, hard))
    eventually(lambda: "forecast=2.0.0" in service.send("<bob@good.test>")[0])
    assert service.children["engine"] == engine


def test_a_worker_that_can_start_no_thread_goes_on(make: Make) -> None:
    service = make(workers=1).start()
    worker = service.children["worker-1"]
    before = resource.prlimit(worker, resource.RLIMIT_AS)
    status = Path(f"/proc/{worker}/status").read_text()
    size = int(re.findall(r"^VmSize:\s+(\d+) kB", status, re.M)[0]) * 1024
    # Memory for what a message takes, and not for another thread's stack of 8 MiB.
    resource.prlimit(worker, resource.RLIMIT_AS, (size + (4 << 20), before[1]))
    assert served_in_shortage(service)
    resource.prlimit(worker, resource.RLIMIT_AS, before)
    assert service.send(count=3)
    assert service.children["worker-1"] == worker


# ---------------------------------------------------------------- the world outside


def test_without_a_resolver_it_is_we_and_mail_goes_on(make: Make) -> None:
    service = make(workers=1).start()
    assert service.metric('outbound_reachable{service="dns"}') == 1
    numbers = iter(range(100))

    def one_more() -> bool:
        (tag,) = service.send(f"<bob@example-{next(numbers)}.org>")
        assert re.search(r"forecast=(unknown|4\.4\.3);", tag)
        return service.metric('outbound_reachable{service="dns"}') == 0

    eventually(one_more)
    (tag,) = service.send(f"<bob@example-{next(numbers)}.org>")
    assert "forecast=unknown; reason=unknown" in tag
    assert service.metric('outbound_reachable{service="smtp"}') == 1
    (told,) = service.events("outbound_unreachable")
    assert (told["service"], told["level"]) == ("dns", "error")


def test_dead_zones_are_no_outage_and_one_ends_without_any_mail(
    make: Make, internet: Internet
) -> None:
    config = internet.config.replace("[probe]\n", "[probe]\nretry_after = 1\n")
    often = {
        "engine.process.RECHECK_TICK": 0.05,
        "engine.cache.reachability.MIN_RECHECK_INTERVAL": 0.2,
    }
    service = make(config, limits=often, workers=1).start()
    zones = iter(f"example-{number}.org" for number in range(100))
    well = [("good.test", "MX"), ("mx.good.test", "A"), ("mx.good.test", "AAAA")]

    def reachable() -> bool:
        return service.metric('outbound_reachable{service="dns"}') == 1

    def one_more_fails() -> None:
        zone = next(zones)
        internet.dns.set(zone, "MX", failure())
        service.send(f"<bob@{zone}>")

    def times_asked() -> int:
        return sum((name, kind) in well for name, kind, _ in internet.dns.asked)

    assert "forecast=2.0.0; " in service.send("<bob@good.test>")[0]
    before = times_asked()
    for _ in range(2 * MIN_FAILED):
        one_more_fails()
    eventually(lambda: times_asked() > before)  # which it would not be by mail, for 300 s
    assert reachable()

    answers = {one: internet.dns.script[one] for one in well}
    for name, kind in well:
        internet.dns.set(name, kind, failure())

    def out() -> bool:
        one_more_fails()
        return not reachable()

    eventually(out)
    for (name, kind), answer in answers.items():
        internet.dns.set(name, kind, answer)
    eventually(reachable)
    assert len(service.events("outbound_unreachable")) == 1


# ---------------------------------------------------------------- signals


class Load:
    """Messages without a pause, from several connections at once."""

    def __init__(self, service: Service, clients: int = 4) -> None:
        self._service = service
        self.sent = 0
        self.broken: list[str] = []
        self.refused = 0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                client = self._service.client()
            except Exception:  # noqa: BLE001 - nobody is there: the MTA's own business
                self.refused += 1
                time.sleep(0.02)
                continue
            with client:
                try:
                    if not passes(client):
                        self.broken.append("not passed")
                except Exception as error:  # noqa: BLE001 - told by the test
                    self.broken.append(repr(error))
                self.sent += 1


def test_sigterm_under_load_breaks_no_message(make: Make) -> None:
    service = make().start()
    family = service.family
    with Load(service) as load:
        eventually(lambda: load.sent > 50)
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        sent = load.sent
        time.sleep(0.1)
        assert load.sent <= sent + 4, "nothing is taken any more"
    assert load.broken == []
    assert load.refused > 0
    assert service.events("connections_cut") == []
    assert not any(map(alive, family))


def test_a_storm_of_sighup_ends_with_the_last_configuration(make: Make) -> None:
    service = make().start()
    family = service.children
    with Load(service) as load:
        eventually(lambda: load.sent > 50)
        for number in range(200):
            service.configure(QUIET + f'[rules.recipient."d{number}.example"]\nmode = "monitor"\n')
            service.send_signal(signal.SIGHUP)
            time.sleep(0.005)
        service.send_signal(signal.SIGHUP)
        last = 'domain_forecasts_total{domain="d199.example"'
        eventually(lambda: service.send("<bob@d199.example>") and last in service.http())
        eventually(lambda: service.metric("config_last_reload_successful") == 1.0)
    assert load.broken == []
    assert load.refused == 0
    assert service.children == family, "nobody had to be replaced"
    assert 1 <= len(service.events("reloaded")) <= 201


def test_sigterm_behind_a_storm_of_sighup_is_not_lost(make: Make) -> None:
    """While the supervisor reads a large configuration it cannot act on any signal."""
    service = make().start()
    rules = (f'[rules.recipient."d{number}.example"]\nmode = "off"\n' for number in range(20_000))
    service.configure(QUIET + "".join(rules))
    for _ in range(700):  # a socket pair holds 278
        service.send_signal(signal.SIGHUP)
        time.sleep(0.0003)
    service.send_signal(signal.SIGTERM)
    assert service.wait() == 0
    assert [event["signal"] for event in service.events("stopping")] == ["SIGTERM"]


def test_a_storm_of_sighup_with_a_bad_file_changes_nothing(make: Make) -> None:
    service = make().start()
    family = service.children
    service.configure("[nothing]\n")
    for _ in range(100):
        service.send_signal(signal.SIGHUP)
    eventually(lambda: service.metric("config_last_reload_successful") == 0.0)
    assert service.send(count=3)
    assert service.children == family
