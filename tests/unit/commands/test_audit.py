"""``audit`` compares the forecasts in logs with what Postfix then did."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter import cli
from requiretls_milter.reports.audit import MAX_EARLY, MAX_TOLD, Audit, Result, audit

ID = "4dBGwW2XvVz1Kb"


def foreseen(
    status: str, reason: str = "ok", tls: str = "", *, form: str = "logfmt", **other: str
) -> str:
    """The milter's line of an accepted recipient."""
    fields: dict[str, str | None] = {
        "event": "recipient",
        "queue_id": ID,
        "to": "<u@example.org>",
        "requirement": "requiretls",
        "forecast": status,
        "reason": reason,
        "tls": tls or None,
        "action": "accept",
        "text": 'mx1 said "no", and so on',
        **other,
    }
    if form == "json":
        return json.dumps(fields)
    quoted = {key: (value or "").replace('"', '\\"') for key, value in fields.items()}
    line = " ".join(f'{key}="{value}"' for key, value in quoted.items())
    return f"Nov 24 19:00:00 mta requiretls-milter[38]: {line}"


def delivered(
    status: str, tls: str = "", said: str = "250 Ok", *, to: str = "u@example.org", extra: str = ""
) -> str:
    """Postfix's line of a delivery attempt."""
    word = {"2": "sent", "4": "deferred", "5": "bounced"}[status[0]]
    token = f"tls={tls}, " if tls else ""
    return (
        f"Nov 24 19:00:01 mta postfix/smtp[204]: {ID}: to=<{to}>, {extra}"
        f"relay=mx1.example.org[192.0.2.1]:25, delay=0.02, delays=0.01/0.01/0/0, {token}"
        f"dsn={status}, status={word} ({said})"
    )


def result(*lines: str) -> str:
    """How the only recipient in *lines* compares."""
    found = audit(lines)
    assert found.results.total() + found.waiting == 1
    return next(iter(found.results)).value if found.results else "waiting"


@pytest.mark.parametrize("form", ["logfmt", "json"])
@pytest.mark.parametrize(
    ("forecast", "delivery", "expected"),
    [
        (("2.0.0", "ok", "dane/requiretls"), ("2.0.0", "dane/requiretls"), "equal"),
        (("2.0.0",), ("2.6.0",), "equal"),  # what a success is called is the server's affair
        (("5.7.30", "requiretls_not_offered"), ("5.7.30",), "equal"),
        (("4.7.5", "tls_handshake_failed", "dane?"), ("4.7.5", "dane?"), "equal"),
        (("5.7.30", "requiretls_not_offered"), ("5.7.10",), "different"),
        (("2.0.0", "ok", "dane"), ("2.0.0", "may:none"), "different"),
        (("2.0.0", "ok", "dane"), ("2.0.0",), "equal"),  # no such word before 3.11
        (("2.0.0",), ("4.4.1",), "different"),
        (("5.7.30", "requiretls_not_offered"), ("2.0.0",), "different"),
        (("unknown", "unknown"), ("2.0.0",), "unknown"),
    ],
)
def test_status_and_token_are_compared(
    form: str, forecast: tuple[str, ...], delivery: tuple[str, ...], expected: str
) -> None:
    assert result(foreseen(*forecast, form=form), delivered(*delivery)) == expected


@pytest.mark.parametrize("command", ["MAIL FROM", "RCPT TO", "DATA", "end of DATA"])
def test_a_refusal_that_no_forecast_knows_is_no_difference(command: str) -> None:
    said = f"host mx1[192.0.2.1] said: 550 5.1.1 no (in reply to {command} command)"
    assert result(foreseen("2.0.0"), delivered("5.1.1", said=said)) == "later"
    failure = foreseen("5.7.30", "requiretls_not_offered")
    assert result(failure, delivered("5.1.1", said=said)) == "different"


def test_a_reply_to_ehlo_or_starttls_is_what_a_forecast_knows() -> None:
    said = "host mx1[192.0.2.1] said: 454 4.7.0 no (in reply to STARTTLS command)"
    assert result(foreseen("2.0.0"), delivered("4.7.0", said=said)) == "different"


