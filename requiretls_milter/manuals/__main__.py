"""``python -m requiretls_milter.manuals DIRECTORY DATE``: write manual pages and completions."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.manuals.completion import completions
from requiretls_milter.manuals.pages import pages


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.argument("date")
def main(directory: Path, date: str) -> None:
    """Write them below DIRECTORY; DATE is that of the release (ISO 8601)."""
    files = {f"man/{name}": text for name, text in pages(date).items()}
    files |= {f"completion/{name}": text for name, text in completions().items()}
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
