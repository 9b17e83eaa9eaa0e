"""Checks of a Sendmail against the configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.sendmail import examine
from requiretls_milter.doctor.sendmailcf import Sendmail, parse
from tests.support.sendmails import CF, changed

MTA = {"profile": "rfc8689", "carries": "nothing", "tls_security_level": "verify"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What Sendmail sees as ``/``, with the files of the recipe; a safe path to the socket."""
    for name in ("run/requiretls-milter", "etc/mail/certs"):
        (tmp_path / name).mkdir(parents=True)
    for path in (tmp_path, *(one for one in tmp_path.rglob("*") if one.is_dir())):
        path.chmod(0o755)
    (tmp_path / "run/requiretls-milter/milter.sock").touch()
    (tmp_path / "etc/mail/ca.pem").touch()
    (tmp_path / "etc/mail/server.pem").touch(mode=0o600)
    return tmp_path


@pytest.fixture
def sendmail(root: Path) -> Callable[..., Sendmail]:
    """A Sendmail with the recipe, but for some changes in sendmail.cf."""
    return lambda *changes: parse(changed(*changes), root=root)


@pytest.fixture
def config(root: Path) -> Callable[..., Config]:
    """The recipe's configuration, but for some sections."""

    def made(**sections: dict[str, Any]) -> Config:
        milter = {
            "socket": f"unix:{root}/run/requiretls-milter/milter.sock",
            "envid_mark": "REQUIRETLS",
            "tag_leaving": False,
            **sections.pop("milter", {}),
        }
        mta = {**MTA, **sections.pop("mta", {})}
        return Config.model_validate({"milter": milter, "mta": mta, **sections})

    return made


def amiss(config: Config, sendmail: Sendmail) -> list[tuple[str, Severity]]:
    """The checks that find something."""
    return [
        (one.check, one.severity)
        for one in examine(config, sendmail)
        if one.severity is not Severity.OK
    ]


def of(config: Config, sendmail: Sendmail, check: str) -> Finding:
    found = [one for one in examine(config, sendmail) if one.check == check]
    (worst,) = [one for one in found if one.severity is not Severity.OK] or found[:1]
    return worst


Make = Callable[..., Any]


def test_the_recipe_has_no_fault(config: Make, sendmail: Make) -> None:
    findings = list(examine(config(), sendmail()))
    assert [one for one in findings if one.severity is not Severity.OK] == []
    assert [one.check for one in findings] == [
        *("sendmail", "attached", "command_timeout", "content_timeout", "default_action"),
        *("socket_directory", "ruleset", "certificates"),
    ]


def test_a_source_that_was_not_compiled_is_told(config: Make, root: Path) -> None:
    found = parse(CF, root=root, is_outdated=True)
    assert amiss(config(), found) == [("compiled", Severity.WARNING)]


# ---------------------------------------------------------------- the filter


def test_a_sendmail_without_the_filter_is_an_error_with_the_line_to_add(
    config: Make, sendmail: Make
) -> None:
    finding = of(config(), sendmail(("Xrequiretls", "#Xrequiretls")), "attached")
    assert finding.severity is Severity.ERROR
    assert (
        "INPUT_MAIL_FILTER(`requiretls', `S=unix:/run/requiretls-milter/milter.sock, F=T"
        in finding.advice
    )


@pytest.mark.parametrize("socket", ["unix:/run/other.sock", "inet:8894@localhost", "", "nonsense"])
def test_a_filter_at_another_socket_is_an_error(config: Make, sendmail: Make, socket: str) -> None:
    made = sendmail(("unix:/run/requiretls-milter/milter.sock", socket))
    assert of(config(), made, "socket_name").severity is Severity.ERROR


def test_a_filter_over_tcp_is_recognised(config: Make, sendmail: Make) -> None:
    made = sendmail(("unix:/run/requiretls-milter/milter.sock", "inet:8894@localhost"))
    tcp = config(milter={"socket": "inet:8894@127.0.0.1"})
    assert of(tcp, made, "attached").severity is Severity.OK


