"""Tables of aliases as files, read and read again."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from requiretls_milter import aliases
from requiretls_milter.aliases import AliasKeeper, AliasTables
from requiretls_milter.config import Config
from requiretls_milter.syntax.expansion import ExpansionError
from requiretls_milter.telemetry.counting import Counters
from tests.support.waiting import eventually

AGO = time.time_ns() - 60_000_000_000
"""A minute ago: what was changed just now is read once more."""


class Files:
    """Writes sources with times, and what postmap(1) would make of them, of which time counts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._clock = AGO

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self._clock += 1_000_000
        os.utime(path, ns=(self._clock, self._clock))
        return path

    def compile(self, name: str) -> None:
        self.write(f"{name}.db", "")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def tables(
    items: Sequence[str], *, limit: int = 1000, counters: Counters | None = None
) -> AliasTables:
    config = Config.model_validate(
        {
            "mta": {
                "aliases": "static",
                "virtual_alias_maps": items,
                "myorigin": "mine.test",
                "mydestination": ["mine.test"],
            }
        }
    )
    return AliasTables(config.mta, limit, counters or Counters(()))


def looked(made: AliasTables, recipient: str = "a@x.test") -> str:
    """What a recipient becomes after a look at the files, or why that is not known."""
    made.texts.look()
    try:
        return " ".join(made.expand(recipient).addresses)
    except ExpansionError as error:
        return str(error)


# ---------------------------------------------------------------- what is read


def test_a_source_is_read_beside_what_postmap_made_of_it(files: Files) -> None:
    path = files.write("virtual", "# ours\nA@X.test  b@z.test,\n  c@z.test\n")
    files.compile("virtual")
    assert looked(tables([f"hash:{path}"])) == "b@z.test c@z.test"
    assert looked(tables([f"proxy:hash:{path}"])) == "b@z.test c@z.test"


def test_tables_that_need_no_file_are_read(files: Files) -> None:
    assert looked(tables(["inline:{ { A@x.test = b@z.test } }"])) == "b@z.test"
    assert looked(tables(["inline:{ a@x.test=b@z.test A@x.test=c@z.test }"])) == "c@z.test"
    path = files.write("text", "a b\n")
    items = [f"texthash:{path}", "inline:{ { b = c@z.test } }"]
    assert looked(tables(items), "a@mine.test") == "c@z.test"


def test_a_static_table_has_the_same_for_all() -> None:
    # It expands to itself at once, or Postfix would go round in a circle.
    assert looked(tables(["static:all@z.test"]), "a@x.test") == "all@z.test"


def test_postmap_keeps_the_first_of_two_entries(files: Files) -> None:
    path = files.write("virtual", "a@x.test b@z.test\nA@x.test c@z.test\n")
    files.compile("virtual")
    assert looked(tables([f"hash:{path}"])) == "b@z.test"


def test_a_text_in_which_a_key_stands_twice_is_not_opened(files: Files) -> None:
    path = files.write("text", "a@x.test b@z.test\nA@x.test c@z.test\n")
    assert "twice" in looked(tables([f"texthash:{path}"]))


def test_a_table_that_cannot_be_read_is_doubt_and_not_absence(files: Files) -> None:
    path = files.directory / "missing"
    made = tables([f"texthash:{path}"])
    assert looked(made) == f"texthash:{path}: No such file or directory"
    assert made.texts.unreadable == {f"texthash:{path}": "No such file or directory"}


def test_what_a_table_before_it_has_needs_no_table_that_cannot_be_read(files: Files) -> None:
    items = ["inline:{ { a@x.test = a@x.test, b@z.test } }", "ldap:/etc/postfix/ldap.cf"]
    made = tables(items)
    assert "ldap" in looked(made, "c@x.test")
    assert "ldap" in looked(made)  # b@z.test could be in it


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("regexp:/etc/postfix/virtual", "no text"),
        ("inline:{ broken }", "Postfix would not take it"),
    ],
)
def test_what_has_no_text_that_can_be_read_is_named(item: str, why: str) -> None:
    assert why in looked(tables([item]))


def test_what_is_no_regular_file_is_not_waited_for(files: Files) -> None:
    fifo = files.directory / "fifo"
    os.mkfifo(fifo)
    assert "not a regular file" in looked(tables([f"texthash:{fifo}"]))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(files.directory / "socket"))
        assert looked(tables([f"texthash:{files.directory}/socket"])).endswith("address")
    assert "directory" in looked(tables([f"texthash:{files.directory}"]))


def test_a_text_that_is_too_large_is_not_read(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases, "MAX_SOURCE_BYTES", 20)
    fits = files.write("fits", "a@x.test b@z.test\n".ljust(20))
    assert looked(tables([f"texthash:{fits}"])) == "b@z.test"
    too_large = files.write("too-large", "x" * 21)
    assert "20 octets" in looked(tables([f"texthash:{too_large}"]))


def test_a_line_that_is_not_utf8_has_no_effect(files: Files) -> None:
    path = files.write("text", b"\xff@x.test b@z.test\na@x.test c@z.test\n")
    assert looked(tables([f"texthash:{path}"])) == "c@z.test"


# ---------------------------------------------------------------- limits


def test_all_tables_together_have_at_most_so_many_entries_and_one_more_is_counted(
    files: Files,
) -> None:
    first = files.write("first", "a@x.test b@z.test\nc@x.test d@z.test\n")
    second = files.write("second", "e@x.test f@z.test\n")
    counters = Counters(())
    items = [f"texthash:{first}", f"texthash:{second}"]
    assert looked(tables(items, limit=3, counters=counters), "e@x.test") == "f@z.test"
    assert full(counters) == 0
    made = tables(items, limit=2, counters=counters)
    assert "limits.alias_entries" in looked(made, "e@x.test")
    assert "limits.alias_entries" in looked(made, "e@x.test")
    assert full(counters) == 1


