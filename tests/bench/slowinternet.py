"""The internet of row ``tarpits``, in a process of its own.

    python -m tests.bench.slowinternet DIRECTORY SECONDS

It takes SECONDS for each answer of what is healthy, and prints the engine's configuration and the
port of policy hosts as JSON, on one line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.support.tarpits import SlowInternet


async def _serve(directory: Path, latency: float) -> None:
    async with SlowInternet(directory, latency) as internet:
        print(json.dumps([internet.config(), internet.policy_port]), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), float(sys.argv[2])))
