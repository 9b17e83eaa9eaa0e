"""A full disk: below standard error, for the sockets at the start, for the engine's later on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.support.service import Service
from tests.support.stores import Disk
from tests.support.waiting import eventually

Make = Callable[..., Service]


def placed(service: Service, disk: Disk, *, milter: bool = True) -> Service:
    """A service whose sockets are on the disk: the engine's, and the milter's if so wanted."""
    paths = {"engine": service.engine_path, "milter": service.socket_path}
    text = service.config_path.read_text()
    for name, path in paths.items():
        if name == "engine" or milter:
            text = text.replace(str(path), str(disk.path / path.name))
    service.config_path.write_text(text)
    if milter:
        service.socket_path = disk.path / service.socket_path.name
    return service


def test_with_a_log_for_which_there_is_no_room_all_goes_on(make: Make) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        service = make(workers=1, stderr=full).start()
        assert len(service.send(count=50)) == 50
        eventually(lambda: service.metric("log_lines_dropped_total") > 0, what="lines are counted")
        pid = service.kill("engine")
        eventually(lambda: service.children.get("engine", pid) != pid, what="another engine")
        assert len(service.send(count=10)) == 10
        assert service.stop() == 0
    finally:
        os.close(full)


@pytest.mark.parametrize("milter", [True, False], ids=["both sockets", "the engine's socket"])
def test_a_service_that_has_no_room_for_its_sockets_says_so_and_ends(
    make: Make, disk: Disk, milter: bool
) -> None:
    disk.use_up_inodes()
    service = placed(make(workers=1), disk, milter=milter).start(ready=False)
    assert service.wait() == 1
    (told,) = service.events("cannot_start")
    assert "No space left on device" in told["error"]
    assert str(disk.path) in told["error"]


def test_an_engine_without_room_for_its_socket_is_tried_again_and_mail_goes_on(
    make: Make, disk: Disk
) -> None:
    """Six attempts that fail would else be a crash loop, which ends the service."""
    service = placed(make(workers=1), disk).start()
    engine = disk.path / service.engine_path.name
    service.send_signal(signal.SIGSTOP)
    try:
        service.kill("engine")
        eventually(lambda: not service.children.get("engine"), what="the engine's end")
        engine.unlink()
        disk.use_up_inodes()
    finally:
        service.send_signal(signal.SIGCONT)
    eventually(lambda: len(service.events("engine_cannot_start")) >= 6, what="attempts", wait=30)
    (tag,) = service.send()
    assert "forecast=unknown" in tag
    assert service.poll() is None
    assert "No space left on device" in service.events("engine_cannot_start")[0]["error"]
    assert service.events("crash_loop") == []
    disk.free_inodes()
    eventually(lambda: service.metric('process_restarts_total{process="engine"}') >= 6, wait=30)
    assert os.path.exists(engine)
