"""Root becomes another user for good; what it cannot become is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from requiretls_milter.config import Config
from requiretls_milter.service.privileges import Identity, PrivilegeError

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.mark.parametrize(
    ("user", "group", "told"),
    [
        ("nosuch", "", "there is no user nosuch"),
        ("4294967290", "", "there is no user"),
        ("9" * 30, "", "there is no user"),
        ("nobody", "nosuch", "there is no group nosuch"),
        ("root", "", "name a user without privileges"),
        ("0", "", "name a user without privileges"),
        ("nobody", "root", "name another one with --group"),
    ],
)
def test_whom_nobody_should_become_is_told(user: str, group: str, told: str) -> None:
    with pytest.raises(PrivilegeError, match=told):
        Identity.find(user, group)


@root
def test_only_root_can_become_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(PrivilegeError, match="only root can become nobody"):
        Identity.find("nobody", "")


PROGRAM = """
import os
import requiretls_milter.service.privileges as privileges
privileges.Identity._find_program = lambda self: None  # this Python may be root's own
privileges.Identity.find("nobody", {group!r}).become()
print(os.getresuid(), os.getresgid(), os.getgroups())
for call in (lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgroups([0]),
             lambda: open("/etc/shadow"), lambda: os.chown("/etc/passwd", 65534, -1)):
    try:
        call()
    except PermissionError:
        print("refused")
print(open("/proc/self/status").read())
"""


@root
def test_no_call_gets_root_back() -> None:
    command = [sys.executable, "-c", PROGRAM.format(group="daemon")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    identity = Identity.find("nobody", "daemon")
    who, *rest = done.stdout.splitlines()
    assert who == str((identity.user,) * 3) + " " + str((identity.group,) * 3) + " " + str(
        sorted(identity.groups)
    )
    assert rest[:5] == ["refused"] * 5
    assert "NoNewPrivs:\t1" in rest


@root
def test_a_process_that_did_not_become_the_user_ends() -> None:
    program = "import os\nos.setresuid = lambda *_: None\n" + PROGRAM.format(group="")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "this process did not become nobody" in done.stderr


def config(directory: Path) -> Config:
    return Config.model_validate(
        {
            "milter": {"socket": f"unix:{directory}/milter/m.sock"},
            "engine": {"socket": f"{directory}/engine/e.sock"},
            "store": {"url": f"sqlite://{directory}/store/state.db"},
        }
    )


@root
def test_directories_that_are_missing_are_made_as_the_unit_makes_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "store").mkdir(0o700)
    identity = Identity.find("nobody", "daemon")
    identity.make_directories(config(tmp_path), f"{tmp_path}/log/it.log")
    found = {
        path.name: (path.stat().st_uid, path.stat().st_gid, oct(path.stat().st_mode & 0o7777))
        for path in tmp_path.iterdir()
    }
    ours = (identity.user, identity.group)
    assert found == {
        "milter": (*ours, "0o755"),
        "engine": (*ours, "0o755"),
        "log": (*ours, "0o750"),
        "store": (0, 0, "0o700"),  # it was there
    }


@root
@pytest.mark.parametrize(
    "how", ["of another user", "for all to write", "missing", "below one of another user"]
)
def test_nothing_is_made_where_others_could_put_a_link_in_its_place(
    how: str, tmp_path: Path
) -> None:
    parent = tmp_path / "parent"
    if how == "below one of another user":
        parent = tmp_path / "theirs" / "parent"
        parent.parent.mkdir(0o755)
        os.chown(parent.parent, 1, -1)
    if how != "missing":
        parent.mkdir(0o755)
        parent.chmod(0o777 if how == "for all to write" else 0o755)
        os.chown(parent, 1 if how == "of another user" else 0, -1)
    Identity.find("nobody", "").make_directories(config(parent), f"{parent}/log/it.log")
    assert not parent.exists() or list(parent.iterdir()) == []