def full(counters: Counters) -> float:
    met = ("saturated_total", ("alias_entries",))
    return sum(value for name, labels, value in counters.totals().counters if (name, labels) == met)


# ---------------------------------------------------------------- changes


def test_a_text_is_read_again_when_it_has_changed(files: Files) -> None:
    made = tables([f"texthash:{files.write('text', 'a@x.test b@z.test')}"])
    assert looked(made) == "b@z.test"
    files.write("text", "a@x.test c@z.test")
    assert looked(made) == "c@z.test"
    (files.directory / "text").unlink()
    assert "No such file" in looked(made)
    files.write("text", "a@x.test d@z.test")
    assert looked(made) == "d@z.test"


def test_a_text_that_changes_just_now_is_read_once_more(files: Files) -> None:
    path = files.write("text", "a@x.test b@z.test")
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    made = tables([f"texthash:{path}"])
    assert looked(made) == "b@z.test"
    path.write_text("a@x.test c@z.test")
    os.utime(path, ns=(now, now))  # the clock of a file system may be coarse
    assert looked(made) == "c@z.test"


def test_a_source_counts_once_postmap_has_run(files: Files) -> None:
    path = files.write("virtual", "a@x.test b@z.test")
    made = tables([f"hash:{path}"])
    assert "No such file" in looked(made)
    files.compile("virtual")
    assert looked(made) == "b@z.test"
    files.write("virtual", "a@x.test c@z.test")
    assert looked(made) == "b@z.test"  # as Postfix still has it
    files.compile("virtual")
    assert looked(made) == "c@z.test"


def test_a_source_that_was_changed_before_the_start_is_doubt_until_postmap_runs(
    files: Files,
) -> None:
    files.compile("virtual")
    made = tables([f"hash:{files.write('virtual', 'a@x.test b@z.test')}"])
    assert "after postmap" in looked(made)
    assert "after postmap" in looked(made)
    files.compile("virtual")
    assert looked(made) == "b@z.test"


def test_what_did_not_change_is_not_read_again(files: Files) -> None:
    path = files.write("text", "a@x.test b@z.test\n")
    made = tables([f"texthash:{path}"])
    made.texts.look()
    seen = path.stat()
    path.write_text("a@x.test c@z.test\n")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert looked(made) == "b@z.test"


# ---------------------------------------------------------------- the log


def test_the_log_says_once_why_a_table_cannot_be_read(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tables([f"texthash:{files.directory}/text"])
    made.texts.look()
    made.texts.look()
    files.write("text", "a@x.test b@z.test")
    made.texts.look()
    made.texts.look()
    (files.directory / "text").unlink()
    made.texts.look()
    logged = "".join(capsys.readouterr())
    assert logged.count("alias_table_unreadable") == 2
    assert logged.count("alias_table_read") == 1


def test_the_log_and_the_reason_show_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    made = tables(["mysql:{ { password = geheim } }"])
    made.texts.look()
    with pytest.raises(ExpansionError, match=r"^mysql:\{\.\.\.\}: a table of type mysql"):
        made.expand("a@x.test")
    assert list(made.texts.unreadable) == ["mysql:{...}"]
    logged = "".join(capsys.readouterr())
    assert "mysql:{...}" in logged
    assert "geheim" not in logged


# ---------------------------------------------------------------- the thread


@pytest.fixture
def keeper() -> Iterator[AliasKeeper]:
    made = AliasKeeper(Counters(()))
    yield made
    made.tables(Config())  # ends the thread


def config(item: str) -> Config:
    return Config.model_validate({"mta": {"aliases": "static", "virtual_alias_maps": [item]}})


def test_without_aliases_nothing_is_read(keeper: AliasKeeper) -> None:
    before = threading.active_count()
    assert keeper.tables(Config()) is None
    assert threading.active_count() == before


def test_a_worker_has_its_tables_when_it_begins_and_again_when_they_change(
    files: Files, keeper: AliasKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliases, "LOOK_AGAIN", 0.01)
    chosen = config(f"texthash:{files.write('text', 'a@x.test b@z.test')}")
    made = keeper.tables(chosen)
    assert made is not None
    assert made.expand("a@x.test").addresses == ("b@z.test",)
    assert keeper.tables(chosen) is made
    files.write("text", "a@x.test c@z.test")
    eventually(lambda: made.expand("a@x.test").addresses == ("c@z.test",))


def test_a_new_configuration_has_new_tables(files: Files, keeper: AliasKeeper) -> None:
    first = keeper.tables(config("inline:{ { a@x.test = b@z.test } }"))
    second = keeper.tables(config("inline:{ { a@x.test = c@z.test } }"))
    assert first is not None
    assert second is not None
    assert first.expand("a@x.test").addresses == ("b@z.test",)  # for connections that are open
    assert second.expand("a@x.test").addresses == ("c@z.test",)


def test_tables_that_are_not_read_in_time_are_not_waited_for(
    files: Files, keeper: AliasKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that hangs: opening the file does not return."""
    monkeypatch.setattr(aliases, "FIRST_READ", 0.05)
    path = files.write("text", "a@x.test b@z.test")
    back = threading.Event()
    real = os.open

    def hanging(name: str | Path, flags: int) -> int:
        back.wait()
        return real(name, flags)

    monkeypatch.setattr(os, "open", hanging)
    made = keeper.tables(config(f"texthash:{path}"))
    assert made is not None
    with pytest.raises(ExpansionError, match="not read yet"):
        made.expand("a@x.test")
    back.set()
    eventually(lambda: not made.texts.unreadable)
    assert made.expand("a@x.test").addresses == ("b@z.test",)
