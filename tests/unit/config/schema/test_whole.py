"""The configuration as a whole: what operators were promised, and what processes compare."""

from __future__ import annotations

import pickle
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from requiretls_milter.config import Config, parse
from requiretls_milter.config.mistakes import tables_of
from requiretls_milter.model import (
    TlsLevel,
)
from tests.support.configured import configured
from tests.unit.config.generated import CONFIG

CONTRACT = (Path(__file__).parents[1] / "contract.toml").read_bytes()
"""The keys and defaults that operators were promised, with an example of each table."""


def test_the_promised_configuration_is_accepted() -> None:
    config = parse(CONTRACT, "contract.toml")
    assert config.rules.recipient["example.org"].mode == "reject"
    assert config.rules.nexthop[".example.net"].require is True
    assert config.rules.nexthop[".example.net"].enforce_for is None
    assert config.mta.transport["smtp-strict"].tls_security_level is TlsLevel.DANE_ONLY


def test_the_promised_defaults_are_the_defaults() -> None:
    raw = tomllib.loads(CONTRACT.decode())
    del raw["mta"]["transport"]
    for section in ("recipient", "nexthop", "sender"):
        del raw["rules"][section]
    defaults = Config().model_dump(mode="json")
    for section, keys in raw.items():
        for key, value in keys.items():
            shown = defaults[section][key]
            assert shown == value, f"{section}.{key}"


def test_a_configuration_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError):
        config.milter.workers = 3  # type: ignore[misc]


def every_field(schema: type[BaseModel], above: str = "") -> Iterator[tuple[str, str]]:
    tables = tables_of(schema)
    for key, field in schema.model_fields.items():
        if key in tables:
            yield from every_field(tables[key][0], f"{above}{key}.")
        if above:
            yield f"{above}{key}", field.description or ""


@pytest.mark.parametrize(("key", "description"), list(every_field(Config)))
def test_every_key_is_described(key: str, description: str) -> None:
    assert description.endswith((".", ")")), key
    assert description.isascii(), key


@given(CONFIG)
def test_a_configuration_can_be_handed_to_another_process(raw: dict[str, object]) -> None:
    config = Config.model_validate(raw)
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("milter.workers = 3", True),
        ('[rules]\nmode = "reject"', True),
        ('store.url = "memory:"', True),
        ('mta.tls_security_level = "dane"', False),
        ('[mta.transport.x]\ntls_security_level = "dane"', False),
        ("dns.timeout = 4", False),
        ("probe.port = 26", False),
    ],
)
def test_configurations_assess_alike_where_mta_dns_and_probe_are_the_same(
    change: str, same: bool
) -> None:
    assert (configured(change).assessment_digest("ab") == Config().assessment_digest("ab")) is same


def test_under_other_authorities_the_same_configuration_assesses_otherwise() -> None:
    assert Config().assessment_digest("ab") != Config().assessment_digest("cd")


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("", ()),
        ('[rules]\nmode = "reject"', ()),
        ("milter.drain_timeout = 5", ()),
        ("milter.workers = 3", ("milter.workers",)),
        (
            'milter.socket = "unix:/x"\nmetrics.listen = ""\nstore.url = "memory:"',
            ("milter.socket", "metrics.listen", "store.url"),
        ),
    ],
)
def test_what_waits_for_a_restart_is_told(change: str, keys: tuple[str, ...]) -> None:
    assert Config().changes_at_restart(configured(change)) == keys
