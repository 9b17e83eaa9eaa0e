"""What is read of a sendmail.cf."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.doctor import sendmailcf
from requiretls_milter.doctor.sendmailcf import Filter, SendmailError, parse, read
from tests.support.sendmails import CF, changed


def test_options_filters_and_rulesets_are_read() -> None:
    found = parse(CF)
    assert found.version == "8.18.1/Debian-6"
    assert found.option("cacertfile") == "/etc/mail/ca.pem"
    assert found.option("HostStatusDirectory") == ""
    assert found.is_true("ForkEachJob")
    assert not found.is_true("DANE")
    assert found.daemons == ("Name=MTA, Family=inet, Addr=127.0.0.1, Port=smtp",)
    assert found.filters == {
        "requiretls": Filter(
            "requiretls",
            "unix:/run/requiretls-milter/milter.sock",
            "T",
            {"S": 30, "R": 30, "E": 60},
        )
    }
    assert len(found.rulesets["local_tls_server"]) == 4


@pytest.mark.parametrize(
    ("text", "seconds"), [("R:5", 5), ("R:2m", 120), (" R : 7s ; E:1h", 7), ("E:1h", 10), ("R", 10)]
)
def test_a_time_limit_that_is_not_set_has_its_default(text: str, seconds: int) -> None:
    found = parse(changed(("T=S:30s;R:30s;E:1m", f"T={text}")))
    assert found.filters["requiretls"].timeout("R") == seconds


def test_a_line_that_begins_with_a_blank_goes_on() -> None:
    found = parse(changed(("F=T, T=S", "F=T,\n\tT=S")))
    assert found.filters["requiretls"].timeout("E") == 60


@pytest.mark.parametrize(
    ("line", "expected"),
    [("O DANE=true", True), ("O DANE=yes", True), ("O DANE", True), ("O DANE=False", False)],
)
def test_a_boolean_is_read_as_sendmail_does(line: str, expected: bool) -> None:
    assert parse(f"V10\n{line}\n").is_true("DANE") is expected


def test_paths_are_below_the_root_in_which_the_file_lies(tmp_path: Path) -> None:
    path = tmp_path / "etc/mail/sendmail.cf"
    path.parent.mkdir(parents=True)
    path.write_text(CF)
    assert read(path).path("/run/m.sock") == tmp_path / "run/m.sock"
    other = tmp_path / "other.cf"
    other.write_text(CF)
    assert read(other).path("/run/m.sock") == Path("/run/m.sock")


def test_a_source_that_is_newer_is_noticed(tmp_path: Path) -> None:
    path, source = tmp_path / "sendmail.cf", tmp_path / "sendmail.mc"
    path.write_text(CF)
    assert not read(path).is_outdated
    source.write_text("dnl")
    os.utime(path, (1, 1))
    assert read(path).is_outdated


def test_what_is_no_sendmail_cf_is_told(tmp_path: Path) -> None:
    with pytest.raises(SendmailError, match="No such file"):
        read(tmp_path / "gone.cf")
    with pytest.raises(SendmailError, match=r"no sendmail\.cf"):
        parse("smtpd_milters = inet:localhost:1\n")
    large = tmp_path / "large.cf"
    large.write_bytes(b"#" * (sendmailcf.MAX_BYTES + 1))
    with pytest.raises(SendmailError, match="is larger than"):
        read(large)


@given(st.text(alphabet="VOXSRD \t\n=,;:.#Tt0a\x00\u2603", max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert parse(f"V10\n{text}").root == Path("/")