def test_a_filter_that_is_defined_and_not_called_is_an_error(config: Make, sendmail: Make) -> None:
    made = sendmail(("InputMailFilters=requiretls", "InputMailFilters=dkim, clamav"))
    assert of(config(), made, "attached").severity is Severity.ERROR
    made = sendmail(("InputMailFilters=requiretls", "InputMailFilters=dkim,requiretls"))
    assert of(config(), made, "attached").severity is Severity.OK


def test_a_daemon_with_filters_of_its_own_is_told(config: Make, sendmail: Make) -> None:
    made = sendmail(("Port=smtp", "Port=smtp, InputMailFilters=dkim;clamav"))
    finding = of(config(), made, "attached")
    assert finding.severity is Severity.WARNING
    assert "the daemon MTA has" in finding.found
    made = sendmail(("Port=smtp", "Port=smtp, InputMailFilters=dkim;requiretls"))
    assert amiss(config(), made) == []


@pytest.mark.parametrize(
    ("times", "rules", "found"),
    [
        ("", {}, [("command_timeout", Severity.ERROR)]),  # R is 10 s, as decide_wait is
        ("", {"decide_wait": 8}, []),
        ("R:20s", {"decide_wait": 20}, [("command_timeout", Severity.ERROR)]),
        ("R:20s", {"decide_wait": 19}, []),
        ("R:30s;E:5s", {"tag_wait": 5}, [("content_timeout", Severity.ERROR)]),
        ("R:12s;E:1m", {"tag_wait": 12}, [("content_timeout", Severity.ERROR)]),
    ],
)
def test_sendmail_has_to_wait_longer_than_we_do(
    config: Make,
    sendmail: Make,
    times: str,
    rules: dict[str, int],
    found: list[tuple[str, Severity]],
) -> None:
    made = sendmail((", T=S:30s;R:30s;E:1m", f", T={times}" if times else ""))
    assert amiss(config(rules=rules), made) == found


@pytest.mark.parametrize(
    ("flags", "mode", "severity"),
    [
        ("F=T", "reject", Severity.OK),
        ("F=4", "reject", Severity.OK),
        ("F=", "monitor", Severity.OK),
        ("F=", "defer", Severity.WARNING),
        ("F=R", "monitor", Severity.ERROR),
    ],
)
def test_what_happens_while_the_milter_is_down_is_told(
    config: Make, sendmail: Make, flags: str, mode: str, severity: Severity
) -> None:
    finding = of(config(rules={"mode": mode}), sendmail(("F=T,", f"{flags},")), "default_action")
    assert finding.severity is severity


@pytest.mark.parametrize(
    ("directory", "mode", "who"),
    [
        ("run/requiretls-milter", 0o2775, "its group"),
        ("run", 0o1777, "everyone"),
        ("run/requiretls-milter", 0o757, "everyone"),
    ],
)
def test_a_socket_that_sendmail_calls_unsafe_is_an_error(
    config: Make, sendmail: Make, root: Path, directory: str, mode: int, who: str
) -> None:
    (root / directory).chmod(mode)
    finding = of(config(), sendmail(), "socket_directory")
    assert finding.severity is Severity.ERROR
    assert f"{who} may write to {root / directory}" in finding.found


def test_sendmail_can_be_told_that_a_group_is_safe(
    config: Make, sendmail: Make, root: Path
) -> None:
    (root / "run").chmod(0o775)
    safe = ("#O DontBlameSendmail=safe", "O DontBlameSendmail=GroupWritableDirPathSafe")
    assert amiss(config(), sendmail(safe)) == []
    (root / "run").chmod(0o777)
    assert amiss(config(), sendmail(safe)) == [("socket_directory", Severity.ERROR)]


# ---------------------------------------------------------------- what it does with the mail


def test_what_sendmail_does_not_do_itself_is_told(config: Make, sendmail: Make) -> None:
    made = config(mta={"carries": "requiretls"}, milter={"tag_leaving": True})
    assert amiss(made, sendmail()) == [
        ("carries", Severity.ERROR),
        ("tag_leaving", Severity.WARNING),
    ]


