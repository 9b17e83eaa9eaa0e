"""What an MTA carries."""

from __future__ import annotations

import pytest

from requiretls_milter.model import Capability, Requirement
from requiretls_milter.syntax.capability import capability, carried, is_postfix, named

FULL, HALF, NOTHING = Capability.REQUIRETLS, Capability.TLS_REQUIRED, Capability.NOTHING
REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE


@pytest.mark.parametrize(
    ("version", "postfix"),
    [
        ("Postfix 3.11.7", True),
        ("Postfix 99999999999.1", True),
        ("Postfix", False),
        ("8.18.2", False),
        ("", False),
    ],
)
def test_postfix_is_known_by_its_name(version: str, postfix: bool) -> None:
    assert is_postfix(version) is postfix


@pytest.mark.parametrize(
    ("carries", "version", "able"),
    [
        ("auto", "Postfix 3.11.7", FULL),
        ("auto", "Postfix 3.11", FULL),
        ("auto", "Postfix 3.12-20260821", FULL),
        ("auto", "Postfix 4.0.0", FULL),
        ("auto", "Postfix 3.10.5", HALF),
        ("auto", "Postfix 3.9.1", NOTHING),
        ("auto", "Postfix 3.7.11", NOTHING),
        ("auto", "Postfix 2.11.11", NOTHING),
        ("auto", "8.18.2", NOTHING),
        ("auto", "", NOTHING),
        ("auto", "postfix 3.11.7", NOTHING),
        ("auto", "Postfix", NOTHING),
        ("auto", "Postfix 99999999999.1", NOTHING),
        ("requiretls", "8.18.2", FULL),
        ("tls-required", "Postfix 3.11.7", HALF),
        ("nothing", "Postfix 3.11.7", NOTHING),
    ],
)
def test_what_an_mta_carries_is_read_from_its_version_unless_configured(
    carries: str, version: str, able: Capability
) -> None:
    assert capability(Capability(carries), version) is able


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("8.17.1.9", "Sendmail 8.17.1.9"),
        ("8.18.1/Debian-6", "Sendmail 8.18.1/Debian-6"),
        ("Postfix 3.11.7", "Postfix 3.11.7"),
        ("", ""),
        ("80.1", "80.1"),
    ],
)
def test_sendmail_which_says_its_version_alone_gets_its_name(version: str, name: str) -> None:
    assert named(version) == name


@pytest.mark.parametrize(
    ("able", "requirement", "acts_on"),
    [
        (FULL, REQUIRETLS, REQUIRETLS),
        (FULL, NO, NO),
        (HALF, REQUIRETLS, NONE),
        (HALF, NO, NO),
        (NOTHING, REQUIRETLS, NONE),
        (NOTHING, NO, NONE),
        (FULL, NONE, NONE),
    ],
)
def test_an_mta_acts_on_the_requirements_that_it_knows(
    able: Capability, requirement: Requirement, acts_on: Requirement
) -> None:
    assert carried(able, requirement) is acts_on
