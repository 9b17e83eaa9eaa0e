"""How many workers there are unless the configuration says it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from requiretls_milter.service.cores import FEWEST, MOST, usable_cores, usual_workers

OWN = "/system.slice/requiretls-milter.service"


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


def cores(tmp_path: Path, own: str, files: dict[str, str]) -> float:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    return usable_cores(tmp_path, tmp_path / "own")


@pytest.mark.parametrize(
    ("number", "workers"), [(0.5, FEWEST), (1, 2), (1.2, 3), (2, 4), (4, 8), (64, MOST)]
)
def test_there_are_two_workers_for_each_core_between_two_and_eight(
    number: float, workers: int
) -> None:
    assert usual_workers(number) == workers


def test_the_affinity_counts_if_there_is_no_quota(tmp_path: Path) -> None:
    assert cores(tmp_path, f"0::{OWN}\n", {f"{OWN[1:]}/cpu.max": "max 100000\n"}) == 4
    assert cores(tmp_path, "0::/\n", {}) == 4
    assert usable_cores(tmp_path, tmp_path / "there is no /proc") == 4


def test_the_quota_of_the_own_group_counts(tmp_path: Path) -> None:
    assert cores(tmp_path, f"0::{OWN}\n", {f"{OWN[1:]}/cpu.max": "150000 100000\n"}) == 1.5


def test_the_quota_of_a_group_around_it_counts_as_well(tmp_path: Path) -> None:
    files = {f"{OWN[1:]}/cpu.max": "300000 100000\n", "system.slice/cpu.max": "100000 100000\n"}
    assert cores(tmp_path, f"0::{OWN}\n", files) == 1


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": "50000 100000\n"}) == 0.5


def test_a_quota_beyond_the_affinity_changes_nothing(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": "1600000 100000\n"}) == 4


@pytest.mark.parametrize(("quota", "found"), [("200000\n", 2), ("-1\n", 4)])
def test_control_groups_of_version_1_have_quotas_too(
    tmp_path: Path, quota: str, found: float
) -> None:
    own = f"4:memory:/elsewhere\n3:cpu,cpuacct:{OWN}\n0::/\n"
    directory = f"cpu,cpuacct{OWN}"
    files = {f"{directory}/cpu.cfs_quota_us": quota, f"{directory}/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, own, files) == found
