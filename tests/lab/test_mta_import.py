"""``mta import`` against real Postfix: what it mirrors is forecast as Postfix then delivers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from requiretls_milter.config import Config
from requiretls_milter.mirror.postconf import Postconf, PostconfError
from requiretls_milter.mirror.section import Mirror, mirror
from requiretls_milter.model import MtaSts, Requirement
from requiretls_milter.reports import assess as check
from requiretls_milter.syntax import tlspolicy
from tests.lab import netns, roots, runs
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.lab import MYDOMAIN, Lab
from tests.lab.labconfig import settings, transport_overrides
from tests.lab.postfix import profile_services, transport_name
from tests.lab.versions import running
from tests.support import addresses
from tests.support.asking import NEW_MTA
from tests.support.paths import REPOSITORY
from tests.support.scenario import Domain, Mx, Scenario, Server, load

pytestmark = pytest.mark.lab

DANE = {"smtp_tls_security_level": "dane"}
PROFILES: Mapping[str, Mapping[str, str]] = {
    "mi-no-dnssec": {
        **DANE,
        "smtp_dns_support_level": "enabled",
        "smtp_requiretls_policy": "enforce",
    },
    "mi-only-no-dnssec": {
        "smtp_tls_security_level": "dane-only",
        "smtp_dns_support_level": "enabled",
        "smtp_requiretls_policy": "enforce",
    },
    "mi-obsolete": {
        "smtp_tls_security_level": "",
        "smtp_enforce_tls": "yes",
        "smtp_requiretls_policy": "enforce",
    },
    "mi-off": {**DANE, "requiretls_enable": "no"},
    "mi-one-address": {**DANE, "smtp_requiretls_policy": "enforce", "smtp_mx_address_limit": "1"},
    "mi-list": {
        **DANE,
        "smtp_requiretls_policy": (
            "inline:{ {.mi-list-b.sig.test = disable}, {mi-list-a.sig.test = opportunistic} } "
            "texthash:@ETC@/requiretls disable"
        ),
    },
    "mi-own-domain": {"mydomain": "mi-own-domain.uns.test", "smtp_tls_security_level": "may"},
}
"""Transports of the front MTA, each with settings that the mirror must understand."""

TABLE = """\
mi-list-a.sig.test enforce
mi-list-c.sig.test ENFORCE
.mi-list-d.sig.test nonsense
mi-list-e.sig.test enforce, disable
"""

SILENT = Server(requiretls="none")
"""A good server, but for REQUIRETLS."""


def one(identifier: str, profile: str, *mx: Mx, zone: str = "sig", suffix: str = "") -> Scenario:
    domain = Domain(suffix=suffix, zone=zone, mx=mx or (Mx(),))  # type: ignore[arg-type]
    return Scenario(identifier, profile, (domain,))


SCENARIOS = (
    one("mi-no-dnssec", "mi-no-dnssec"),
    one("mi-only-no-dnssec", "mi-only-no-dnssec"),
    one("mi-obsolete-ok", "mi-obsolete", Mx(tlsa=())),
    one("mi-obsolete-bad", "mi-obsolete", Mx(tlsa=(), server=Server(cert="selfsigned"))),
    one("mi-off", "mi-off", Mx(server=SILENT)),
    one("mi-one-address", "mi-one-address", Mx(server=SILENT), Mx(pref=20)),
    one("mi-list-a", "mi-list", Mx(server=SILENT)),
    one("mi-list-c", "mi-list", Mx(server=SILENT)),
    one("mi-list-e", "mi-list", Mx(server=SILENT)),
    one("mi-list-z", "mi-list", Mx(server=SILENT)),
    one("mi-own-domain", "mi-own-domain", Mx(tlsa=(), server=SILENT), zone="uns"),
    one("mi-not-own-domain", "mi-own-domain", Mx(tlsa=(), server=SILENT), zone="uns"),
)


@dataclass(frozen=True)
class Front:
    """The front MTA with its further transports, and how postconf is called for it."""

    lab: Lab
    command: str
    config_dir: str

    def mirror(self) -> Mirror:
        return mirror(Postconf(self.command, self.config_dir).read())


@pytest.fixture(scope="module")
def front(lab: Lab) -> Front:
    mta = lab.front
    etc = mta.inside("etc")
    (mta.directory / "etc/requiretls").write_text(TABLE)
    profiles = {
        name: {key: value.replace("@ETC@", etc) for key, value in profile.items()}
        for name, profile in PROFILES.items()
    }
    mta.configure({}, profile_services(profiles, f"{etc}/tls_policy"))
    mta.reload(parameters={"biff": "no"})
    lab.add(SCENARIOS)
    return Front(lab, f"chroot {mta.root} /usr/sbin/postconf", etc)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "requiretls_milter", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


# ---------------------------------------------------------------- what is mirrored


def test_main_cf_is_mirrored(front: Front) -> None:
    made = front.mirror()
    assert made.version == running("postfix-3.11")
    assert made.mta["mydomain"] == MYDOMAIN
    assert made.mta["requiretls_policy"] == "default"
    assert made.mta["carries"] == "auto"
    assert made.mta["requiretls_esmtp_header"] is True
    assert made.mta["inet_protocols"] == ["ipv4"]
    assert set(made.mta["my_addresses"]) >= {addresses.FRONT, "127.0.0.1"}
    assert {"local", "virtual", "lmtp", "discard", "error", "retry"} == set(
        made.mta["local_transports"]
    )
    assert made.hints["ca_file"] == front.lab.front.inside("etc/ca.pem")


def test_each_recorded_profile_is_what_the_lab_configures_by_hand(front: Front) -> None:
    mta = Config.model_validate({"mta": front.mirror().mta}).mta
    recorded = load().profiles
    for name, profile in recorded.items():
        transport = transport_name(name)
        # Where Postfix hears of MTA-STS by a static table, its entries are mirrored.
        overrides = {**transport_overrides(profile, None), "mta_sts": MtaSts.OFF}
        by_hand = settings(front.lab, {transport: overrides}).mta.profile_for(transport)
        mirrored = mta.profile_for(transport)
        assert mirrored.tls_security_level is by_hand.tls_security_level, name
        assert mirrored.requiretls_policy == by_hand.requiretls_policy, name
        assert mirrored.insecure_mx_policy is by_hand.insecure_mx_policy, name
        assert mirrored.mta_sts is by_hand.mta_sts, name
        assert mirrored.mydomain == by_hand.mydomain, name
        if "smtp_tls_policy_maps" in profile:
            table = dict(mirrored.tls_policy)
            assert table == {
                tlspolicy.key(key): tlspolicy.parse(tlspolicy.as_mirrored(entry)[0])
                for key, entry in front.lab.plan.tls_policy.items()
            }, name
            assert {str(entry.level) for entry in table.values()} == {"secure"}


def test_what_a_recorded_profile_does_otherwise_is_told(front: Front) -> None:
    told = "\n".join(front.mirror().warnings)
    assert "transport dane-enforce-soft5xx-no: smtp_skip_5xx_greeting = no" in told
    assert "transport sts-enforce: smtp_tls_policy_maps: texthash:" in told
    assert "mirrored without mx_host_pattern, policy_domain, policy_type: " in told


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda item: item.id)
def test_the_mirror_forecasts_what_postfix_does(front: Front, scenario: Scenario) -> None:
    lab = front.lab
    config = settings(lab, mta=dict(front.mirror().mta))
    domain = scenario.domain_name(scenario.domains[0])
    (report,) = check.run(
        check.parse_all([domain], config.mta, transport := transport_name(scenario.profile)),
        config,
        Requirement.REQUIRETLS,
        mta=NEW_MTA,
        carried=None,
        transport=transport,
        refresh=False,
    )
    forecast = report["forecast"]
    accepted = lab.send(scenario)
    (delivery,) = lab.deliveries(accepted.queue_id)
    outcome = {"sent": "deliver", "deferred": "defer", "bounced": "bounce"}[delivery.status]
    if scenario.profile == "mi-only-no-dnssec":
        # The one state for which there is no level: deferred all the same (docs/mta-import.md).
        assert (forecast["status"], delivery.dsn) == ("4.7.10", "4.7.5")
        assert forecast["outcome"] == outcome == "defer"
        return
    assert (forecast["status"], forecast["outcome"], forecast["tls"]) == (
        delivery.dsn,
        outcome,
        delivery.tls,
    )


# ---------------------------------------------------------------- both ways to ask, both versions


def test_answers_in_lines_say_the_same_as_answers_in_json(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_json = front.mirror()
    assert Postconf(front.command, front.config_dir).understands_json()
    monkeypatch.setattr(Postconf, "understands_json", lambda self: False)
    assert front.mirror() == by_json


OLDER = """\
compatibility_level = 3.6
mydomain = example.org
myhostname = mta.example.org
smtp_tls_security_level = dane
smtp_dns_support_level = dnssec
smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:postfix
smtp_tls_CApath = /etc/ssl/certs
inet_interfaces = loopback-only
"""

OLDER_SERVICES = """\
smtp inet n - y - - smtpd
smtp unix - - y - - smtp
local unix - n n - - local
strict unix - - y - - smtp
  -o smtp_tls_security_level=dane-only
