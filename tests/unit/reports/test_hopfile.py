"""Next hops from a file: lines of any length, number and bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.reports.hopfile import MAX_LINE, HopLine, count_of, lines_of, read


def test_blank_lines_and_comments_are_left_out_and_the_numbers_stay() -> None:
    text = "a.test\n\n  # partners\n \tb.test \r\nc.test"
    assert list(lines_of(io.StringIO(text))) == [
        HopLine(1, "a.test"),
        HopLine(4, "b.test"),
        HopLine(5, "c.test"),
    ]


def test_a_list_of_domains_for_a_rule_can_be_read_its_patterns_name_no_next_hop() -> None:
    text = "# partners\na.test # since March\n.sub.test\nb.test\n"
    assert list(lines_of(io.StringIO(text))) == [HopLine(2, "a.test"), HopLine(4, "b.test")]


def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_a_line_again() -> None:
    text = "a" * (MAX_LINE * 3) + "\nb.test\n" + "c" * MAX_LINE + "\n" + "d" * (MAX_LINE + 1)
    assert list(lines_of(io.StringIO(text))) == [
        HopLine(1, "a" * MAX_LINE, True),
        HopLine(2, "b.test"),
        HopLine(3, "c" * MAX_LINE),
        HopLine(4, "d" * MAX_LINE, True),
    ]


@given(st.text(max_size=200))
def test_whatever_stands_in_a_file_each_line_has_text_and_a_bound(text: str) -> None:
    found = list(lines_of(io.StringIO(text)))
    assert all(line.text and len(line.text) <= MAX_LINE for line in found)
    assert [line.number for line in found] == sorted({line.number for line in found})


async def test_a_file_is_counted_and_then_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "domains"
    path.write_text("a.test\n#\nb.test\n")
    with path.open() as file:
        assert count_of(file) == 2
        assert [line.text async for line in read(file)] == ["a.test", "b.test"]


def test_how_many_lines_a_pipe_will_have_is_not_known() -> None:
    ours, theirs = os.pipe()
    with open(ours) as file, open(theirs, "w"):
        assert count_of(file) is None
