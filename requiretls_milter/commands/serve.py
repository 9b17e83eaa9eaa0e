"""``serve``."""

from __future__ import annotations

from pathlib import Path

import click

from requiretls_milter.commands.common import CONFIG_OPTION


@click.command()
@CONFIG_OPTION
def serve(config_path: Path | None) -> int:
    """Serve an MTA as a milter until SIGTERM.

    SIGHUP reads the configuration again; if it holds a mistake, the old one
    stays in force.
    """
    from requiretls_milter.service.supervisor import run

    return run(config_path)
