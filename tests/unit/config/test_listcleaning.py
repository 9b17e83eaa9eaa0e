"""A list of domains as a spreadsheet exports it becomes one that the configuration takes."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.config.domainlist import read_lines
from requiretls_milter.config.listcleaning import clean, sentence


def test_what_is_right_stays_as_it_is_with_its_comments() -> None:
    text = "# Partners.\n\nBank.example\nb\u00fccher.example  # since March\n.sub.example\n"
    cleaned = clean(text.encode())
    assert cleaned.text == text
    assert cleaned.findings == []
    assert list(cleaned.domains) == ["bank.example", "xn--bcher-kva.example", ".sub.example"]


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("bank.example.", "bank.example."),  # a trailing dot is right
        ("*.clinic.example", ".clinic.example"),
        ("it@lawyer.example", "lawyer.example"),
        ("<it@lawyer.example>", "lawyer.example"),
        ("https://notary.example/contact", "notary.example"),
        ('"quoted.example",', "quoted.example"),
        ("17;bank.example;2026", "bank.example"),
        ("mx.example:25", "mx.example"),
        ("it@lawyer.example  # by phone", "lawyer.example  # by phone"),
        ("a.example, b.example", "a.example\nb.example"),
    ],
)
def test_what_was_meant_is_written(line: str, written: str) -> None:
    assert clean(f"{line}\n".encode()).text == f"{written}\n"


@pytest.mark.parametrize("line", ["192.0.2.9", "*", "a b", "-x-", "\x00", "Domain", ";Domain"])
def test_a_line_that_names_no_domain_stays_as_a_comment(line: str) -> None:
    cleaned = clean(f"{line}\ngood.example\n".encode())
    first, second = cleaned.lines
    assert first.startswith("# not a domain: ")
    assert second == "good.example"
    assert cleaned.unusable == 1
    assert cleaned.findings[0].line == 1


def test_each_domain_stands_once_however_it_is_written() -> None:
    cleaned = clean(b"Bank.Example\nbank.example.\nit@bank.example\n")
    assert cleaned.lines == ["Bank.Example"]
    assert cleaned.repeated == 2


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + "b\u00fccher.example\r\n".encode(),
        codecs.BOM_UTF16_LE + "b\u00fccher.example\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "b\u00fccher.example\r\n".encode("utf-16-be"),
        "b\u00fccher.example\r\n".encode("cp1252"),
    ],
)
def test_what_spreadsheets_save_is_read(content: bytes) -> None:
    assert clean(content).text == "b\u00fccher.example\n"


def test_every_wrong_line_is_told_with_what_to_write() -> None:
    cleaned = clean(b"x@d.example\n" * 500)
    assert len(cleaned.findings) == 500
    assert sentence(cleaned.findings[499]) == (
        '"x@d.example" is an address, not a domain name; write "d.example"'
    )
    assert sentence(clean(b"192.0.2.9").findings[0]).endswith("is an IP address, not a domain name")


@given(st.binary() | st.text().map(str.encode))
def test_a_clean_list_is_one_that_the_configuration_takes(content: bytes) -> None:
    cleaned = clean(content)
    read = read_lines(cleaned.text.encode())
    assert (read.wrong, read.repeated) == (0, 0)
    assert list(read.domains) == list(cleaned.domains)
    assert clean(cleaned.text.encode()).findings == []
