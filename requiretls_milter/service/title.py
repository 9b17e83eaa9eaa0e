"""What ps(1) and top(1) show of the service's processes.

``ps`` shows the command line, which becomes ``requiretls-milter: engine``; ``top`` and ``ps -o
comm`` show a name of at most 15 characters, which is ``rtls-engine`` for a child.
"""

from __future__ import annotations

import os

from setproctitle import setproctitle, setthreadtitle

from requiretls_milter.ipc.child import SUPERVISOR

_MAX_COMM = 15
"""Characters of PR_SET_NAME of prctl(2)."""

_ONLY_ARGUMENTS = "SPT_NOENV"
"""Has the title take the place of the command line alone.

Otherwise it would overwrite the environment behind it, which is read in /proc to see how a process
was started.
"""


def name_process(name: str) -> None:
    """Name this process.

    Args:
        name: ``supervisor``, ``engine``, ``worker-1`` and so on.
    """
    os.environ[_ONLY_ARGUMENTS] = "1"
    try:
        setproctitle(f"requiretls-milter: {name.replace('-', ' ')}")
    finally:
        del os.environ[_ONLY_ARGUMENTS]
    # A title changes both.
    setthreadtitle(("requiretls-milter" if name == SUPERVISOR else f"rtls-{name}")[:_MAX_COMM])
