"""Configurations after those of real installations, each with the right answer (tests/data/field).

They are made after public bug reports and configuration files. ``mta import`` and ``doctor`` read
them by the lab's postconf(1).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from requiretls_milter.config import Config, Mta
from requiretls_milter.doctor import mta as doctor
from requiretls_milter.doctor.finding import Severity
from requiretls_milter.doctor.run import examine_postfix
from requiretls_milter.milter.hop import from_macros
from requiretls_milter.mirror.postconf import Postconf, Postfix
from requiretls_milter.mirror.section import Mirror, mirror
from tests.lab import runs
from tests.support.paths import REPOSITORY
from tests.support.postfixes import mta_of, warned

pytestmark = pytest.mark.lab

FIELD = REPOSITORY / "tests/data/field/postfix"

Read = Callable[[str], Postfix]


@pytest.fixture
def read(postfix_root: Path) -> Iterator[Read]:
    """Have postconf read a configuration of tests/data/field."""
    directory = runs.make(postfix_root)

    def reading(name: str) -> Postfix:
        own = FIELD / name
        master = own / "master.cf"
        shutil.copy(own / "main.cf", directory.outside / "main.cf")
        shutil.copy(
            master if master.exists() else FIELD / "master.cf.default",
            directory.outside / "master.cf",
        )
        return Postconf(f"chroot {postfix_root} /usr/sbin/postconf", directory.inside).read()

    yield reading
    directory.remove()


def by_sendmail(mta: Mta, recipient: str) -> str:
    way = from_macros("", "", recipient, "user@example.com", mta)
    return "local" if str(way.nexthop) == "local" else f"{way.transport}:{way.nexthop}"


def told(mta: Mta, mailer: str, host: str) -> str:
    return str(from_macros(mailer, host, "user@example.org", "", mta, postfix=True).nexthop)


def complaints(postfix: Postfix, made: Mirror, **mta: object) -> str:
    """What doctor says of a configuration that has these keys beside what Postfix has."""
    config = Config.model_validate({"mta": {**made.mta, **mta}})
    return "\n".join(one.found for one in doctor.differences(config, postfix, made))


def test_a_virtual_transport_by_smtp_is_a_next_hop(read: Read) -> None:
    postfix = read("virtual-transport-smtp")
    made = mirror(postfix)
    mta = mta_of(made)
    assert made.mta["local_domains"] == ["localhost"]
    for domain in ("example.org", "example.net"):
        assert by_sendmail(mta, f"user@{domain}") == "smtp:[192.0.2.24]:24"
    assert told(mta, "smtp", "[192.0.2.24]:24") == "[192.0.2.24]:24"
    old = ["localhost", "example.org", "example.net"]
    assert "local_domains has example.org, but" in complaints(postfix, made, local_domains=old)
    assert "local_domains" not in complaints(postfix, made)


def test_a_relayhost_that_is_a_number_is_an_address(read: Read) -> None:
    mta = mta_of(mirror(read("relayhost-number")))
    assert by_sendmail(mta, "user@remote.example") == "smtp:192.0.2.25"
    assert told(mta, "smtp", "192.0.2.25") == "192.0.2.25"


def test_a_default_transport_with_a_next_hop_takes_mail_of_sendmail(read: Read) -> None:
    mta = mta_of(mirror(read("mailbox-relay-default")))
    assert by_sendmail(mta, "user@remote.example") == "relay:[gateway.example.net]"
    assert by_sendmail(mta, "user@example.org") == "relay:[gateway.example.net]"


def test_of_several_transports_those_that_stay_are_local(read: Read) -> None:
    made = mirror(read("mailman-transports"))
    mta = mta_of(made)
    assert made.warnings == ()
    assert by_sendmail(mta, "user@example.net") == "local"
    assert by_sendmail(mta, "user@localhost") == "local"
    assert by_sendmail(mta, "user@lists.example.org") == "smtp:[192.0.2.77]"
    assert by_sendmail(mta, "user@example.org") == "smtp:example.org"
    assert told(mta, "local", "mx.example.org") == "local"
    assert told(mta, "dovecot", "example.net") == "local"
    assert told(mta, "smtp", "[192.0.2.77]") == "[192.0.2.77]"


@pytest.mark.parametrize("name", sorted(path.name for path in FIELD.iterdir() if path.is_dir()))
def test_a_configuration_that_mirrors_it_is_without_fault(read: Read, name: str) -> None:
    postfix = read(name)
    made = mirror(postfix)
    assert complaints(postfix, made).splitlines()[0] == "[mta] agrees with Postfix"
    assert all(not warned(made, word) for word in ("cannot be read", "no such service"))


def test_a_milter_before_a_before_queue_filter_behind_postscreen_is_told(read: Read) -> None:
    """It sees no header and no end of message there: it tags nothing, and removes no tag."""
    postfix = read("postscreen-proxy")
    made = mirror(postfix)
    queue = postfix.root / postfix.settings["queue_directory"].lstrip("/")
    milter = {"socket": f"unix:{queue}/requiretls-milter/milter.sock"}
    config = Config.model_validate({"mta": made.mta, "milter": milter})
    (told,) = (one for one in examine_postfix(config, postfix, made) if one.check == "attached")
    assert told.severity == Severity.ERROR
    assert "smtpd_proxy_filter = 127.0.0.1:20000" in told.found
    assert "neither the header nor the end of a message" in told.found
