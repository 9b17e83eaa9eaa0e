"""The unit under a real systemd: a Debian 12 is booted, with an MTA and its variant of the unit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab import boot, inside
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable

pytestmark = pytest.mark.timeout(boot.DEADLINE + 60)

HERE = """\
[probe]
allow_networks = ["127.0.0.1/32"]

[dns]
nameservers = ["127.0.0.1:5353"]

[watch]
domains = ["own.example"]
notify = "/usr/local/sbin/tell-postmaster"
"""

TWO_WORKERS = """\
[milter]
workers = 2
"""

CHROOTED = f"""\
{TWO_WORKERS}socket = "unix:/var/spool/postfix/requiretls-milter/milter.sock"
socket_group = "postfix"

[mta]
local_domains = ["example.org"]
aliases = "ask"
virtual_alias_maps = ["regexp:/etc/postfix/virtual.regexp"]

{HERE}"""

VARIANTS = {
    "postfix": ("postfix-chroot.conf", CHROOTED),
    "sendmail": ("sendmail.conf", TWO_WORKERS + HERE),
}
"""MTA to the drop-in and the configuration that docs/systemd.md has for it."""

Report = dict[str, Any]


@pytest.fixture(scope="module", params=VARIANTS)
def mta(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def report(mta: str) -> Report:
    """What happened there, from boot to halt."""
    variant, config = VARIANTS[mta]
    drop_ins = {
        variant: (boot.SYSTEMD / "variants" / variant).read_text(),
        "aliases.conf": (boot.SYSTEMD / "variants/postfix-aliases.conf").read_text()
        if mta == "postfix"
        else "",
        "watchdog.conf": "[Service]\nWatchdogSec=2\n",  # the unit's own half minute is long
        "notify.conf": "[Service]\nReadWritePaths=/srv/allowed\n",
    }
    if impossible := boot.why_not():
        pytest.skip(impossible)
    try:
        return boot.boot(mta, config, drop_ins)
    except LabUnavailable as reason:
        unavailable(reason)
        raise


def test_systemd_starts_it_and_hears_that_it_is_ready(report: Report) -> None:
    assert report["started"]["status"] == 0, report["journal"]
    running = report["running"]
    assert (running["ActiveState"], running["SubState"]) == ("active", "running")
    assert running["StatusText"].startswith("3 of 3 processes ready")


def test_every_process_runs_without_rights_as_the_user_of_sysusers(report: Report) -> None:
    assert report["running"]["User"] == "requiretls-milter"
    processes = report["processes"]
    assert set(processes) == {"requiretls-milt", "rtls-engine", "rtls-worker-1", "rtls-worker-2"}
    for name, kernel in processes.items():
        assert "0" not in kernel["Uid"].split(), name
        assert kernel["CapEff"] == kernel["CapBnd"] == "0" * 16, name
        assert kernel["NoNewPrivs"] == "1", name
        assert kernel["Seccomp"] == "2", name


def test_the_engine_speaks_tls_within_its_bounds(report: Report) -> None:
    """System calls are filtered, and no memory is both writable and executable."""
    (found,) = json.loads(report["check"]["output"])
    (server,) = found["hosts"][0]["addresses"]
    assert (server["tls_version"], server["requiretls"]) == ("TLSv1.3", True)
    assert '\nrequiretls_milter_probes_total{result="completed"} 1.0\n' in report["metrics"]


def test_what_each_process_takes_is_shown_although_the_unit_hides_the_rest_of_proc(
    report: Report,
) -> None:
    for process in ("supervisor", "engine", "worker-1", "worker-2"):
        for what in ("resident_memory_bytes", "open_fds", "start_time_seconds"):
            series = f'\nrequiretls_milter_process_{what}{{process="{process}"}} '
            assert series in report["metrics"], series


def test_the_socket_is_where_the_mta_looks_and_for_it_alone(report: Report, mta: str) -> None:
    group = {"postfix": "postfix", "sendmail": "requiretls-milter"}[mta]
    assert report["socket"] == ["requiretls-milter", group, "0o660"]
    assert report["mta"]["status"] == 0, report["mta"]["output"]


def test_sendmail_begins_when_the_milter_is_ready(report: Report, mta: str) -> None:
    begun = report.get("begun", [])
    assert len(begun) == (2 if mta == "sendmail" else 0)
    assert begun == sorted(begun)
    assert 0 not in begun


def test_tables_of_aliases_are_asked_within_the_bounds_of_the_unit(
    report: Report, mta: str
) -> None:
    """The table is one that only root and the group postfix may read."""
    if mta != "postfix":
        pytest.skip("there are no tables of Postfix")
    simulated = json.loads(report["expanded"]["output"])
    assert [one["address"] for one in simulated["expansions"]] == ["someone@example.org"]
    assert not any("asked by this command" in note for note in simulated["notes"])


def test_audit_runs_without_rights_beside_journalctl(report: Report, mta: str) -> None:
    if mta != "postfix":
        assert "audit started" not in report, "once is enough"
        return
    assert report["audit started"]["status"] == 0, report["audit started"]["output"]
    mode, text = report["audit file"]
    assert mode == "0o644"
    assert "requiretls_milter_audit_logs_unreadable 0.0\n" in text
    processes = report["audit processes"]
    assert set(processes) == {"requiretls-milt", "journalctl"}
    for name, kernel in processes.items():
        assert "0" not in kernel["Uid"].split(), name
        assert kernel["CapEff"] == kernel["CapBnd"] == "0" * 16, name
        assert kernel["Seccomp"] == "2", name


def test_audit_reads_the_journal_from_within_its_sandbox(report: Report, mta: str) -> None:
    if mta == "postfix":
        assert inside.EQUAL in report["audit of the journal"], report["audit journal"]


def test_audit_reads_a_log_of_group_adm_and_serves_metrics_at_its_port_until_it_is_told_to_end(
    report: Report, mta: str
) -> None:
    if mta == "postfix":
        assert "requiretls_milter_audit_logs_unreadable 0.0\n" in report["audit port"]
        assert inside.EQUAL in report["audit port"], report["audit journal"]
        assert "event=audit_ended" in report["audit journal"]


def test_the_mta_has_its_mail_tagged(report: Report) -> None:
    assert "\nX-RequireTLS: requirement=tls-required-no; " in report["first message"]


def test_the_command_of_the_watch_runs_within_what_the_unit_allows(report: Report) -> None:
    """It writes into the service's state, and by a drop-in elsewhere; what fails is told."""
    kept, allowed = report["told"]
    assert kept == allowed
    change = json.loads(kept)
    assert change["domain"] == "own.example"
    assert change["report"]["breaks_first"]["problem"] == "no_server"
    (line,) = [line for line in report["journal"].splitlines() if "event=notify_failed" in line]
    assert "/srv/forbidden: Read-only file system" in line
    findings = json.loads(report["doctor"]["output"])
    (told,) = [one for one in findings if one["check"] == "watch_notify"]
    assert "/srv/forbidden: Read-only file system" in told["found"]


