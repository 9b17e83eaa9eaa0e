"""All checks run, in order, with and without a Postfix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, Severity
from requiretls_milter.doctor.run import run
from requiretls_milter.mirror.postconf import Postconf, Postfix
from requiretls_milter.model import ProfileName
from tests.support.postfixes import postfix


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


def checked(config: Config, **arguments: Any) -> list[Finding]:
    return run(config, **{"postconf": "/nonexistent", "config_dir": "", "outside": "", **arguments})


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
