"""Parameters of which ``mta import`` warns: at other values Postfix does what was not forecast.

Each case is a transport with one such setting, and a domain for which it makes the difference. The
forecast is that of the mirrored configuration; the delivery is that of the real Postfix.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import pytest

from requiretls_milter.mirror.postconf import Postconf
from requiretls_milter.mirror.section import Mirror, mirror
from requiretls_milter.model import Requirement
from requiretls_milter.reports import assess as check
from tests.lab import netns, roots
from tests.lab.errors import LabUnavailable
from tests.lab.fixtures import unavailable
from tests.lab.lab import Lab
from tests.lab.labconfig import settings
from tests.lab.postfix import profile_services, transport_name
from tests.support import addresses
from tests.support.asking import NEW_MTA
from tests.support.paths import REPOSITORY
from tests.support.scenario import Domain, Mx, Scenario, Server, Zone

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Case:
    """A setting, and a domain for which it makes a difference."""

    name: str
    setting: str
    mx: tuple[Mx, ...] = (Mx(),)
    zone: Zone = "sig"
    level: str = "dane"

    @property
    def parameter(self) -> str:
        return self.setting.partition(" =")[0]

    @property
    def profile(self) -> str:
        return f"pm-{self.name}"

    @property
    def scenario(self) -> Scenario:
        return Scenario(self.profile, self.profile, (Domain(zone=self.zone, mx=self.mx),))


def one(**server: object) -> tuple[Mx, ...]:
    return (Mx(server=Server(**server)),)  # type: ignore[arg-type]


NO_DANE = (Mx(tlsa=()),)

CASES = (
    Case("no-esmtp", "smtp_always_send_ehlo = no", one(banner="220 mx.example")),
    Case("pix", "smtp_pix_workarounds = delay_dotcrlf", one(banner="220 ****************")),
    Case("never-ehlo", "smtp_never_send_ehlo = yes"),
    Case("protocols", "smtp_tls_mandatory_protocols = !TLSv1.2, !TLSv1.3"),
    Case("dns-filter", "smtp_dns_reply_filter = regexp:{{/ IN MX / IGNORE}}"),
    Case("reply-filter", "smtp_reply_filter = regexp:{{/^250.STARTTLS/ 250-X}}"),
    Case("no-starttls", "smtp_discard_ehlo_keywords = starttls"),
    Case("no-requiretls", "smtp_discard_ehlo_keywords = requiretls"),
    Case(
        "status-filter",
        "smtp_delivery_status_filter = regexp:{{/^5.7.30/ 4.7.30}}",
        one(requiretls="none"),
    ),
    Case("soft-bounce", "soft_bounce = yes", one(requiretls="none")),
    Case("greeting", "smtp_skip_5xx_greeting = no", (*one(banner="554 5.7.1 no"), Mx(pref=20))),
    Case("fallback", f"smtp_fallback_relay = [{addresses.DOWNSTREAM}]", (Mx(addr="refused"),)),
    Case("wrapper", "smtp_tls_wrappermode = yes"),
    Case("digests", "tls_dane_digests = sha512"),
    Case("no-address", "smtp_defer_if_no_mx_address_found = yes", (Mx(host="noaddr"),)),
    Case("secure-names", "smtp_tls_secure_cert_match = other.example", NO_DANE, level="secure"),
    Case("slow", "smtp_helo_timeout = 1s", one(latency=2.0)),
)


@dataclass(frozen=True)
class Front:
    lab: Lab
    mirror: Mirror


@pytest.fixture(scope="module")
def front(lab: Lab) -> Front:
    mta = lab.front
    etc = mta.inside("etc")
    profiles = {}
    for case in CASES:
        _, _, value = case.setting.partition(" = ")
        profiles[case.profile] = {
            "smtp_tls_security_level": case.level,
            "smtp_requiretls_policy": "enforce",
            case.parameter: value,
        }
    mta.configure({}, profile_services(profiles, f"{etc}/tls_policy"))
    mta.reload(parameters={"biff": "no"})
    lab.add([case.scenario for case in CASES])
    made = mirror(Postconf(f"chroot {mta.root} /usr/sbin/postconf", etc).read())
    return Front(lab, made)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_warned_of_makes_a_difference(front: Front, case: Case) -> None:
    transport = transport_name(case.profile)
    told = [text for text in front.mirror.warnings if text.startswith(f"transport {transport}: ")]
    assert any(text.partition(": ")[2].startswith(f"{case.parameter} = ") for text in told), told

    lab = front.lab
    domain = case.scenario.domain_name(case.scenario.domains[0])
    config = settings(lab, mta=dict(front.mirror.mta))
    (report,) = check.run(
        check.parse_all([domain], config.mta, transport),
        config,
        Requirement.REQUIRETLS,
        mta=NEW_MTA,
        carried=None,
        transport=transport,
        refresh=False,
    )
    forecast = report["forecast"]
    accepted = lab.send(case.scenario)
    (delivery,) = lab.deliveries(accepted.queue_id)
    assert (forecast["status"], forecast["tls"]) != (delivery.dsn, delivery.tls)


# ---------------------------------------------------------------- the lists of parameters


def test_a_running_postfix_has_no_parameter_that_is_not_known(front: Front) -> None:
    told = [text for text in front.mirror.warnings if "not known here" in text]
    assert told == []


@pytest.mark.parametrize(
    ("version", "recipe"),
    [
        ("3.7", roots.POSTFIX_3_7),
        ("3.10", roots.POSTFIX_3_10),
        ("3.11", roots.POSTFIX_3_11),
    ],
)
def test_the_lists_are_those_of_the_real_versions(
    lab: Lab, version: str, recipe: roots.Recipe
) -> None:
    try:
        with netns.outside():
            root = roots.ensure(recipe)
    except LabUnavailable as reason:
        unavailable(reason)
    done = subprocess.run(
        ["chroot", str(root), "/usr/sbin/postconf", "-d"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = sorted(line.partition(" =")[0] for line in done.stdout.splitlines())
    listed = REPOSITORY / "tests" / "data" / "postfix" / f"{version}.txt"
    assert names == listed.read_text(encoding="ascii").split()
