"""requirements.lock holds what the package asks for, one version each, with a digest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_locked_to_one_version_and_its_digest() -> None:
    locked = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        found = re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        assert found is not None, line
        assert canonical(found[1]) not in locked, line
        locked[canonical(found[1])] = tuple(map(int, re.findall(r"\d+", found[2])))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for wanted in project["dependencies"]:
        name, least = re.split(r">=", wanted)
        assert locked[canonical(name)] >= tuple(map(int, re.findall(r"\d+", least))), wanted
