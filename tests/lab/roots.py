"""Roots: directories that hold unpacked Debian packages, to run their programs by chroot(2).

The MTAs that the lab needs are newer (or older) than what the machine has installed, and
installing packages would change the machine and start its services.  So packages are fetched by
apt-get with a state of its own and unpacked by dpkg-deb: no mounts, no maintainer scripts, no
debootstrap; root in a plain container is enough.

A root is made once and then only read: what a server writes goes to a directory of its run
(``runs.py``), which is removed when the run ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.errors import LabUnavailable

RECIPE_VERSION = 3
"""Raise it when the way in which a root is made changes: roots made otherwise are made anew."""

_SUITES = frozenset(
    [
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "sid",
    ]
)
"""What tells Debian's archive from the other archives in a machine's sources."""

_FOR_SCRIPTS = ("perl", "libperl", "debconf", "systemd", "udev")
"""Packages (by how their names begin) that only maintainer scripts want, and none is run."""

APT_TIMEOUT = 900
"""Seconds that one apt-get may take; a slow mirror should fail, not hang a test run."""

UID_POSTFIX = 61125
GID_POSTFIX = 61125
GID_POSTDROP = 61126
"""Numbers of our own: files of a root are seen from outside, so they must not be a local user's."""


@dataclass(frozen=True)
class Recipe:
    """What a root is made of."""

    name: str
    suite: str
    packages: tuple[str, ...]
    probe: str
    """A program that must be in the finished root, as a path without the leading slash."""


_SASL = ("libsasl2-modules", "libsasl2-modules-db", "sasl2-bin")
_POSTFIX = ("postfix", *_SASL, "ca-certificates")
_MASTER = "usr/lib/postfix/sbin/master"
_SENDMAIL = ("sendmail-bin", "sendmail-cf", "m4", "dash")
_SENDMAIL_PROGRAM = "usr/libexec/sendmail/sendmail"

POSTFIX_3_11 = Recipe("postfix-3.11", "forky", _POSTFIX, _MASTER)
"""The MTA that knows REQUIRETLS (since 3.11)."""

POSTFIX_3_11_TABLES = Recipe(
    "postfix-tables-3.11",
    "forky",
    (*_POSTFIX, *(f"postfix-{kind}" for kind in ("ldap", "mysql", "pcre", "pgsql", "sqlite"))),
    _MASTER,
)
"""The same with types of tables that Debian packs apart."""

POSTFIX_3_10 = Recipe("postfix-3.10", "trixie", _POSTFIX, _MASTER)
"""It knows ``TLS-Required: No`` (since 3.10), but not REQUIRETLS."""

POSTFIX_3_7 = Recipe("postfix-3.7", "bookworm", _POSTFIX, _MASTER)
"""It knows neither."""

SENDMAIL_8_18 = Recipe("sendmail-8.18", "trixie", _SENDMAIL, _SENDMAIL_PROGRAM)
"""Debian compiles it with DANE."""

SENDMAIL_8_17 = Recipe("sendmail-8.17", "bookworm", _SENDMAIL, _SENDMAIL_PROGRAM)

DNS = Recipe(
    name="dns",
    suite="trixie",
    packages=("knot", "unbound"),
    probe="usr/sbin/unbound",
)

_BOOTS = (
    *("base-files", "coreutils", "dash", "diffutils", "findutils", "grep", "sed"),
    *("systemd", "systemd-container", "python3", "libmilter1.0.1"),
)
_INIT = "usr/lib/systemd/systemd"

SYSTEMD_POSTFIX = Recipe("systemd-252-postfix", "bookworm", (*_BOOTS, *_POSTFIX), _INIT)
"""A Debian 12 that boots in a container, with what the service needs, and a Postfix."""

SYSTEMD_SENDMAIL = Recipe("systemd-252-sendmail", "bookworm", (*_BOOTS, *_SENDMAIL), _INIT)
"""The same with a Sendmail: Debian does not let one have both."""

REDIS = Recipe(
    name="redis",
    suite="trixie",
    packages=("redis-server", "redis-tools", "valkey-server", "valkey-tools"),
    probe="usr/bin/valkey-server",
)
"""Redis 8 and Valkey 8: stores of a fleet."""

PROMETHEUS = Recipe(
    name="prometheus",
    suite="bookworm",
    packages=("prometheus",),
    probe="usr/bin/promtool",
)
"""Prometheus and promtool of the oldest Debian that is supported: what it takes, later ones do."""

MTA_STS_RESOLVER = Recipe(
    name="mta-sts-resolver",
    suite="forky",
    packages=("postfix-mta-sts-resolver", "ca-certificates"),
    probe="usr/bin/mta-sts-daemon",
)
"""The policy service that most sites run beside Postfix."""

DATABASES = Recipe(
    name="databases",
    suite="trixie",
    packages=("slapd", "mariadb-server-core", "postgresql-17", "dash"),
    probe="usr/sbin/slapd",
)
"""Servers in which Postfix has tables: OpenLDAP, MariaDB and PostgreSQL."""

