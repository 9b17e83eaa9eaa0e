"""What is deployed: one version of each package, known by its digest, and it runs."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.support.internet import Internet, loopback_internet
from tests.support.paths import REPOSITORY
from tests.support.service import Service

pytestmark = [pytest.mark.xdist_group("lock"), pytest.mark.once, pytest.mark.timeout(300)]

LOCKED_FOR = ("CPython", "3.11", "x86_64")
"""As the files' first lines say."""

NO_INDEX = re.compile(
    "No matching distribution|Could not find a version|Max retries exceeded|"
    "NewConnectionError|Temporary failure in name resolution"
)
"""What pip says where no package can be had; that a digest is wrong is another matter."""

README_COMMANDS = (
    "pip install --require-hashes --no-deps -r requirements-build.lock",
    "pip install --require-hashes --no-deps --no-build-isolation -r requirements.lock",
    "pip install --no-deps --no-index --no-build-isolation .",
)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def locked(file: str) -> dict[str, tuple[int, ...]]:
    """Versions by package; each is there once, with its digest."""
    found = {}
    first, *lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
    assert f"for {LOCKED_FOR[0]} {LOCKED_FOR[1]} on {LOCKED_FOR[2]}:" in first
    for line in lines:
        if line.startswith("#"):
            continue
        package = re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        assert package is not None, line
        assert canonical(package[1]) not in found, line
        found[canonical(package[1])] = numbers(package[2])
    return found


def test_every_dependency_is_locked_to_one_version_and_its_digest() -> None:
    pyproject = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    for file, wanted in (
        ("requirements.lock", project["dependencies"]),
        ("requirements.lock", project["optional-dependencies"]["redis"]),
        ("requirements.lock", project["optional-dependencies"]["report"]),
        ("requirements-build.lock", pyproject["build-system"]["requires"]),
    ):
        versions = locked(file)
        for requirement in wanted:
            name, least, *_ = re.split(r">=|,|;", requirement)
            assert versions[canonical(name)] >= numbers(least), requirement


@pytest.mark.parametrize("page", ["README.md", "docs/security.md"])
def test_the_pages_tell_how_to_install_just_that(page: str) -> None:
    told = re.findall(r"bin/(pip install .*)", (REPOSITORY / page).read_text(encoding="utf-8"))
    assert tuple(told) == README_COMMANDS


# ---------------------------------------------------------------- installed


def pip(venv: Path, command: str) -> None:
    """Run what README says, in a directory that holds what a release does."""
    done = subprocess.run(
        [venv / "bin" / "pip", "--quiet", *command.split()[1:]],
        cwd=venv.parent / "release",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and NO_INDEX.search(done.stderr):
        unavailable(LabUnavailable(f"packages cannot be had: {done.stderr[-300:]}"))
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of nothing but what is locked, and this package."""
    here = (
        platform.python_implementation(),
        "{}.{}".format(*platform.python_version_tuple()),
        platform.machine(),
    )
    if here != LOCKED_FOR:
        pytest.skip(f"the lock is for {LOCKED_FOR}, this is {here}")
    directory = tmp_path_factory.mktemp("deployed")
    release = directory / "release"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, release / name)
    venv = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    for command in README_COMMANDS:
        pip(venv, command)
    return venv


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with loopback_internet(tmp_path_factory.mktemp("world")) as one:
        yield one


def test_nothing_else_is_installed_and_nothing_is_missing(installed: Path) -> None:
    listed = subprocess.run(
        [installed / "bin" / "pip", "list", "--format=json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {canonical(one["name"]): numbers(one["version"]) for one in json.loads(listed.stdout)}
    del found["pip"], found["requiretls-milter"]
    assert found == locked("requirements.lock") | locked("requirements-build.lock")
    subprocess.run([installed / "bin" / "pip", "check"], capture_output=True, check=True)


def test_from_what_is_locked_the_service_runs_and_the_commands_work(
    installed: Path, internet: Internet
) -> None:
    program = installed / "bin" / "requiretls-milter"
    service = Service(internet.config, program=[str(program)])
    try:
        service.start()
        (tag,) = service.send("<bob@lacking.test>")
        assert "forecast=5.7.30; reason=requiretls_not_offered" in tag
        loaded = Path(f"/proc/{service.children['engine']}/maps").read_text()
        assert f"{installed}/lib" in loaded  # not what the tests themselves run with
        for arguments, status in (
            (["config", "check"], 0),
            (["check", "good.test", "--config"], 0),
            (["check", "lacking.test", "--config"], 1),
            (["report", "--format", "html", "--config"], 0),
        ):
            done = subprocess.run(
                [program, *arguments, service.config_path],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == status, done.stderr
        assert service.stop() == 0
    finally:
        service.destroy()
