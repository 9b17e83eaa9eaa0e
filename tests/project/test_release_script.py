"""scripts/release-version: a number and a date, in all places that have them, or in none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

OLD = """\
# Changelog

## [Unreleased]

### Added

- Something.

## [0.1.0] - 2026-11-28

The first version.

[Unreleased]: ../../compare/v0.1.0...HEAD
[0.1.0]: ../../releases/tag/v0.1.0
"""

NEW = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-24

### Added

- Something.

## [0.1.0] - 2026-11-28

The first version.

[Unreleased]: ../../compare/v0.2.0...HEAD
[0.2.0]: ../../releases/tag/v0.2.0
[0.1.0]: ../../releases/tag/v0.1.0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("scripts", "requiretls_milter", "docs/captures"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(REPOSITORY / "scripts/release-version", tmp_path / "scripts")
    (tmp_path / "requiretls_milter/__init__.py").write_text('"""One."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(OLD)
    page = "requiretls-milter 0.1.0, up 3 d\nlines of 0.1.0\nrequiretls-milter 0.1.01\n"
    (tmp_path / "docs/status.md").write_text(page)
    (tmp_path / "docs/captures/a.svg").write_text(
        "requiretls-milter&#160;0.1.0, version&#160;0.1.0)"
    )
    return tmp_path


def release(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = project / "scripts/release-version"
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)


def contents(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): path.read_text() for path in project.rglob("*.*")}


def test_it_is_written_into_all_places(project: Path) -> None:
    done = release(project, "0.2.0", "2026-12-24")
    assert (done.returncode, done.stderr) == (0, "")
    found = contents(project)
    assert found["requiretls_milter/__init__.py"].endswith('\n__version__ = "0.2.0"\n')
    assert found["CHANGELOG.md"] == NEW
    assert found["docs/status.md"] == (
        "requiretls-milter 0.2.0, up 3 d\nlines of 0.1.0\nrequiretls-milter 0.1.01\n"
    )
    assert found["docs/captures/a.svg"] == "requiretls-milter&#160;0.2.0, version&#160;0.2.0)"
    assert set(done.stdout.splitlines()) == set(found)


def test_a_version_in_development_becomes_the_release(project: Path) -> None:
    (project / "requiretls_milter/__init__.py").write_text('__version__ = "0.2.0.dev0"\n')
    assert release(project, "0.2.0", "2026-12-24").returncode == 0
    assert (project / "CHANGELOG.md").read_text() == NEW


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("0.1.0",), 1, "0.1.0 is not later than 0.1.0"),
        (("0.0.9",), 1, "0.0.9 is not later than 0.1.0"),
        (("0.2",), 1, "0.2 is no version of the form X.Y.Z"),
        (("0.2.0", "tomorrow"), 2, "Invalid isoformat string: 'tomorrow'"),
        ((), 2, "usage: scripts/release-version X.Y.Z"),
    ],
)
def test_what_cannot_be_released_changes_nothing(
    project: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    before = contents(project)
    done = release(project, *arguments)
    assert done.returncode == status
    assert said in done.stderr
    assert contents(project) == before


def test_a_release_of_nothing_is_none(project: Path) -> None:
    (project / "CHANGELOG.md").write_text(OLD.replace("### Added\n\n- Something.\n\n", ""))
    done = release(project, "0.2.0")
    assert (done.returncode, done.stderr) == (1, "release-version: nothing is unreleased\n")


def test_this_project_can_be_released(tmp_path: Path) -> None:
    """Its own files have the form that the script looks for."""
    for name in ("scripts/release-version", "requiretls_milter/__init__.py", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    done = release(tmp_path, "99.0.0")
    assert done.returncode == 0 or "nothing is unreleased" in done.stderr
