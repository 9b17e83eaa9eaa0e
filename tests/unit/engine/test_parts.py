"""What a reload keeps, and what it begins anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from requiretls_milter.config import Config, Limits
from requiretls_milter.engine.domains.servedmta import ServedMta
from requiretls_milter.engine.parts import Parts, PartsBuilder, StartError
from requiretls_milter.store.memory import MemoryStore
from requiretls_milter.telemetry.counting import Counters, Gauges
from tests.support.authority import Authority

CONFIG = Config.model_validate({"dns": {"nameservers": ["127.0.0.1:9"], "timeout": 0.1}})


@pytest.fixture
def builder() -> PartsBuilder:
    return PartsBuilder(MemoryStore(), Counters(), Gauges(), ServedMta())


@pytest.fixture
async def first(builder: PartsBuilder) -> AsyncIterator[Parts]:
    parts = builder.build(CONFIG, 1)
    yield parts
    await parts.close()


async def test_other_limits_want_another_collector(builder: PartsBuilder, first: Parts) -> None:
    other = CONFIG.model_copy(update={"limits": Limits(probes=41)})
    assert builder.build(CONFIG, 2, first).collector is first.collector
    assert builder.build(other, 3, first).collector is not first.collector


async def test_a_reload_that_finds_the_same_keeps_what_was_found(
    builder: PartsBuilder, first: Parts
) -> None:
    other = CONFIG.model_copy(update={"milter": CONFIG.milter.model_copy()})
    second = builder.build(other, 2, first)
    assert second.source is first.source
    assert second.collector is first.collector
    assert second.trust is first.trust
    assert second.assessor is not first.assessor
    assert (second.generation, second.config) == (2, other)
    await first.retire(second)
    await second.source.mx("[")  # not closed


def with_stale_for(config: Config, seconds: int) -> Config:
    engine = config.engine.model_copy(update={"stale_for": seconds})
    return config.model_copy(update={"engine": engine})


async def test_a_reload_that_finds_the_same_keeps_the_answers(
    builder: PartsBuilder, first: Parts
) -> None:
    assert builder.build(CONFIG.model_copy(), 2, first).answers is first.answers
    shorter = builder.build(with_stale_for(CONFIG, 60), 3, first)
    assert shorter.source is first.source
    assert shorter.answers.stale_for == 60
    assert builder.build(with_stale_for(CONFIG, 0), 4, first).answers.stale_for == 0


async def test_no_answer_outlives_the_evidence_on_which_it_rests(
    builder: PartsBuilder, first: Parts
) -> None:
    """Nor a change of the resolver, after which the cache is empty."""
    probe = CONFIG.probe.model_copy(update={"helo": "other.example"})
    second = builder.build(CONFIG.model_copy(update={"probe": probe}), 2, first)
    emptied = builder.with_empty_cache(first)
    assert len({id(parts.answers) for parts in (first, second, emptied)}) == 3
    await second.close()
    await emptied.source.close()


async def test_a_reload_that_finds_other_things_begins_anew(
    builder: PartsBuilder, first: Parts
) -> None:
    probe = CONFIG.probe.model_copy(update={"helo": "other.example"})
    second = builder.build(CONFIG.model_copy(update={"probe": probe}), 2, first)
    assert second.source is not first.source
    assert second.collector is not first.collector
    await second.close()


async def test_an_empty_cache_has_the_same_collector(builder: PartsBuilder, first: Parts) -> None:
    second = builder.with_empty_cache(first)
    assert second.source is not first.source
    assert second.collector is first.collector
    assert second.assessor is not first.assessor
    await second.assessor.close()


async def test_another_file_of_authorities_under_the_same_name_begins_anew(
    builder: PartsBuilder, authority: Authority, tmp_path: Path
) -> None:
    bundle = authority.path.read_text("ascii")
    another = Authority(tmp_path, "Another CA").path.read_text("ascii")
    authorities = tmp_path / "ca.pem"
    authorities.write_text(bundle)
    probe = CONFIG.probe.model_copy(update={"ca_file": str(authorities)})
    config = CONFIG.model_copy(update={"probe": probe})
    one = builder.build(config, 1)
    authorities.write_text(f"The same one:\n{bundle}\n{bundle}")
    assert builder.build(config, 2, one).source is one.source
    authorities.write_text(bundle + another)
    other = builder.build(config, 3, one)
    assert other.source is not one.source
    assert other.assessment_digest != one.assessment_digest
    authorities.write_text("nothing")
    with pytest.raises(StartError):
        builder.build(config, 4, one)


async def test_another_store_of_the_system_begins_anew(
    builder: PartsBuilder, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its file or in its directory, both of which OpenSSL reads."""
    directory = tmp_path / "certs"
    directory.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    one = builder.build(CONFIG, 1)
    assert builder.build(CONFIG, 2, one).source is one.source
    another = Authority(tmp_path, "Another CA").path.read_bytes()
    (directory / "another.pem").write_bytes(another)
    assert builder.build(CONFIG, 3, one).source is one.source, "OpenSSL does not read this name"
    (directory / "0123abcd.0").write_bytes(another)
    assert builder.build(CONFIG, 4, one).source is not one.source


async def test_other_resolvers_of_the_system_want_another_collector(
    builder: PartsBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a reload, also if nothing of the configuration has changed."""
    named = [[("127.0.0.1", 9)]]
    monkeypatch.setattr("requiretls_milter.evidence.dns._system_nameservers", lambda: named[-1])
    config = Config.model_validate({"dns": {"timeout": 0.1}})
    one = builder.build(config, 1)
    assert builder.build(config, 2, one).source is one.source
    named.append([("127.0.0.2", 9)])
    other = builder.build(config, 3, one)
    assert other.source is not one.source
    assert other.collector.resolver.nameservers == (("127.0.0.2", 9),)
