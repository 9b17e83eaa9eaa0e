"""The Debian package: built, installed in a bare Debian, in service, upgraded and purged.

``PACKAGE_RELEASES=12,13`` does so for both releases, and ``PACKAGE_BUILDS=2`` builds each twice and
makes a container of it, as ``make test-long`` does. That for another release than this machine's is
built in a bare one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.debian import Debian, Packages
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.support.paths import REPOSITORY
from tests.support.redisserver import RedisServer
from tests.support.waiting import eventually

pytestmark = [pytest.mark.xdist_group("debian"), pytest.mark.once, pytest.mark.timeout(1800)]

BUILDS = int(os.environ.get("PACKAGE_BUILDS", "1"))

RELEASES = os.environ.get("PACKAGE_RELEASES", "12").split(",")

NAME = "requiretls-milter"

METRICS = "127.0.0.1:19894"

CONFIG = f"""
[metrics]
listen = "{METRICS}"
[probe]
enabled = false
"""


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(release: str, packages: Packages) -> list[Path]:
    """As many builds of the package as are asked for."""
    try:
        return [packages.built(release, number) for number in range(BUILDS)]
    except LabUnavailable as reason:
        unavailable(reason)
        raise


@pytest.fixture(scope="module")
def bare(release: str, packages: Packages, built: list[Path]) -> Iterator[Debian]:
    try:
        with packages.debian(release) as debian:
            shutil.copy(built[0], debian.root / "root")
            yield debian
    except LabUnavailable as reason:
        unavailable(reason)


def test_two_builds_are_equal(built: list[Path]) -> None:
    if BUILDS == 1:
        pytest.skip("PACKAGE_BUILDS says how many are compared; make test-long compares two")
    assert len({package.read_bytes() for package in built}) == 1


def test_its_bill_names_the_packages_that_are_in_it(bare: Debian, built: list[Path]) -> None:
    bill = json.loads(built[0].with_suffix(".cdx.json").read_text(encoding="utf-8"))
    named = {re.sub("[-_.]+", "_", each["name"]).lower() for each in bill["components"]}
    listed = bare.run("dpkg-deb", "--contents", f"/root/{built[0].name}")
    packed = re.findall(r"/site-packages/([^/]+?)-[^-/]+\.dist-info/$", listed, re.MULTILINE)
    assert named | {"requiretls_milter"} == {re.sub("[-_.]+", "_", each).lower() for each in packed}


def test_it_is_installed_with_user_configuration_manual_and_unit(
    bare: Debian, built: list[Path]
) -> None:
    bare.install(f"/root/{built[0].name}")
    version = built[0].name.split("_")[1].split("-")[0]
    assert bare.run(NAME, "--version") == f"{NAME} {version}\n"
    assert bare.run(NAME, "config", "check").endswith(": good\n")
    assert bare.run("id", "-un", NAME) == f"{NAME}\n"
    assert bare.run("dpkg", "-V", NAME) == "", "nothing differs from what was packed"
    for file in (
        "usr/share/man/man1/requiretls-milter.1.gz",
        "usr/share/bash-completion/completions/requiretls-milter",
        "usr/share/doc/requiretls-milter/docs/attach.md",
        "usr/lib/systemd/system/requiretls-milter.service",
        "usr/lib/systemd/system/requiretls-milter-audit.service",
        "usr/share/requiretls-milter/attach-postfix",
    ):
        assert (bare.root / file).exists(), file


def test_what_is_not_configured_does_not_run(bare: Debian) -> None:
    wanted = bare.root / "etc/systemd/system/multi-user.target.wants"
    assert not list(wanted.glob(f"{NAME}*"))


def test_it_serves_as_its_user(bare: Debian) -> None:
    config = bare.root / f"etc/{NAME}/config.toml"
    config.write_text(config.read_text() + CONFIG)
    for place in ("run", "var/lib"):
        bare.run("install", "-d", "-o", NAME, "-g", NAME, f"/{place}/{NAME}")
    with _serving(bare):
        pass


def test_it_opens_a_store_in_redis(bare: Debian, redis_root: Path) -> None:
    config = bare.root / f"etc/{NAME}/config.toml"
    with RedisServer(redis_root, "redis") as redis:
        before = config.read_text()
        config.write_text(f'{before}\n[store]\nurl = "{redis.url}"\n')
        with _serving(bare):
            eventually(lambda: "\nrequiretls_milter_store_up 1.0\n" in _page("metrics"))
            assert len(redis.command("CLIENT", "LIST").strip().splitlines()) > 1
        config.write_text(before)


@contextmanager
def _serving(bare: Debian) -> Iterator[None]:
    """The service as its user, until it is told to end."""
    as_user = ("setpriv", f"--reuid={NAME}", f"--regid={NAME}", "--init-groups")
    with subprocess.Popen(bare.words(*as_user, NAME, "serve"), stderr=subprocess.PIPE) as service:
        try:
            eventually(lambda: _page("healthz") == "ok\n", "the service answers", wait=30)
            yield
        finally:
            service.terminate()
            said = service.stderr.read().decode() if service.stderr else ""
        assert service.wait(30) == 0, said


def _page(path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{METRICS}/{path}", timeout=2) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def test_an_upgrade_keeps_state_and_configuration(bare: Debian, built: list[Path]) -> None:
    state, config = f"var/lib/{NAME}/state.db", f"etc/{NAME}/config.toml"
    before = [(bare.root / file).read_bytes() for file in (state, config)]
    bare.run("apt-get", "install", "-y", "-q", "--reinstall", f"/root/{built[0].name}")
    assert [(bare.root / file).read_bytes() for file in (state, config)] == before


def test_a_removal_keeps_them_and_a_purge_leaves_nothing(bare: Debian) -> None:
    bare.run("apt-get", "remove", "-y", "-q", NAME)
    assert (bare.root / f"etc/{NAME}/config.toml").exists()
    bare.run("apt-get", "purge", "-y", "-q", NAME)
    found = bare.run("find", "/", "-xdev", "-name", f"*{NAME}*", "!", "-path", "/root/*")
    assert found == f"/run/{NAME}\n", "which the test made, and a reboot removes"
    bare.run("id", NAME, fails=True)


def test_the_container_serves_without_rights(
    bare: Debian, built: list[Path], release: str, tmp_path: Path
) -> None:
    """From a base that debootstrap has made, by buildah, which needs no daemon and no cgroups."""
    if BUILDS == 1:
        pytest.skip("make test-long builds the container")
    if shutil.which("buildah") is None:
        pytest.skip("no buildah: apt-get install buildah")
    (tmp_path / "dist").mkdir()
    shutil.copy(built[0], tmp_path / "dist")
    image = f"localhost/requiretls-milter-test-{os.getpid()}"
    base = _buildah("from", "scratch")
    layer = tmp_path / "base.tar"
    subprocess.run(
        ["tar", "--one-file-system", "-C", bare.root, "-cf", layer, "."], check=True, timeout=100
    )
    _buildah("add", base, str(layer))
    _buildah("commit", base, f"{image}-base")
    recipe = REPOSITORY / "packaging" / "Containerfile"
    options = ("--format=docker", "--isolation=chroot", "--network=host")
    _buildah(
        *("bud", *options, f"--build-arg=BASE={image}-base", f"--build-arg=DEBIAN={release}"),
        *(f"--file={recipe}", f"--tag={image}"),
        str(tmp_path),
    )
    made = _buildah("from", image)
    command = ["buildah", "run", "--isolation=chroot", f"--user={NAME}", made]
    # buildah passes no signal on: the service ends when nobody can say anything to its shell.
    serve = f"id -un; {NAME} serve & read -r said; kill $!; wait $!; echo ended: $?"
    log = tmp_path / "log"
    try:
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [*command, "sh", "-c", serve], stdin=subprocess.PIPE, stdout=output, stderr=output
            ),
        ):
            eventually(lambda: "event=serving" in log.read_text(), log.read_text, wait=60)
            subprocess.run([*command, *_health_check(made)], check=True, timeout=60)
        assert log.read_text().startswith(f"{NAME}\n")
        assert "\nended: 0\n" in log.read_text()
    finally:
        _buildah("rm", base, made)
        _buildah("rmi", "--force", image, f"{image}-base")


def _health_check(container: str) -> list[str]:
    """The command by which a manager of containers asks how the service is."""
    told = subprocess.run(["buildah", "inspect", container], capture_output=True, check=True)
    (kind, *words) = json.loads(told.stdout)["Docker"]["config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    return [str(word) for word in words]


def _buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
