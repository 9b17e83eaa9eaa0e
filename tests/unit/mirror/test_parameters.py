"""Every parameter of Postfix is mirrored, warned of, or without effect."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from requiretls_milter.config import Config
from requiretls_milter.mirror.parameters import (
    MIRRORED,
    WARNED_APART,
    accounted,
    irrelevant,
    unknown,
)
from requiretls_milter.mirror.postconf import PARAMETERS, Postfix
from requiretls_milter.mirror.section import mirror
from tests.support.paths import REPOSITORY
from tests.support.postfixes import postfix, service, warned

LISTS = REPOSITORY / "tests" / "data" / "postfix"
"""What ``postconf -d`` of each version names; tests/lab/test_mta_import.py compares them."""

VERSIONS = ("3.7", "3.10", "3.11")


def names(version: str) -> list[str]:
    return (LISTS / f"{version}.txt").read_text(encoding="ascii").split()


@pytest.mark.parametrize("version", VERSIONS)
def test_each_parameter_is_accounted_for(version: str) -> None:
    assert len(names(version)) > 800
    assert list(unknown(Postfix({}, dict.fromkeys(names(version), "")))) == []


def test_none_is_accounted_for_twice_and_none_is_made_up() -> None:
    times = Counter(accounted())
    assert [name for name, count in times.items() if count > 1] == []
    assert set(times) == {name for version in VERSIONS for name in names(version)}


def test_what_is_mirrored_or_warned_of_is_read() -> None:
    assert set(MIRRORED) | set(WARNED_APART) <= set(PARAMETERS)


@pytest.mark.parametrize("key", sorted(set(MIRRORED.values())))
def test_what_is_mirrored_has_its_key(key: str) -> None:
    section, _, name = key.rpartition(".")
    assert hasattr(getattr(Config(), section or "mta"), name)


def test_each_group_has_a_reason_and_parameters() -> None:
    for group in irrelevant():
        assert group.why
        assert group.names


def test_a_parameter_of_a_newer_postfix_is_named() -> None:
    made = postfix()
    newer = replace(made, defaults={**made.defaults, "smtp_tls_quantum": "no"})
    assert warned(mirror(newer), "smtp_tls_quantum: a parameter that is not known here")
    assert not warned(mirror(made), "smtp_tls_quantum")


@pytest.mark.parametrize(
    "suffix",
    ["delivery_slot_cost", "destination_recipient_limit", "transport_rate_delay", "time_limit"],
)
def test_the_parameters_of_a_single_transport_are_known(suffix: str) -> None:
    made = postfix(service("smtp", "smtp-strict"))
    known = replace(made, defaults={**made.defaults, f"smtp-strict_{suffix}": ""})
    assert not warned(mirror(known), f"smtp-strict_{suffix}")
    other = replace(made, defaults={**made.defaults, f"elsewhere_{suffix}": ""})
    assert warned(mirror(other), f"elsewhere_{suffix}: ")
