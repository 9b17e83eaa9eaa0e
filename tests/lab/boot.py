"""Boots a Debian 12 with the service's unit in a container, by systemd-nspawn.

The root is only read: what is written goes to memory.  The container has a network of its own,
and nothing of the machine's systemd takes part, which there need not be.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab import inside, roots, runs
from tests.lab.errors import LabError, LabUnavailable
from tests.support.paths import REPOSITORY
from tests.support.pki import Pki

SYSTEMD = REPOSITORY / "systemd"
DEADLINE = 240.0
"""Seconds from boot to halt."""

_HOME = "/opt/requiretls-milter"

_PROGRAM = f"""\
#!/usr/bin/python3
import sys
sys.path[:0] = ["{_HOME}/source", "{_HOME}/site-packages"]
from requiretls_milter.cli import main
main()
"""

_TRIAL = """\
[Unit]
After=network.target systemd-journald.service
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /trial/inside.py @MTA@
StandardOutput=file:/trial/output
StandardError=inherit
ExecStopPost=/usr/bin/systemctl --no-block --force exit
"""


def why_not() -> str:
    """Why no container can be booted on this machine at all; "" where it can."""
    if sys.version_info[:2] != (3, 11):
        return "Debian 12 has Python 3.11, and what is installed here is for another"
    command = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    tried = subprocess.run(command, capture_output=True, text=True)
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode != 0 else ""


_ROOTS = {"postfix": roots.SYSTEMD_POSTFIX, "sendmail": roots.SYSTEMD_SENDMAIL}


def boot(mta: str, config: str, drop_ins: Mapping[str, str]) -> dict[str, Any]:
    """Run inside.py there, with *config* and *drop_ins* of the unit by file name.

    *mta* is ``postfix`` or ``sendmail``.

    Returns its report, and what it printed as "output".  Raises LabUnavailable where it did not
    boot, and LabError where there is no report.
    """
    root = roots.ensure(_ROOTS[mta])
    run = runs.make_temporary()
    try:
        trial = run.outside / "trial"
        trial.mkdir()
        (trial / "inside.py").write_text(Path(inside.__file__).read_text())
        pem = Pki(run.outside / "pki").issue("127.0.0.1").path
        (trial / "server.pem").write_bytes(pem.read_bytes())
        port = SYSTEMD / "variants" / "audit" / "port.conf"
        (trial / "audit-port.conf").write_text(port.read_text())
        files = run.outside / "files"
        files.mkdir()
        binds = {
            **_written(files, mta, config, drop_ins),
            f"{_HOME}/source/requiretls_milter": REPOSITORY / "requiretls_milter",
            f"{_HOME}/site-packages": Path(sysconfig.get_path("platlib")),
            "/trial": trial,
        }
        console = _console(root, binds, machine=run.outside.name)
        output = trial / "output"
        printed = output.read_text() if output.exists() else ""
        report = trial / "report.json"
        if not report.exists():
            raise LabError(f"{console[-2000:]}\n{printed}")
        return {**json.loads(report.read_text()), "output": printed}
    finally:
        run.remove()


def nspawn(root: Path) -> list[str]:
    """The beginning of a command that runs a container by what *root* has."""
    libraries = root / "usr/lib" / str(sysconfig.get_config_var("MULTIARCH"))
    loader = next(root.glob("usr/lib*/ld-linux-*.so.*"))
    return [
        *(str(loader), "--library-path", f"{libraries}:{libraries}/systemd"),
        *(f"{root}/usr/bin/systemd-nspawn", "--quiet", "--register=no", "--keep-unit"),
    ]


def _written(files: Path, mta: str, config: str, drop_ins: Mapping[str, str]) -> dict[str, Path]:
    """The files that an installation has, by their place there."""
    unit = f"/etc/systemd/system/{inside.UNIT}"
    texts = {
        unit: (SYSTEMD / inside.UNIT).read_text(),
        f"/etc/systemd/system/{inside.AUDIT}": (SYSTEMD / inside.AUDIT).read_text(),
        **{f"{unit}.d/{name}": text for name, text in drop_ins.items()},
        "/etc/systemd/system/trial.service": _TRIAL.replace("@MTA@", mta),
        "/usr/local/bin/requiretls-milter": _PROGRAM,
        str(inside.CONFIG): config,
    }
    for folder in ("sysusers.d", "tmpfiles.d") if mta == "postfix" else ("sysusers.d",):
        for file in (SYSTEMD / folder).iterdir():
            texts[f"/usr/lib/{folder}/{file.name}"] = file.read_text()
    written = {}
    for number, (place, text) in enumerate(texts.items()):
        written[place] = files / str(number)
        written[place].write_text(text)
        written[place].chmod(0o755)
    return written


def _console(root: Path, binds: Mapping[str, Path], machine: str) -> str:
    """What the container says from boot to halt; its programs are the root's own."""
    command = [
        *nspawn(root),
        *("--private-network", "--volatile=overlay", f"--directory={root}"),
        f"--machine={machine}",
        *(f"--bind={here}:{place}" for place, here in binds.items()),
        *("--boot", "systemd.unit=trial.service", "systemd.firstboot=off"),
        "systemd.mask=systemd-networkd-wait-online.service",  # there is no network to wait for
    ]
    console = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=DEADLINE,
    ).stdout
    if "Welcome to" not in console:
        raise LabUnavailable(f"the container does not boot: {console.strip()[-300:]}")
    return console
