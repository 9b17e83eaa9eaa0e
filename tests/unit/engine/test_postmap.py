"""Tables that are asked: real processes in the place of postmap, and what they do wrong.

What postmap itself answers is shown in the lab (``tests/lab/test_aliases_asked.py``).
"""

from __future__ import annotations

import asyncio
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from requiretls_milter.config import Limits
from requiretls_milter.engine import postmap
from requiretls_milter.engine.postmap import MAX_KEYS, Answer, Failure, Postmap
from requiretls_milter.telemetry.counting import Counters
from tests.support.processes import alive
from tests.support.waiting import until

TABLE = "regexp:/etc/postfix/x"

PROGRAM = """\
#!{python} -IS
import os, sys, time
_, _q, _dash, table, static = sys.argv
nothing = static.partition(":")[2]
here = {here!r}
def note(name, text):
    with open(os.path.join(here, name), "a") as file:
        file.write(text)
def say(key, value):
    sys.stdout.buffer.write(key.encode() + b"\\t" + value + b"\\n")
note("pids", str(os.getpid()) + "\\n")
keys = [line[:-1] for line in sys.stdin.buffer.read().decode().splitlines(keepends=True)]
note("runs", str(len(keys)) + " " + table + "\\n")
{behaviour}
for key in keys:
    say(key, (key.upper() if key.startswith("known") else nothing).encode())
"""
"""Answers for keys that begin with ``known``; *behaviour* comes before that."""


