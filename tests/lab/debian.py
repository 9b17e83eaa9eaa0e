"""A bare Debian: made by debootstrap(8), and changed in a layer of memory that ends with it.

Programs are run in it by chroot(8), or, once it was booted, in its namespaces. It then has the
network of the thread that booted it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.lab import boot, roots
from tests.lab.errors import LabUnavailable
from tests.support.paths import REPOSITORY
from tests.support.processes import Process
from tests.support.waiting import eventually

SUITES = {"12": "bookworm", "13": "trixie", "testing": "forky"}
"""Suite of each release: those for which there is a package, and the one that comes next."""

_SCRIPT = "/usr/share/debootstrap/scripts/sid"
"""What debootstrap does for any suite; it knows none by name that came later."""

LONG = 1200
"""Seconds that one command may take, such as an installation or the build of the package."""

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}

BUILD = ("python3-venv", "python3-dev", "gcc", "libmilter-dev", "git", "ca-certificates")
"""What docs/packages.md says that the build needs."""

AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"


def make(release: str, directory: Path) -> Path:
    """A root with that release and nothing else, in *directory*.

    Raises:
        LabUnavailable: it cannot be made here.
    """
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise LabUnavailable("a bare Debian needs root and debootstrap")
    root = directory / "root"
    suite = SUITES[release]
    command = ["debootstrap", "--variant=minbase", suite, str(root), roots.mirror(), _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    if done.returncode != 0:
        raise LabUnavailable(f"debootstrap: {done.stdout[-300:]}")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    # A mirror may stand still; what it has is signed all the same.
    options = ("Acquire::Languages=none", "Acquire::Check-Valid-Until=false")
    flags = [word for option in options for word in ("-o", option)]
    _run(["chroot", root, "apt-get", "-q", *flags, "update"])
    return root


class Debian:
    """One that is changed.

    Args:
        base: the root below its layer, which is only read.
        directory: where mount points are made.
    """

    def __init__(self, base: Path, directory: Path) -> None:
        self._base = base
        self._directory = directory / f"debian-{secrets.token_hex(4)}"
        self.root = self._directory / "root"
        self._leader = 0
        self._container: Process | None = None

    def __enter__(self) -> Debian:
        layer = self._directory / "layer"
        for folder in (self.root, layer):
            folder.mkdir(parents=True)
        try:
            _mount("-t", "tmpfs", "tmpfs", layer)
            for folder in (layer / "upper", layer / "work"):
                folder.mkdir()
            options = f"lowerdir={self._base},upperdir={layer}/upper,workdir={layer}/work"
            _mount("-t", "overlay", "overlay", "-o", options, self.root)
            _mount("--bind", "/proc", self.root / "proc")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._container is not None:
            self._container.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._container.wait(60)
            self._container.kill()
            self._container.wait()
        for place in (self.root / "proc", self.root, self._directory / "layer"):
            if os.path.ismount(place):
                subprocess.run(["umount", place], check=True)
        shutil.rmtree(self._directory)

    def boot(self) -> None:
        """Let its systemd run, in namespaces of its own but for the network.

        Raises:
            LabUnavailable: it does not boot.
        """
        mark = f"BARE={secrets.token_hex(8)}"
        subprocess.run(["umount", self.root / "proc"], check=True)
        command = [
            *boot.nspawn(roots.ensure(roots.SYSTEMD_POSTFIX)),
            *("--resolv-conf=off", f"--directory={self.root}", f"--machine={self._directory.name}"),
            *(f"--setenv={mark}", "--boot", "systemd.firstboot=off"),
        ]
        # What Debian 13 has refuses cgroups of version 1.
        environ = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        self._container = Process(command, self._directory / "console", env=environ)
        try:
            self._container.wait_until(lambda: self._find(mark), "a container that boots")
            eventually(self._is_up, self._container.last_words, wait=60)
        except AssertionError as error:
            raise LabUnavailable(f"the container does not boot: {error}") from error

    def _find(self, mark: str) -> bool:
        for status in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                first = status.read_text().partition("NSpid:")[2].split("\n")[0].split()[-1:]
                if first == ["1"] and mark.encode() in (status.parent / "environ").read_bytes():
                    self._leader = int(status.parent.name)
                    return True
        return False

    def _is_up(self) -> bool:
        command = self.words("systemctl", "is-system-running")
        state = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        return state in ("running", "degraded")

    def words(self, *command: str, **environ: str) -> list[str]:
        """What runs a command in it, as root."""
        words = ["chroot", str(self.root)]
        if self._leader:
            spaces = ("--mount", "--uts", "--ipc", "--pid")
            words = ["nsenter", f"--target={self._leader}", *spaces]
        settings = {**ENVIRONMENT, **environ}
        return [*words, "env", "-i", *(f"{key}={text}" for key, text in settings.items()), *command]

    def run(self, *command: str, fails: bool = False, **environ: str) -> str:
        """Run a command in it; what it printed to standard output."""
        words = self.words(*command, **environ)
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONG)
        assert (done.returncode != 0) is fails, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self, *packages: str, recommended: bool = False) -> None:
        """By apt-get; a package may be a file."""
        more = () if recommended else ("--no-install-recommends",)
        self.run("apt-get", "install", "-y", "-q", *more, *packages)

    def write(self, files: Mapping[str, str]) -> None:
        """Write files, by their paths in it; a directory that is missing is made."""
        for name, text in files.items():
            path = self.root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def is_release(release: str) -> bool:
    """Whether this machine is a Debian of that release."""
    known = Path("/etc/os-release")
    return known.exists() and f'VERSION_ID="{release}"\n' in known.read_text()


def build(release: str, base: Path, directory: Path) -> Path:
    """The package for a release, of the commit that is checked out; built here or in a bare one."""
    if is_release(release):
        _run([REPOSITORY / "packaging/debian/build", directory])
    else:
        with Debian(base, directory) as debian:
            debian.install(*BUILD)
            shutil.copy(f"/{AUTHORITIES}", debian.root / AUTHORITIES)
            _run(["git", "clone", "-q", f"file://{REPOSITORY}", debian.root / "srv/source"])
            debian.run(
                "/srv/source/packaging/debian/build", "/srv/built", PIP_CERT=f"/{AUTHORITIES}"
            )
            shutil.copytree(debian.root / "srv/built", directory, dirs_exist_ok=True)
    (package,) = directory.glob("*.deb")
    return package


class Packages:
    """Bare Debians and packages for them, each made once.

    Args:
        directory: where they lie.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bases: dict[str, Path] = {}
        self._built: dict[tuple[str, int], Path] = {}

    def base(self, release: str) -> Path:
        """The root of a bare Debian, which is only read."""
        if release not in self._bases:
            self._bases[release] = make(release, _made(self._directory / f"bare-{release}"))
        return self._bases[release]

    def built(self, release: str, number: int = 0) -> Path:
        """The package for it; each *number* is a build of its own."""
        key = release, number
        if key not in self._built:
            directory = _made(self._directory / f"package-{release}-{number}")
            base = self._directory if is_release(release) else self.base(release)
            self._built[key] = build(release, base, directory)
        return self._built[key]

    def debian(self, release: str) -> Debian:
        """A bare one to be changed."""
        return Debian(self.base(release), self._directory)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr[-2000:]


def _mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise LabUnavailable(f"no mounts: {done.stderr.strip()}")
