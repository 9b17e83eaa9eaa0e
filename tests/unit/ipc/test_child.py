"""The names of the service's processes."""

from __future__ import annotations

import pytest

from requiretls_milter.ipc.child import ENGINE, SUPERVISOR, is_worker, worker_name


@pytest.mark.parametrize("number", [1, 2, 64])
def test_a_worker_is_known_by_its_name(number: int) -> None:
    assert is_worker(worker_name(number))


@pytest.mark.parametrize("name", [SUPERVISOR, ENGINE, "worker", ""])
def test_no_other_process_is_taken_for_a_worker(name: str) -> None:
    assert not is_worker(name)