def test_a_reload_ends_when_the_new_configuration_holds(report: Report) -> None:
    assert report["reload"]["status"] == 0, report["reload"]["output"]
    assert "event=reloaded generation=2" in report["journal"]


def test_a_reload_of_a_bad_configuration_fails_and_the_old_one_stays(report: Report) -> None:
    assert report["reload of nonsense"]["status"] != 0
    assert "milter.socket: expected text, got a number, 7" in report["journal"]
    assert report["after reloads"]["ActiveState"] == "active"
    assert report["after reloads"]["StatusText"].endswith("configuration 2")
    assert report["after reloads"]["MainPID"] == report["before reloads"]["MainPID"]


@pytest.mark.parametrize(
    ("how", "restarts", "said"),
    [
        ("killed", "1", "Main process exited, code=killed, status=9/KILL"),
        ("stopped dead", "2", "Watchdog timeout (limit 2s)!"),
    ],
)
def test_systemd_starts_it_again(report: Report, how: str, restarts: str, said: str) -> None:
    assert said in report["journal"]
    assert report[how]["NRestarts"] == restarts
    assert report[how]["ActiveState"] == "active"
    assert "\nX-RequireTLS: " in report[f"message after {how}"]


def test_audit_finds_journal_and_mail_log_by_itself(report: Report, mta: str) -> None:
    assert report["audit"]["status"] == 0, report["audit"]["output"]
    where = {"postfix": "/var/log/postfix.log", "sendmail": "journal:mail"}[mta]
    assert f"reading journal: {where}\n" in report["audit"]["output"]


def test_it_stops_and_leaves_nothing_behind(report: Report) -> None:
    assert report["stop"]["status"] == 0, report["stop"]["output"]
    assert report["stopped"]["ActiveState"] == "inactive"
    assert report["stopped"]["Result"] == "success"
    assert report["processes left"] == {}
    assert report["socket left"] is False


def test_without_it_mail_goes_as_the_mta_is_told(report: Report, mta: str) -> None:
    """Here ``milter_default_action = accept`` for Postfix, and F=T for Sendmail."""
    message = report["message without us"]
    if mta == "sendmail":
        assert message.startswith("451 b'4.3.2 Please try again later")
    else:
        assert "Subject: without\n" in message
        assert "X-RequireTLS" not in message
        assert "connect to Milter service unix:requiretls-milter/milter.sock" in report["mail log"]


def test_the_trial_ended_by_itself(report: Report) -> None:
    assert report["output"] == ""
    assert inside.UNIT in report["journal"]
