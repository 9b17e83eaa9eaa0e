"""All checks run, in order, with and without a Postfix."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.run import Where, run
from requiretls_milter.mirror.postconf import Postconf, Postfix
from requiretls_milter.model import ProfileName
from tests.support.postfixes import postfix
from tests.support.sendmails import CF


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration of a service that does not run."""
    return Config.model_validate(
        {
            "milter": {"socket": f"unix:{tmp_path}/m.sock"},
            "engine": {"socket": f"{tmp_path}/e.sock"},
            "metrics": {"listen": ""},
            "dns": {"nameservers": ["127.0.0.1:1"], "timeout": 0.1},
        }
    )


def checked(config: Config, sendmail_cf: str = "/nonexistent") -> list[Finding]:
    return run(config, Where("/nonexistent", "", Path(sendmail_cf)), outside="")


def test_without_postfix_this_host_is_checked(config: Config) -> None:
    findings = checked(config)
    assert [finding.check for finding in findings] == [
        *("postfix", "milter", "service", "metrics", "resolver_trusted", "resolver", "ca_file"),
        "outside",
    ]
    assert findings[0].severity is Severity.WARNING
    assert "no Postfix found" in findings[0].found


def test_without_postfix_another_profile_needs_no_advice(config: Config) -> None:
    mta = config.mta.model_copy(update={"profile": ProfileName.RFC8689})
    findings = checked(config.model_copy(update={"mta": mta}))
    assert (findings[0].check, findings[0].severity) == ("postfix", Severity.OK)


def test_with_sendmail_its_settings_are_checked_first(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "sendmail.cf"
    path.write_text(CF)
    mta = config.mta.model_copy(update={"profile": ProfileName.RFC8689})
    findings = checked(config.model_copy(update={"mta": mta}), str(path))
    names = [finding.check for finding in findings]
    assert names[:2] == ["sendmail", "socket_name"]
    assert "postfix" not in names


def test_a_sendmail_that_is_taken_for_a_postfix_is_told(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "sendmail.cf"
    path.write_text(CF)
    finding = checked(config, str(path))[0]
    assert (finding.check, finding.severity) == ("sendmail", Severity.WARNING)
    assert 'mta.profile = "rfc8689"' in finding.advice


def test_a_sendmail_that_cannot_be_read_is_told(config: Config, tmp_path: Path) -> None:
    mta = config.mta.model_copy(update={"profile": ProfileName.RFC8689})
    finding = checked(config.model_copy(update={"mta": mta}), str(tmp_path))[0]
    assert (finding.check, finding.severity) == ("sendmail", Severity.WARNING)
    assert "Is a directory" in finding.found


def test_with_postfix_its_settings_are_checked_first(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Postconf, tag: str = "") -> Postfix:
        return postfix()

    monkeypatch.setattr(Postconf, "read", read)
    names = [finding.check for finding in checked(config)]
    assert names[0] == "postfix"
    assert {"mta", "level", "milter", "outside"} <= set(names)
    assert names.index("mta") < names.index("milter")


def test_what_config_check_warns_of_comes_last(config: Config) -> None:
    milter = config.milter.model_copy(update={"socket_mode": "0666"})
    findings = checked(config.model_copy(update={"milter": milter}))
    assert [finding.check for finding in findings[-2:]] == ["outside", "configuration"]
