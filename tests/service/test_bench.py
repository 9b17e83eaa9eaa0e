"""The benchmark itself: it runs, measures what it says, and notices when it does not."""

from __future__ import annotations

import itertools
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.figures import figure, ratio
from tests.bench.known import ROWS
from tests.bench.load import FIELDS, MESSAGES, PLAIN, Load, record
from tests.bench.mail import baseline
from tests.bench.trees import environment, tree_of
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.support.milterclient import ProtocolError
from tests.support.paths import REPOSITORY
from tests.support.processes import Ended
from tests.support.service import Service

pytestmark = [pytest.mark.xdist_group("bench"), pytest.mark.once, pytest.mark.timeout(300)]


def bench(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quick_run_measures_every_row_that_needs_no_lab() -> None:
    found = json.loads(bench("--quick", "--json", "plain", "asked", "judge", "scrape"))
    assert found["quick"]
    assert found["machine"]["cores"] >= 1
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["plain", "asked", "judge", "scrape"]
    for name in ("plain", "asked"):
        assert [data["connections"] for data in rows[name]["data"]] == [1, 8, 64]
        for data in rows[name]["data"]:
            assert list(data["milters"]) == ["ours", "C", "floor", "pymilter"]
            for measured in data["milters"].values():
                assert measured["rate"]["median"] > 0
                assert 0 < measured["p50_ms"]["median"] <= measured["p99_ms"]["median"]
                assert 0 < measured["cpu_us"]["median"] < 100_000
            assert data["ratios"]["C"]["rate"]["ratio"] > 0
            assert data["ratios"]["floor"]["rate"]["ratio"] > 0
            assert data["ratios"]["pymilter"]["rate"]["ratio"] > 0
    assert all(case["median"] > 0 for case in rows["judge"]["data"])
    assert all(0 < case["octets"] < 1_000_000 for case in rows["scrape"]["data"])


CASES = {
    "warm": {"1 at once": "a socket", "16 at once": "a socket"},
    "startup": {"500 domains": "an empty store"},
    "cli": dict.fromkeys(("--help", "check of one name", "status"), "python -c pass"),
    "memory": {
        "an MX host": "data",
        "a domain": "data",
        "a forecast in a worker": "data",
        "a forecast in the engine": "data",
        "2 workers, idle": "pymilter",
        "4 workers, idle": "pymilter",
    },
    "store": {"SQLite, write": "sqlite3", "SQLite, read": "sqlite3"},
}
"""The cases of each row, with the baseline that comes first."""


def assert_beside(row: dict[str, Any], cases: dict[str, str]) -> None:
    """Each case has a figure of ours, and a ratio to its baseline."""
    data = {case["case"]: case for case in row["data"]}
    assert cases.keys() <= data.keys()
    for title, beside in cases.items():
        ours, theirs = itertools.islice(data[title]["figures"], 2)
        assert theirs == beside
        for figures in (data[title]["figures"][ours], data[title]["ratios"][theirs]):
            assert figures
            assert all(one.get("median", one.get("ratio")) > 0 for one in figures.values())


@pytest.mark.parametrize("name", CASES)
def test_quick_run_measures_every_case_of_a_row_beside_its_baseline(name: str) -> None:
    (row,) = json.loads(bench("--quick", "--json", name))["rows"]
    assert row["name"] == name
    assert_beside(row, CASES[name])


def test_postfix_and_the_programs_of_others_are_measured_where_the_lab_can_run() -> None:
    found = json.loads(bench("--quick", "--json", "postfix", "peers"))["rows"]
    rows = {row["name"]: row for row in found}
    for row in rows.values():
        if row["skipped"]:
            unavailable(LabUnavailable(row["skipped"]))
    assert_beside(rows["postfix"], {"1 at once": "C", "8 at once": "C"})
    peers = {"MTA-STS look-up": "mta-sts-resolver", "probe": "posttls-finger"}
    assert_beside(rows["peers"], peers)


def test_every_row_is_described() -> None:
    page = (REPOSITORY / "docs/benchmarks.md").read_text()
    described = re.findall(r"^\| `(\w+)` \| [^|]+ \|", page, re.MULTILINE)
    assert sorted(described) == sorted(ROWS)


@pytest.mark.alone  # on a busy machine a healthy domain can be late, too
def test_healthy_domains_are_asked_about_beside_each_kind_of_slow_ones() -> None:
    (row,) = json.loads(bench("--quick", "--json", "tarpits"))["rows"]
    assert [data["slow"] for data in row["data"]] == [0, 3, 3, 3]
    assert len({data["kind"] for data in row["data"]}) == 4
    for data in row["data"]:
        assert (data["asked"], data["unknown"]) == (5, 0)
        assert 0 < data["p50"] <= data["p99"] <= data["worst"]


def test_a_simulated_day_has_hardly_a_wait_and_no_further_session() -> None:
    (row,) = json.loads(bench("--quick", "--json", "day"))["rows"]
    before, after = row["data"]
    assert before["messages"] == after["messages"] == 100
    assert 0 < before["seen"] == after["seen"]
    assert before["waited"] > 0.5 * before["seen"]
    assert before["stale"] == 0
    assert after["waited"] <= 0.01 * after["seen"]
    assert 0 < after["sessions"] <= 1.05 * before["sessions"]


def test_tables_name_what_was_measured_and_on_what() -> None:
    out = bench("--quick", "judge")
    assert f"Python {sys.version.split()[0]}" in out
    assert "forecasts/s" in out
    assert "by the letter of RFC 8689" in out


def test_a_message_has_25_fields_and_each_connection_10_messages() -> None:
    assert (len(FIELDS), MESSAGES) == (25, 10)


def test_every_message_that_is_counted_went_the_whole_way_through_the_milter(
    tmp_path: Path,
) -> None:
    with baseline(tmp_path) as milter:
        record(milter.socket, PLAIN, milter.script)
        run = Load().send(milter.socket, milter.script, connections=3, seconds=0.3, warmup=0.1)
    assert 0 < run.messages <= run.all
    assert run.edits == run.all
    assert run.all // MESSAGES <= run.connections <= run.all // MESSAGES + 3


def test_an_answer_other_than_the_recorded_one_ends_the_run(tmp_path: Path) -> None:
    with baseline(tmp_path) as milter:
        record(milter.socket, PLAIN, milter.script)
        script = milter.script.read_bytes()
        length = struct.unpack(">I", script[:4])[0]
        # what the milter agreed to comes after what the MTA offers, and ends with the flags
        changed = bytearray(script)
        changed[4 + length + 4 + 4 + 1 + 11] ^= 1
        milter.script.write_bytes(changed)
        with pytest.raises(ProtocolError, match="negotiation other than recorded"):
            Load().send(milter.socket, milter.script, connections=1, seconds=0.1, warmup=0.0)


def test_the_load_is_faster_than_what_it_measures(tmp_path: Path) -> None:
    load = Load()
    with baseline(tmp_path) as milter:
        record(milter.socket, PLAIN, milter.script)
        measured = load.send(milter.socket, milter.script, connections=8, seconds=0.3, warmup=0.1)
    with load.answering(tmp_path / "answers.sock", milter.script):
        socket = str(tmp_path / "answers.sock")
        most = load.send(socket, milter.script, connections=8, seconds=0.3, warmup=0.1)
    # of processor time, which other things that the machine does leave alone
    spent = measured.load_cpu / measured.rate
    assert measured.load_cpu < 0.5
    assert spent < 1e-4
    assert most.edits == 0
    assert most.messages > 0


def test_figures_are_medians_and_ratios_come_from_neighbouring_runs() -> None:
    ours, theirs = figure([10.0, 20.0, 30.0]), figure([5.0, 10.0, 10.0])
    assert (ours.median, ours.low, ours.high) == (20.0, 15.0, 25.0)
    assert figure([7.0]).low == 7.0
    found = ratio(ours, theirs)
    assert found.ratio == 2.0
    assert (found.low, found.high) == (2.0, 2.5)


def test_an_earlier_commit_is_measured_in_turn_with_this_tree() -> None:
    rows = ("plain", "judge", "warm")  # one that is measured in its own process, two that are not
    found = json.loads(bench("--quick", "--json", "--against", "HEAD", "--rounds", "1", *rows))
    figures = {
        row["name"]: {one["what"]: one["ratio"] for one in row["data"]} for row in found["rows"]
    }
    assert figures.keys() == set(rows)
    assert {"1 connections, messages/s", "64 connections, CPU \u00b5s"} <= figures["plain"].keys()
    assert "by the letter of RFC 8689, DANE, median" in figures["judge"]
    assert "16 at once, CPU \u00b5s" in figures["warm"]
    assert all(ratio > 0 for row in figures.values() for ratio in row.values())


def test_the_package_that_is_measured_is_the_earlier_commits() -> None:
    with tree_of("HEAD") as tree:
        package = tree / "requiretls_milter"
        (package / "rules.py").write_text("raise RuntimeError('of another commit')\n")
        words = (sys.executable, "-c", "import requiretls_milter.rules")
        done = subprocess.run(words, cwd=tree, env=environment(tree), stderr=subprocess.PIPE)
        assert b"of another commit" in done.stderr
        service = Service(tree=tree)
        try:
            with pytest.raises(Ended, match="of another commit"):
                service.start()
        finally:
            service.destroy()


def test_a_commit_that_is_not_there_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--against", "no-such-commit", "plain"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no-such-commit" in done.stderr