class Kit:
    """A Postmap with a program of its own."""

    def __init__(
        self,
        directory: Path,
        behaviour: str = "",
        *,
        life: float = 60.0,
        command: Sequence[str] = (),
        **limits: int,
    ) -> None:
        self.directory = directory
        self.program = directory / "postmap"
        self.behave(behaviour)
        self.counters = Counters()
        settings = Limits().model_copy(update={"alias_timeout": 1, **limits})
        self.asking = Postmap(command or (str(self.program),), life, settings, self.counters)

    def behave(self, behaviour: str) -> None:
        text = PROGRAM.format(python=sys.executable, here=str(self.directory), behaviour=behaviour)
        new = self.directory / "new"
        new.write_text(text)
        new.chmod(stat.S_IRWXU)
        new.replace(self.program)

    async def find(self, *keys: str, item: str = TABLE) -> Mapping[str, Answer]:
        return await self.asking.find(item, keys)

    def counted(self, metric: str) -> dict[Any, float]:
        totals = self.counters.totals().counters
        return {labels[-1]: value for name, labels, value in totals if name == metric}

    def noted(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def runs(self) -> int:
        return len(self.noted("runs"))


def error(answer: Answer) -> str:
    assert isinstance(answer, Failure)
    return answer.error


# ---------------------------------------------------------------- answers


async def test_one_run_answers_for_many_keys_and_tells_nothing_from_no_answer(
    tmp_path: Path,
) -> None:
    kit = Kit(tmp_path)
    found = await kit.find("known-a@x.test", "-q", "b@x.test", "@x.test")
    assert found == {
        "known-a@x.test": "KNOWN-A@X.TEST",
        "-q": None,
        "b@x.test": None,
        "@x.test": None,
    }
    assert kit.noted("runs") == [f"4 {TABLE}"]
    assert kit.counted("alias_queries_total") == {"answered": 1}


async def test_the_adapters_of_a_table_are_left_out_and_so_is_the_directory_of_chroot(
    tmp_path: Path,
) -> None:
    program = tmp_path / "chroot"
    kit = Kit(tmp_path, command=(str(program), "/srv/mta"))
    kit.program.rename(program)
    program.write_text(program.read_text().replace("_, _q", "_, _root, _q"))
    await kit.find("a@x.test", item="proxy:hash:/srv/mta/etc/virtual")
    await kit.find("a@x.test", item="hash:/srv/mtas/virtual")
    assert kit.noted("runs") == ["1 hash:/etc/virtual", "1 hash:/srv/mtas/virtual"]


async def test_answers_are_kept_for_their_life(tmp_path: Path) -> None:
    kit = Kit(tmp_path, life=0.3)
    keys = ("known@x.test", "not@x.test")
    first = await kit.find(*keys)
    assert await kit.find(*keys) == first
    assert kit.runs == 1
    await asyncio.sleep(0.35)
    assert await kit.find(*keys) == first
    assert kit.runs == 2
    assert kit.counted("cache_requests_total") == {"miss": 4, "hit": 2}


async def test_what_several_want_at_once_is_looked_up_once(tmp_path: Path) -> None:
    kit = Kit(tmp_path, "time.sleep(0.2)")
    answers = await asyncio.gather(*(kit.find("known@x.test") for _ in range(5)))
    assert all(one == {"known@x.test": "KNOWN@X.TEST"} for one in answers)
    assert kit.runs == 1
    assert kit.counted("cache_requests_total") == {"miss": 1, "in_progress": 4}


async def test_keys_that_wait_for_their_turn_go_in_one_run(tmp_path: Path) -> None:
    kit = Kit(tmp_path, "time.sleep(0.2)", alias_processes=1)
    first = asyncio.create_task(kit.find("first@x.test"))
    await until(lambda: kit.noted("pids"))
    await asyncio.gather(first, *(kit.find(f"{number}@x.test") for number in range(50)))
    assert [line.split()[0] for line in kit.noted("runs")] == ["1", "50"]


async def test_a_run_has_a_bounded_number_of_keys(tmp_path: Path) -> None:
    kit = Kit(tmp_path, alias_processes=1)
    found = await kit.find(*(f"known{number}@x.test" for number in range(2 * MAX_KEYS + 1)))
    assert None not in found.values()
    assert kit.runs == 3


async def test_a_value_with_line_ends_is_read_whole(tmp_path: Path) -> None:
    kit = Kit(tmp_path, 'say(keys[0], b"a@x.test,\\n  b@x.test"); keys = keys[1:]')
    assert await kit.find("key@x.test") == {"key@x.test": "a@x.test,\n  b@x.test"}


# ---------------------------------------------------------------- what postmap does wrong


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("sys.exit(0)", "not as postmap writes it"),
        ("os.kill(os.getpid(), 9)", "status -9"),
        ('sys.exit("postmap: fatal: open dictionary: no such thing")', "no such thing"),
        ('sys.exit("postmap: warning: table gone\\npostmap: fatal: table x: query error")', "gone"),
        ('sys.exit(f"postmap: warning: {keys[0]} is odd")', "status 1"),
        ('say("other@x.test", b"x"); keys = keys[1:]', "not as postmap writes it"),
        ('say(keys[0], b"x" * 10_000_000); keys = []', "more than 1048576 octets"),
        ('say(keys[0], b"\\xff"); keys = []', "not UTF-8"),
        ('say(keys[0], b""); keys = []', "empty"),
        ('sys.stderr.write("x" * 500_000); sys.exit(1)', "status 1"),
        ("sys.stdout.write(keys[0])\nsys.exit()", "not as postmap writes it"),
    ],
)
async def test_a_run_that_fails_is_no_answer(tmp_path: Path, behaviour: str, why: str) -> None:
    kit = Kit(tmp_path, behaviour)
    found = await kit.find("secret@x.test")
    told = error(found["secret@x.test"])
    assert why in told or told.startswith("xxx")
    assert "secret" not in told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "warning: connect to pgsql server postgresql://vmail:geheim@127.0.0.1/mail: "
            'connection to server at "127.0.0.1", port 5432 failed: Connection refused',
            "connect to pgsql server postgresql://...@127.0.0.1/mail: "
            'connection to server at "...", port 5432 failed: Connection refused',
        ),
        (
            "warning: server mongodb://u:ge/he@im@127.0.0.1/ is gone",
            "server mongodb://...@127.0.0.1/ is",
        ),
        (
            "fatal: /etc/postfix/my.cf, line 3: missing '=' after attribute name: "
            '"password ge"heim',
            "/etc/postfix/my.cf, line 3: missing '=' after attribute name: \"...\"",
        ),
        ('warning: invalid percent-encoded token: "ge%zzheim"', 'token: "..."'),
        ('warning: a text that was cut: "geheim', 'cut: "..."'),
    ],
)
async def test_no_password_of_a_tables_file_is_told(tmp_path: Path, said: str, told: str) -> None:
    kit = Kit(tmp_path, f"sys.exit({f'postmap: {said}'!r})")
    found = error((await kit.find("secret@x.test"))["secret@x.test"])
    assert told in found
    assert "heim" not in found


