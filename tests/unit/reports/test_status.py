"""``status``: what is said of a running service, and its exit status."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from requiretls_milter import __version__
from requiretls_milter.config import Config
from requiretls_milter.ipc.wire import Failing, WatchedStatus
from requiretls_milter.model import Mode
from requiretls_milter.reports.status import StatusFound, as_json, as_text, exit_status
from tests.support.overviews import CONFIG, NOW, domain_status, overview


def found(
    *, file: Config | None = CONFIG, mistakes: tuple[str, ...] = (), **more: Any
) -> StatusFound:
    """A service that is well, but for *more*."""
    one = overview(**more)
    return StatusFound(one.reply, one.service, one.condition, file, mistakes, NOW)


def test_a_service_that_is_well_is_status_0() -> None:
    assert exit_status(found()) == 0
    assert as_json(found())["state"] == "well"
    assert as_text(found()).startswith(f"requiretls-milter {__version__}, up 1 d 1 h: well\n")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"problems": ("worker-1 is not ready",)}, "worker-1 is not ready"),
        ({"reload_succeeded": False}, "the last reload failed"),
        ({"file": None, "mistakes": ("line 3: wrong",)}, "a restart would fail"),
        ({"suspended": True}, "rules are suspended"),
        ({"resolver_validates": False}, "not seen to validate"),
        ({"outbound": {"smtp": False, "dns": True}}, "appears to be down (smtp)"),
        ({"store_up": False}, "the store does not work"),
    ],
)
def test_what_is_wrong_makes_it_degraded_and_is_said_first(more: dict[str, Any], said: str) -> None:
    one = found(**more)
    assert exit_status(one) == 1
    assert said in as_text(one).splitlines()[1]
    assert any(said in text for text in as_json(one)["problems"])


def test_a_file_that_says_something_else_is_told_by_section_and_is_no_degradation() -> None:
    other = Config.model_validate({"rules": {"mode": "reject"}, "log": {"level": "debug"}})
    one = found(file=other)
    assert exit_status(one) == 0
    assert as_json(one)["config"]["differs_in"] == ["log", "rules"]
    assert "  - the file differs in [log], [rules] from what is in force" in as_text(one)


def test_a_suspension_by_command_is_no_difference_of_the_file() -> None:
    rules = CONFIG.rules.model_copy(update={"suspended": True})
    digests = CONFIG.model_copy(update={"rules": rules}).digests()
    assert found(suspended=True, config_digests=digests).differs_in == []
    later = Config.model_validate({"rules": {"suspended": True}})
    assert found(file=later).differs_in == ["rules"]


def test_each_configured_domain_has_state_reason_age_and_since_when() -> None:
    domain = domain_status("bank.example", False, mode=Mode.REJECT, reply="550 5.7.30")
    one = found(domains=(domain,), domains_configured=3)
    text = as_text(one)
    assert (
        "  bank.example  NOT READY  5.7.30 requiretls_not_offered; mode reject answers "
        "550 5.7.30; seen 3 min ago, like that for 2 d 7 h" in text
    )
    assert "0 of 1 ready; 2 more are not shown, or not assessed yet" in text
    (shown,) = as_json(one)["domains"]
    assert (shown["state"], shown["since"]) == ("bounce", "2027-01-13T00:26:40Z")
    assert (shown["mode"], shown["reply"], shown["nexthop"]) == (
        "reject",
        "550 5.7.30",
        "bank.example",
    )


def test_a_domain_whose_mail_goes_by_a_gateway_is_told_with_it() -> None:
    one = found(
        domains=(domain_status("bank.example", True, nexthop="[gateway.example]"),),
        domains_configured=1,
    )
    assert "2.0.0 ok; mode monitor accepts; seen 3 min ago" in as_text(one)
    assert as_text(one).endswith("; by [gateway.example]")
    assert as_json(one)["domains"][0]["nexthop"] == "[gateway.example]"


# ---------------------------------------------------------------- the watch

WATCHED = WatchedStatus(
    domain="example.org",
    severity="broken",
    verdict="Breaks first: starttls_not_offered of mx.example.org, now.",
    problems=2,
    observed_at=NOW - 120,
)
FAILING = Failing(since=NOW - 3_600, error="127.0.0.1:25: Connection refused")


def test_each_watched_domain_is_told_and_degrades_nothing() -> None:
    one = found(watched=(WATCHED,), domains_watched=2)
    text = as_text(one)
    assert "Watched        0 of 1 in good order; 1 more are not shown, or not seen yet\n" in text
    assert text.endswith(
        "  example.org  BROKEN     Breaks first: starttls_not_offered of mx.example.org, now. "
        "(seen 2 min ago)"
    )
    assert exit_status(one) == 0
    (told,) = as_json(one)["watched"]
    assert (told["domain"], told["severity"], told["problems"]) == ("example.org", "broken", 2)
    assert "Watched" not in as_text(found())


def test_mail_of_the_watch_that_is_not_taken_degrades_the_service() -> None:
    one = found(mail_failing=FAILING)
    said = "mail about watched domains is not taken since 1 h: 127.0.0.1:25: Connection refused"
    assert exit_status(one) == 1
    assert as_json(one)["problems"] == [said]
    assert as_json(one)["watch_mail_failing"] == {
        "since": "2027-01-15T07:00:00Z",
        "error": "127.0.0.1:25: Connection refused",
    }


def test_a_command_of_the_watch_that_failed_is_a_note() -> None:
    one = found(notify_failing=FAILING)
    assert exit_status(one) == 0
    assert as_json(one)["notes"][0].startswith("the command watch.notify failed since 1 h: ")
    assert as_json(one)["watch_mail_failing"] is None


def test_a_process_that_is_being_replaced_is_named() -> None:
    assert (
        "supervisor 1 (up 1 d 1 h), engine 2 (up 1 min), 1 of 2 workers ready, 4 connections, "
        "NOT READY: worker-1" in as_text(found())
    )


def test_waits_and_limits_are_summed_up() -> None:
    text = as_text(found(waits=200, waited=10.0, waited_long=3, limits={"probes": 7}))
    assert "200 forecasts, 0.050 s each on average, 3 of them more than a second" in text
    assert "Limits met     probes 7" in text


def test_without_mistakes_the_file_stays_readable() -> None:
    assert replace(found(), file=None).differs_in == []