@pytest.mark.parametrize(
    "change",
    [
        ("$&{envid}", "$&{other}"),
        ("SLocal_tls_server", "SLocal_tls_client"),
        (". REQUIRETLS\t", ". ANOTHER\t"),
    ],
)
def test_a_mark_that_no_ruleset_looks_for_is_an_error(
    config: Make, sendmail: Make, change: tuple[str, str]
) -> None:
    changes = [change]
    if "ANOTHER" in change[1]:
        changes.append(("R$* $| REQUIRETLS\t", "R$* $| ANOTHER\t"))
    finding = of(config(), sendmail(*changes), "ruleset")
    assert finding.severity is Severity.ERROR
    assert "Sendmail sends marked mail in clear too" in finding.found


def test_a_level_that_nothing_keeps_is_told(config: Make, sendmail: Make) -> None:
    unmarked = config(milter={"envid_mark": ""})
    assert of(unmarked, sendmail(), "ruleset").severity is Severity.WARNING
    honest = config(milter={"envid_mark": ""}, mta={"tls_security_level": "may"})
    assert amiss(honest, sendmail()) == []


@pytest.mark.parametrize(
    "change",
    [
        ("O SetCertAltnames=true", ""),
        ("O ForkEachJob=True", "O ForkEachJob=False"),
        ("#O HostStatusDirectory=.hoststat", "O HostStatusDirectory=/var/lib/sendmail/host_status"),
        ("O DeliveryMode=background", "O DeliveryMode=interactive"),
    ],
)
def test_what_the_ruleset_needs_beside_it_is_told(
    config: Make, sendmail: Make, change: tuple[str, str]
) -> None:
    assert amiss(config(), sendmail(change)) == [("ruleset", Severity.WARNING)]


# ---------------------------------------------------------------- certificates


def test_without_authorities_nothing_is_verified(config: Make, sendmail: Make) -> None:
    made = sendmail(("O CACertFile", "#O CACertFile"), ("O CACertPath", "#O CACertPath"))
    assert amiss(config(), made) == [("certificates", Severity.ERROR)]
    may = config(milter={"envid_mark": ""}, mta={"tls_security_level": "may"})
    assert amiss(may, made) == []


@pytest.mark.parametrize(
    ("dane", "level", "found"),
    [
        ("#O DANE=false", "verify", []),
        ("O DANE=true", "dane", []),
        ("O DANE=true", "verify", [("dane", Severity.WARNING)]),
        ("#O DANE=false", "dane", [("dane", Severity.ERROR)]),
    ],
)
def test_dane_is_compared(
    config: Make, sendmail: Make, dane: str, level: str, found: list[tuple[str, Severity]]
) -> None:
    made = sendmail(("#O DANE=false", dane))
    assert amiss(config(mta={"tls_security_level": level}), made) == found


def test_a_file_that_is_not_there_or_a_key_that_others_may_read_is_an_error(
    config: Make, sendmail: Make, root: Path
) -> None:
    key = root / "etc/mail/server.pem"
    key.chmod(0o644)
    finding = of(config(), sendmail(), "certificates")
    assert "ServerKeyFile = /etc/mail/server.pem: others may read the key" in finding.found
    key.chmod(0o640)
    group = ("#O DontBlameSendmail=safe", "O DontBlameSendmail=GroupReadableKeyFile")
    assert amiss(config(), sendmail()) == [("certificates", Severity.ERROR)]
    assert amiss(config(), sendmail(group)) == []
    (root / "etc/mail/ca.pem").unlink()
    finding = of(config(), sendmail(group), "certificates")
    assert "CACertFile = /etc/mail/ca.pem: No such file" in finding.found
    assert "uses no STARTTLS with servers" in finding.found


def test_a_sendmail_without_a_certificate_is_told(config: Make, sendmail: Make) -> None:
    made = sendmail(("O ServerCertFile", "#O ServerCertFile"))
    assert amiss(config(), made) == [("starttls", Severity.WARNING)]