async def test_no_password_in_the_name_of_a_table_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = "mysql:{ { password = geheim }, { hosts = h } }"
    kit = Kit(tmp_path, "sys.exit('postmap: fatal: open ' + sys.argv[3] + ': unsupported')")
    found = error((await kit.find("a@x.test", item=item))["a@x.test"])
    assert found == "open mysql:{...}: unsupported"
    logged = "".join(capsys.readouterr())
    assert "mysql:{...}" in logged
    assert "geheim" not in logged


@pytest.mark.parametrize(
    "behaviour",
    [
        "time.sleep(60)",
        "os.close(0); os.close(1); time.sleep(60)",
        "while True: sys.stderr.write('x' * 65536)",
    ],
)
async def test_one_that_does_not_end_is_killed_and_its_table_left_alone_for_a_while(
    tmp_path: Path, behaviour: str
) -> None:
    kit = Kit(tmp_path, behaviour)
    began = time.monotonic()
    found = await kit.find("a@x.test")
    assert "no answer within 1 s" in error(found["a@x.test"])
    assert time.monotonic() - began < 4
    (pid,) = map(int, kit.noted("pids"))
    await until(lambda: not alive(pid))
    assert "no answer within 1 s" in error((await kit.find("b@x.test"))["b@x.test"])
    assert len(kit.noted("pids")) == 1
    kit.behave("")
    assert await kit.find("known@x.test", item="regexp:/other") == {"known@x.test": "KNOWN@X.TEST"}
    assert kit.counted("alias_queries_total") == {"timeout": 1, "answered": 1}
    assert kit.counted("saturated_total") == {"alias_timeout": 1}


async def test_one_that_does_not_end_may_have_said_why(tmp_path: Path) -> None:
    """That of tcp_table(5) tries ten times, a second apart, to reach a server that is gone."""
    said = "postmap: warning: connect to TCP map 127.0.0.1:1: Connection refused"
    kit = Kit(tmp_path, f"sys.stderr.write('{said}\\n'); sys.stderr.flush(); time.sleep(60)")
    found = await kit.find("a@x.test")
    assert error(found["a@x.test"]).startswith(
        "no answer within 1 s: connect to TCP map 127.0.0.1:1:"
    )


async def test_a_table_that_hangs_leaves_half_of_the_processes_to_others(tmp_path: Path) -> None:
    kit = Kit(tmp_path, 'if "slow" in table: time.sleep(60)', alias_processes=2)
    hanging = [asyncio.create_task(kit.find(f"{n}@x.test", item="ldap:slow")) for n in range(3)]
    await until(lambda: kit.noted("pids"))
    assert (await kit.find("known@x.test"))["known@x.test"] == "KNOWN@X.TEST"
    assert not any(task.done() for task in hanging)
    await kit.asking.close()
    await asyncio.gather(*hanging)


async def test_keys_that_wait_for_a_table_that_hangs_wait_for_one_run(tmp_path: Path) -> None:
    kit = Kit(tmp_path, "time.sleep(60)", alias_processes=1)
    began = time.monotonic()
    found = await kit.find(*(f"{number}@x.test" for number in range(3 * MAX_KEYS)))
    assert set(found.values()) == {Failure("no answer within 1 s")}
    assert len(kit.noted("pids")) == 1
    assert time.monotonic() - began < 4
    kit.behave("")
    assert await kit.find("known@x.test", item="regexp:/other") == {"known@x.test": "KNOWN@X.TEST"}


async def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    kit = Kit(tmp_path, command=(str(tmp_path / "none"),))
    assert "No such file" in error((await kit.find("a@x.test"))["a@x.test"])
    assert kit.counted("alias_queries_total") == {"failed": 1}


async def test_without_a_postfix_there_is_no_usual_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmap, "_PATH", str(tmp_path))
    asking = Postmap((), 60, Limits(), Counters())
    assert "no program postmap" in error((await asking.find(TABLE, ["a"]))["a"])


