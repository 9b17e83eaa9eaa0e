"""The manual pages and completions: fresh, complete, and without a complaint of two formatters."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from requiretls_milter.config import Config
from requiretls_milter.manuals.completion import completions
from requiretls_milter.manuals.pages import pages
from requiretls_milter.manuals.roff import ManPage, prose
from requiretls_milter.telemetry.catalogue import AUDIT_METRICS, METRICS
from tests.support.changelog import released
from tests.support.paths import REPOSITORY

PACKAGING = REPOSITORY / "packaging"

PAGES = sorted((PACKAGING / "man").iterdir())


def needs(program: str) -> None:
    """Skip without a program of the system; in continuous integration that is a failure."""
    if shutil.which(program) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")


def test_pages_and_completions_are_fresh() -> None:
    """``make docs`` writes them."""
    made = {f"man/{name}": text for name, text in pages(released()).items()}
    made |= {f"completion/{name}": text for name, text in completions().items()}
    there = {
        str(path.relative_to(PACKAGING)): path.read_text(encoding="utf-8")
        for folder in ("man", "completion")
        for path in (PACKAGING / folder).rglob("*")
        if path.is_file()
    }
    assert there == made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_complain_of(page: Path) -> None:
    needs("mandoc")
    run = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("", "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_has_nothing_to_warn_of(page: Path) -> None:
    needs("groff")
    run = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""},
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_every_key_and_every_metric_has_its_entry() -> None:
    made = pages("2026-01-01")
    keys = [
        key
        for section in Config().model_dump(mode="json").values()
        if isinstance(section, dict)
        for key in section
    ]
    for key in keys:
        assert key in made["requiretls-milter.toml.5"]
    for name in (*METRICS, *AUDIT_METRICS):
        assert f"\\fB{name}\\fR" in made["requiretls-milter-metrics.7"]


def test_no_text_becomes_a_request_of_the_formatter() -> None:
    assert prose(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert prose("a\\n[x] `--format`") == "a\\en[x] \\fB\\-\\-format\\fR"
    folded = prose("word " * 15 + "'quoted at the beginning of a line' and more")
    assert "\n\\&'quoted" in folded
    page = ManPage("x", 1, date="2026-01-01", source="x 1", title="T", about="x")
    page.example([".so /etc/passwd"])
    assert "\n\\&.so /etc/passwd\n" in page.text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_read_its_script(shell: str) -> None:
    (script,) = (PACKAGING / "completion" / shell).iterdir()
    needs(shell)
    run = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
