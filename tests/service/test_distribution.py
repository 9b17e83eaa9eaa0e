"""Wheel and sdist hold everything that README and docs speak of; the bill of materials is whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

pytestmark = [pytest.mark.xdist_group("dist"), pytest.mark.once, pytest.mark.timeout(300)]

DOCUMENTS = "share/doc/requiretls-milter"

OF_THE_SOURCE = ("requiretls_milter/", "tests/", "scripts/", "packaging/", "Makefile")
"""Links to what is read in the source tree, by those who change it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    where = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--quiet"]
    command = [*build, "--outdir", str(where), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = where.glob("*.whl"), where.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def prefix(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the wheel."""
    prefix = tmp_path_factory.mktemp("prefix")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    # Without the option pip would take away what the tests themselves run with.
    elsewhere = ["--ignore-installed", f"--prefix={prefix}"]
    subprocess.run([*pip, *elsewhere, str(built[0])], check=True)
    return prefix


def links(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    return [link for link in found if not link.lstrip("./").startswith(OF_THE_SOURCE)]


def test_the_links_of_the_documents_hold_where_pip_puts_them(prefix: Path) -> None:
    documents = prefix / DOCUMENTS
    pages = [documents / "README.md", *(documents / "docs").rglob("*.md")]
    assert len(pages) > 20
    dead = [
        f"{page.name}: {link}"
        for page in pages
        for link in links(page)
        if not (page.parent / link).exists()
    ]
    assert dead == []


@pytest.mark.parametrize("folder", ["docs", "examples", "monitoring", "systemd"])
def test_each_file_of_a_folder_is_there(prefix: Path, folder: str) -> None:
    def files(below: Path) -> set[str]:
        return {str(path.relative_to(below)) for path in below.rglob("*") if path.is_file()}

    assert files(prefix / DOCUMENTS / folder) == files(REPOSITORY / folder)


def test_manual_pages_and_completions_are_where_they_are_looked_for(prefix: Path) -> None:
    assert (prefix / "share/man/man1/requiretls-milter.1").exists()
    assert (prefix / "share/man/man5/requiretls-milter.toml.5").exists()
    assert (prefix / "share/man/man7/requiretls-milter-metrics.7").exists()
    assert (prefix / "share/bash-completion/completions/requiretls-milter").exists()
    assert (prefix / "share/zsh/site-functions/_requiretls-milter").exists()
    assert (prefix / "share/fish/vendor_completions.d/requiretls-milter.fish").exists()


def test_the_sdist_is_the_whole_project(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as sdist:
        there = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert set(tracked) - there <= {".gitattributes", ".gitignore"}


def test_the_bill_of_materials_names_each_locked_package_and_its_licence() -> None:
    lock = REPOSITORY / "requirements.lock"
    script = [sys.executable, str(REPOSITORY / "scripts" / "sbom"), str(lock)]
    bill = json.loads(subprocess.run(script, capture_output=True, check=True).stdout)
    named = {(each["name"], each["version"]) for each in bill["components"]}
    assert named == set(re.findall(r"^([\w.-]+)==(\S+) ", lock.read_text("utf-8"), re.MULTILINE))
    assert all(each["licenses"] for each in bill["components"])
