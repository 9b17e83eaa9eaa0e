"""The program on the command line, as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from tests.support.paths import REPOSITORY

PROGRAM = (sys.executable, "-m", "requiretls_milter")


@dataclass(frozen=True)
class Done:
    """What a command ended with."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def start(*arguments: str) -> asyncio.subprocess.Process:
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    return await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env=environment,
    )


async def command(*arguments: str) -> Done:
    """Run the program as a user would."""
    process = await start(*arguments)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())
