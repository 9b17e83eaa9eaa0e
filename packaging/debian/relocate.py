"""Make a virtual environment that was filled in one place ready for another, and leave no trace.

usage: relocate.py ROOT HOME    the environment is ROOT/HOME, and will be HOME
"""

from __future__ import annotations

import sys
from pathlib import Path

UNWANTED = ("direct_url.json", "REQUESTED")
"""What pip notes of an installation: it holds the path of the build."""


def relocate(root: Path, home: str) -> None:
    """Take *root* off every path in the environment, and remove what only pip needs."""
    environment = root / home.lstrip("/")
    for script in (environment / "bin").iterdir():
        if script.is_symlink() or script.name.lower().startswith("activate"):
            continue
        text = script.read_bytes()
        script.write_bytes(text.replace(str(environment).encode(), home.encode()))
    for script in (environment / "bin").glob("[Aa]ctivate*"):
        script.unlink()
    settings = environment / "pyvenv.cfg"
    kept = [line for line in settings.read_text().splitlines() if not line.startswith("command")]
    settings.write_text("\n".join(kept) + "\n")
    for record in environment.glob("lib/python3.*/site-packages/*.dist-info/RECORD"):
        rows = record.read_text(encoding="utf-8").splitlines()
        rows = [row for row in rows if not _is_left_out(row)]
        record.write_text("\n".join(rows) + "\n", encoding="utf-8")
        for name in UNWANTED:
            (record.parent / name).unlink(missing_ok=True)


def _is_left_out(row: str) -> bool:
    """Whether a file of RECORD was changed or moved: a digest that is wrong helps nobody."""
    path = row.split(",")[0]
    return path.startswith("../") or path.rpartition("/")[2] in UNWANTED


if __name__ == "__main__":
    relocate(Path(sys.argv[1]), sys.argv[2])
