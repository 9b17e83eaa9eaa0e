"""A child alone, with the test as its supervisor: ``KIND CONFIG DESCRIPTOR [LIMIT=SECONDS…]``.

Nothing here asks the kernel to kill the child with its parent, so that what is
left is the control line.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from requiretls_milter import config
from requiretls_milter.ipc.child import Start
from requiretls_milter.ipc.control import Channel
from requiretls_milter.telemetry import log


def main() -> int:
    kind, path, descriptor, *limits = sys.argv[1:]
    settings = config.load(Path(path))
    log.configure("json", "debug")
    channel = Channel(socket.socket(fileno=int(descriptor)))
    start = Start(kind, settings, 1, 7, channel)
    if kind == "engine":
        from requiretls_milter.engine import process

        return process.run(start, None)
    from requiretls_milter.milter import adapter
    from requiretls_milter.milter import process as worker

    for limit in limits:
        name, _, value = limit.partition("=")
        setattr(worker, name, float(value))
    return worker.run(start, adapter.listen(settings.milter))


if __name__ == "__main__":
    sys.exit(main())