ALL = (
    *(DNS, REDIS, DATABASES, PROMETHEUS, MTA_STS_RESOLVER, SYSTEMD_POSTFIX, SYSTEMD_SENDMAIL),
    *(POSTFIX_3_11, POSTFIX_3_11_TABLES, POSTFIX_3_10, POSTFIX_3_7),
    *(SENDMAIL_8_18, SENDMAIL_8_17),
)


_MTAS = frozenset({"postfix", "sendmail-bin"})
"""First packages of roots whose names end in the series of that package."""


def cache_home() -> Path:
    """The directory of all roots: ``$XDG_CACHE_HOME/requiretls-milter/lab``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "requiretls-milter" / "lab"


def ensure(recipe: Recipe) -> Path:
    """Return the root of *recipe*, made now if there is none (under a minute, needs a mirror)."""
    if os.geteuid() != 0:
        raise LabUnavailable("the lab needs root: chroot(2), ports below 1024, Postfix's users")
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise LabUnavailable(f"the lab needs {tool}: it runs on Debian and its relatives")
    home = cache_home()
    home.mkdir(parents=True, exist_ok=True)
    root = home / recipe.name
    if _is_current(root, recipe):
        return root
    with _lock(home / f"{recipe.name}.lock"):
        if not _is_current(root, recipe):  # another builder may have made it while we waited
            _build(recipe, home, root)
    return root


def _stamp(recipe: Recipe) -> str:
    text = json.dumps({"version": RECIPE_VERSION, **asdict(recipe)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_current(root: Path, recipe: Recipe) -> bool:
    try:
        return (root / ".stamp").read_text() == _stamp(recipe)
    except OSError:
        return False


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold *path* against other builders; the kernel lets go of it however we end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(recipe: Recipe, home: Path, root: Path) -> None:
    umask = os.umask(0o022)  # a root is read by users other than us
    try:
        _build_in(recipe, home, root)
    finally:
        os.umask(umask)


def _build_in(recipe: Recipe, home: Path, root: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{recipe.name}.new.", dir=home) as scratch:
        new = Path(scratch) / "root"
        new.mkdir(mode=0o755)
        debs = _download(recipe, Path(scratch) / "apt")
        _unpack(recipe, debs, new)
        _furnish(new)
        if not (new / recipe.probe).exists():
            raise LabUnavailable(f"root {recipe.name}: no /{recipe.probe} after unpacking")
        (new / ".stamp").write_text(_stamp(recipe))
        (new / ".packages").write_text("\n".join(sorted(d.name for d in debs)) + "\n")
        new.chmod(0o755)
        if root.exists():
            # It goes with the scratch directory, also from under a lab that runs in it.
            root.rename(Path(scratch) / "old")
        new.rename(root)


def _download(recipe: Recipe, apt: Path) -> list[Path]:
    """Fetch *recipe*'s packages and all that they depend on, as if onto an empty machine."""
    for folder in ("etc", "dpkg", "lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "dpkg/status").touch()
    keyring = _keyring(apt / "etc/keyring.gpg")
    (apt / "etc/lab.sources").write_text(sources(mirror(), recipe, keyring))
    (apt / "preferences").write_text(preferences(recipe))
    options = {
        "Dir::State": str(apt),
        "Dir::State::status": str(apt / "dpkg/status"),
        "Dir::State::lists": str(apt / "lists"),
        "Dir::Cache": str(apt / "cache"),
        "Dir::Cache::archives": str(apt / "cache/archives"),
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": str(apt / "etc"),
        "Dir::Etc::preferences": str(apt / "preferences"),
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Sandbox::User": "root",  # the scratch directory may be closed to _apt
        "APT::Install-Recommends": "false",
        "APT::Keep-Downloaded-Packages": "true",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    _apt(["apt-get", *flags, "-q", "update"])
    _apt(["apt-get", *flags, "-q", "-y", "--download-only", "install", *recipe.packages])
    debs = sorted((apt / "cache/archives").glob("*.deb"))
    if not debs:
        raise LabUnavailable(f"root {recipe.name}: apt-get fetched no package")
    return debs


def sources(mirror: str, recipe: Recipe, keyring: Path | None) -> str:
    """The archives from which the packages come, for apt.

    ``$LAB_ARCHIVE`` names a further archive of Debian, such as one of a day in the past: apt then
    finds the version there that :func:`preferences` wants.
    """
    further = os.environ.get("LAB_ARCHIVE")
    return "\n".join(
        "\n".join(
            [
                "Types: deb",
                f"URIs: {archive}",
                f"Suites: {recipe.suite}",
                "Components: main",
                *(["Check-Valid-Until: no"] if archive == further else []),
                *([f"Signed-By: {keyring}"] if keyring else []),
                "",
            ]
        )
        for archive in (mirror, further)
        if archive
    )


def preferences(recipe: Recipe) -> str:
    """Which version apt prefers, be it an older one: of the series that the root is named for."""
    package = recipe.packages[0]
    if package not in _MTAS:
        return ""
    series = recipe.name.rpartition("-")[2]
    return f"Package: {package}\nPin: version {series}.*\nPin-Priority: 1001\n"


def installed(recipe: Recipe) -> str:
    """Debian's version of the first package of *recipe* in its root.

    Raises:
        LabUnavailable: there is no such root.
    """
    try:
        names = (cache_home() / recipe.name / ".packages").read_text().split()
    except OSError as error:
        raise LabUnavailable(f"root {recipe.name} was not made: {error}") from error
    package = recipe.packages[0]
    return next(name.split("_")[1] for name in names if name.startswith(f"{package}_"))


def _apt(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        run = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=APT_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise LabUnavailable(f"apt-get did not end within {APT_TIMEOUT} s") from error
    problem = [line for line in run.stdout.splitlines() if re.match(r"[EW]:|Err:", line)]
    # "update" exits 0 even if every index is missing; its complaints are the only sign.
    if run.returncode != 0 or any(line.startswith(("E:", "Err:")) for line in problem):
        raise LabUnavailable("apt-get: " + (" / ".join(problem) or run.stdout[-500:]))


def mirror() -> str:
    """The Debian archive that this machine itself uses; a lab should not pick another."""
    for uri, suites in _machine_sources():
        if "security" not in uri and not _SUITES.isdisjoint(suites):
            return uri
    raise LabUnavailable("no Debian archive in this machine's apt sources")


def _machine_sources() -> Iterator[tuple[str, list[str]]]:
    folder = Path("/etc/apt/sources.list.d")
    for path in [*sorted(folder.glob("*.sources"))]:
        for stanza in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            fields = {
                key.lower(): value.split()
                for key, value in re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.M)
            }
            if "deb" in fields.get("types", []) and "main" in fields.get("components", []):
                for uri in fields.get("uris", []):
                    yield uri, fields.get("suites", [])
    for path in [Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list"))]:
        if not path.exists():
            continue
        for line in path.read_text(errors="replace").splitlines():
            match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+.*\bmain\b", line)
            if match:
                yield match[1], [match[2]]


def _keyring(path: Path) -> Path | None:
    """All Debian archive keys of this machine in one file.

    A new suite is signed by the last stable release's keys, which need not be those that the
    machine's own sources name.  Binary key rings can simply be put one after the other.
    """
    rings = sorted(Path("/usr/share/keyrings").glob("debian-archive-*.gpg"))
    rings = [ring for ring in rings if "removed" not in ring.name]
    if not rings:
        return None  # apt then uses the keys in trusted.gpg.d
    path.write_bytes(b"".join(ring.read_bytes() for ring in rings))
    path.chmod(0o644)
    return path


def _unpack(recipe: Recipe, debs: list[Path], root: Path) -> None:
    # Debian's merged /usr: a package that still ships /lib/... must end up in /usr/lib.
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        name = deb.name.partition("_")[0]
        if name.startswith(_FOR_SCRIPTS) and name not in recipe.packages:
            continue
        listing = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
        with listing:
            tar = subprocess.run(
                ["tar", "-x", "--keep-directory-symlink", "-p", "-C", root, "-f", "-"],
                stdin=listing.stdout,
                capture_output=True,
                text=True,
            )
        if tar.returncode != 0 or listing.returncode != 0:
            raise LabUnavailable(f"cannot unpack {deb.name}: {tar.stderr[-300:]}")


def _furnish(root: Path) -> None:
    """Do what the packages' maintainer scripts would have done, as far as a server needs it."""
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/:/usr/sbin/nologin\n"
        "mail:x:8:8:mail:/var/mail:/usr/sbin/nologin\n"
        f"postfix:x:{UID_POSTFIX}:{GID_POSTFIX}::/:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text(
        "root:x:0:\ndaemon:x:1:\nmail:x:8:\nsasl:x:45:\n"
        f"postfix:x:{GID_POSTFIX}:\npostdrop:x:{GID_POSTDROP}:\nnogroup:x:65534:\n"
    )
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    if not (etc / "services").exists():
        (etc / "services").write_text("smtp 25/tcp mail\nsubmission 587/tcp\n")
    for folder, mode in (("tmp", 0o1777), ("run", 0o755), ("lab", 0o755), ("var/tmp", 0o1777)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(mode)
    _devices(root / "dev")


def _devices(dev: Path) -> None:
    """Make the device files that servers open.

    mknod(2), and the use of what it made, may be forbidden (a container, a ``nodev`` mount): then
    ordinary files stand in: an empty one swallows what is written to it, and one with random
    bytes serves as a seed.
    """
    dev.mkdir(exist_ok=True)
    for name, minor in (("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)):
        path = dev / name
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
            os.close(os.open(path, os.O_RDWR))
        except OSError:
            path.unlink(missing_ok=True)
            path.write_bytes(os.urandom(65536) if "random" in name else b"")
        path.chmod(0o666)