def test_the_first_attempt_counts() -> None:
    lines = (foreseen("4.4.1", "unreachable"), delivered("4.4.1"), delivered("2.0.0"))
    assert result(*lines) == "equal"


def test_mail_that_waits_for_a_next_hop_in_trouble_was_not_tried() -> None:
    suspended = "delivery temporarily suspended: connect to mx1[192.0.2.1]:25: refused"
    forecast = foreseen("4.4.1", "unreachable")
    assert result(forecast, delivered("4.4.1", said=suspended)) == "waiting"
    assert result(forecast, delivered("4.4.1", said=suspended), delivered("4.4.1")) == "equal"


def test_the_recipient_is_the_one_that_the_milter_saw() -> None:
    alias = delivered("2.0.0", to="v@elsewhere.example", extra="orig_to=<U@Example.org>, ")
    assert result(foreseen("2.0.0"), alias) == "equal"
    assert audit([foreseen("2.0.0"), delivered("2.0.0", to="v@example.org")]).waiting == 1


@pytest.mark.parametrize(
    "line",
    [
        foreseen("5.7.30", "requiretls_not_offered", action="reject"),
        foreseen("5.7.30", "requiretls_not_offered", action="defer"),
        foreseen("2.0.0", "local"),
        foreseen("2.0.0", event="message"),
        foreseen("2.0.0", queue_id=""),
        "event=recipient",
    ],
    ids=["refused", "deferred", "local", "no-recipient", "no-id", "nothing"],
)
def test_what_has_no_delivery_to_compare_is_passed_over(line: str) -> None:
    assert audit([line, delivered("2.0.0")]) == Audit()


def test_lines_of_two_programs_may_cross() -> None:
    assert result(delivered("2.0.0"), foreseen("2.0.0")) == "equal"


def test_what_is_kept_is_bounded() -> None:
    others = (delivered("2.0.0", to=f"u{n}@example.org") for n in range(MAX_EARLY))
    assert result(delivered("2.0.0"), *others, foreseen("2.0.0")) == "waiting"
    many = audit(
        line
        for n in range(MAX_TOLD + 5)
        for line in (
            foreseen("2.0.0", to=f"<u{n}@example.org>"),
            delivered("4.4.1", to=f"u{n}@example.org"),
        )
    )
    assert many.results[Result.DIFFERENT] == MAX_TOLD + 5
    assert len(many.differences) == MAX_TOLD


@given(st.lists(st.text() | st.sampled_from((foreseen("2.0.0"), delivered("2.0.0"))), max_size=6))
def test_no_line_does_harm(lines: list[str]) -> None:
    audit(lines)


# ---------------------------------------------------------------- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", *map(str, arguments)])
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def test_all_equal_is_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = tmp_path / "milter.log", tmp_path / "mail.log.1.gz"
    ours.write_text(foreseen("2.0.0") + "\n")
    theirs.write_bytes(gzip.compress(f"{delivered('2.0.0')}\n".encode()))
    status, told, _ = run(capsys, ours, theirs)
    assert status == 0
    assert told.startswith("1 forecasts with a delivery attempt, 0 without one\n  equal      1\n")


def test_a_difference_is_told_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "mail.log"
    forecast = foreseen("5.7.30", "requiretls_not_offered", "dane/!requiretls:none")
    delivery = delivered("2.0.0", "dane/requiretls", "fine \x1b[31m")
    log.write_text(f"{forecast}\n{delivery}\n")
    status, told, _ = run(capsys, log)
    assert status == 1
    assert (
        f"{ID} to=<u@example.org>: forecast 5.7.30 requiretls_not_offered dane/!requiretls:none\n"
        "    was 2.0.0 dane/requiretls: fine \\x1b[31m\n"
    ) in told
    status, told, _ = run(capsys, log, "--format", "json")
    found: dict[str, Any] = json.loads(told)
    assert (status, found["different"], found["equal"]) == (1, 1, 0)
    assert found["differences"][0]["delivery"]["status"] == "2.0.0"


@pytest.mark.parametrize("name", ["missing", "mail.log.gz"])
def test_a_log_that_cannot_be_read_is_status_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mail.log.gz").write_bytes(b"no gzip at all")
    status, told, error = run(capsys, tmp_path / name)
    assert (status, told) == (2, "")
    assert error.startswith("error: ")