async def test_keys_that_fail_do_not_spoil_the_others(tmp_path: Path) -> None:
    """postmap ends at the first key for which a table fails."""
    kit = Kit(tmp_path, 'if "bad@x.test" in keys: sys.exit("postmap: fatal: x: query error")')
    keys = [*(f"known{number}@x.test" for number in range(100)), "bad@x.test"]
    found = await kit.find(*keys)
    failed = [key for key, answer in found.items() if isinstance(answer, Failure)]
    assert failed == ["bad@x.test"]
    assert kit.runs <= 1 + 2 * 7


async def test_a_table_that_fails_for_all_keys_costs_three_runs(tmp_path: Path) -> None:
    kit = Kit(tmp_path, 'sys.exit("postmap: fatal: the server is gone")')
    found = await kit.find(*(f"{number}@x.test" for number in range(MAX_KEYS)))
    assert set(found.values()) == {Failure("the server is gone")}
    assert kit.runs == 3


async def test_failures_are_kept_for_a_moment_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = Kit(tmp_path, 'sys.exit("postmap: fatal: the server is gone")')
    with capture_logs() as lines:
        await kit.find("known-a@x.test")
        await kit.find("known-a@x.test")
        await kit.find("known-b@x.test")
    assert [line["error"] for line in lines] == ["the server is gone"]
    assert kit.runs == 2
    assert kit.counted("cache_requests_total") == {"miss": 2, "recently_failed": 1}


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize("key", ["", "a\nb@x", "a\0@x", "a\r@x", "\udcff", "x" * 2001])
async def test_a_key_that_is_no_line_is_never_asked_for(tmp_path: Path, key: str) -> None:
    kit = Kit(tmp_path)
    assert "cannot be asked" in error((await kit.find(key))[key])
    assert kit.runs == 0


async def test_more_keys_than_may_wait_have_no_answer(tmp_path: Path) -> None:
    kit = Kit(tmp_path, "time.sleep(0.2)", alias_keys=10)
    found = await kit.find(*(f"known{number}@x.test" for number in range(12)))
    refused = [answer for answer in found.values() if isinstance(answer, Failure)]
    assert refused == [Failure("too many keys wait for postmap")] * 2
    assert kit.counted("saturated_total") == {"alias_keys": 2}


async def test_answers_beyond_the_limit_make_room(tmp_path: Path) -> None:
    kit = Kit(tmp_path, alias_answers=10)
    await kit.find(*(f"known{number}@x.test" for number in range(12)))
    assert len(kit.asking) == 10
    assert kit.counted("saturated_total") == {"alias_answers": 2}


async def test_no_more_processes_run_than_may(tmp_path: Path) -> None:
    kit = Kit(tmp_path, "time.sleep(0.3)", alias_processes=2)
    tables = [f"regexp:/{number}" for number in range(4)]
    tasks = [asyncio.create_task(kit.find("a@x.test", item=item)) for item in tables]
    await until(lambda: len(kit.noted("pids")) == 2)
    await asyncio.sleep(0.1)
    assert len(kit.noted("pids")) == 2
    await asyncio.gather(*tasks)
    assert len(kit.noted("pids")) == 4
    assert kit.counted("saturated_total")["alias_processes"] > 0


async def test_when_it_is_closed_nothing_runs_any_more_and_nobody_waits(tmp_path: Path) -> None:
    kit = Kit(tmp_path, "time.sleep(60)", alias_processes=1, alias_timeout=30)
    tasks = [asyncio.create_task(kit.find("a@x.test"))]
    await until(lambda: kit.noted("pids"))
    tasks.append(asyncio.create_task(kit.find("b@x.test", item="regexp:/other")))
    await asyncio.sleep(0)
    await kit.asking.close()
    found = [answer for one in await asyncio.gather(*tasks) for answer in one.values()]
    assert all(isinstance(answer, Failure) for answer in found)
    (pid,) = map(int, kit.noted("pids"))
    await until(lambda: not alive(pid))
    assert (await kit.find("c@x.test")) == {"c@x.test": Failure("given up")}