"""


def mirror_of_older(recipe: roots.Recipe) -> Mirror:
    """The mirror of a Postfix that is not even running, by its own postconf."""
    try:
        with netns.outside():
            root = roots.ensure(recipe)
    except LabUnavailable as reason:
        unavailable(reason)
    directory = runs.make(root)
    try:
        (directory.outside / "main.cf").write_text(OLDER)
        (directory.outside / "master.cf").write_text(OLDER_SERVICES)
        postconf = Postconf(f"chroot {root} /usr/sbin/postconf", directory.inside)
        assert not postconf.understands_json()
        return mirror(postconf.read())
    finally:
        directory.remove()


def test_postfix_3_10_is_mirrored_too(lab: Lab) -> None:
    made = mirror_of_older(roots.POSTFIX_3_10)
    assert made.version.startswith("3.10.")
    assert made.mta["tls_security_level"] == "dane"
    assert made.mta["carries"] == "auto"
    assert made.mta["requiretls_esmtp_header"] is False
    assert "requiretls_policy" not in made.mta
    # Postfix 3.10.5 brought smtp_tls_enforce_sts_mx_patterns.
    assert made.mta["mta_sts"] == "mx-patterns"


def test_postfix_3_7_is_mirrored_too(lab: Lab) -> None:
    made = mirror_of_older(roots.POSTFIX_3_7)
    assert made.version.startswith("3.7.")
    assert made.mta["tls_security_level"] == "dane"
    assert made.mta["mta_sts"] == "match"
    assert made.mta["requiretls_esmtp_header"] is False
    assert "requiretls_policy" not in made.mta
    # In Postfix 3.7 smtp_tls_dane_insecure_mx_policy follows the level.
    assert made.mta["transport"] == {
        "strict": {"tls_security_level": "dane-only", "insecure_mx_policy": "may"}
    }


def test_a_directory_without_a_configuration_is_an_error(front: Front) -> None:
    with pytest.raises(PostconfError, match=r"main\.cf"):
        Postconf(front.command, "/nonexistent").read()


# ---------------------------------------------------------------- the command


def test_the_command_writes_a_configuration_that_config_check_accepts(
    front: Front, tmp_path: Path
) -> None:
    done = run("mta", "import", "--postconf", front.command, "--config-dir", front.config_dir)
    assert done.returncode == 0, done.stderr
    written = json.loads(json.dumps(tomllib.loads(done.stdout)["mta"]))
    assert {"tls_policy": {}, **written} == front.mirror().mta
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == len(front.mirror().warnings) > 0
    assert done.stdout.count("# warning: ") == len(warnings)
    path = tmp_path / "config.toml"
    path.write_text(done.stdout)
    checked = run("config", "check", str(path))
    assert checked.returncode == 0, checked.stderr


def test_the_command_ends_with_2_where_there_is_no_postfix() -> None:
    done = run("mta", "import", "--postconf", "/nonexistent/postconf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no Postfix found" in done.stderr
