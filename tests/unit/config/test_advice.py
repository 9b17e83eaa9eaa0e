"""What a configuration says, but probably does not mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.config import Config, load, warnings
from tests.support.configured import configured


def test_metrics_for_everybody_in_clear_are_warned_of() -> None:
    loaded = configured('metrics.listen = "192.0.2.1:9894"\n')
    (warning,) = warnings(loaded)
    assert warning.startswith("metrics.listen: 192.0.2.1 can be reached from other hosts")


def test_a_route_without_a_tag_is_warned_of() -> None:
    text = 'mta.route_transport = "smtp-strict"\nmilter.tag_leaving = {}\n'
    (warning,) = warnings(configured(text.format("false")))
    assert warning.startswith("mta.route_transport: with milter.tag_leaving = false")
    assert warnings(configured(text.format("true"))) == ()


@pytest.mark.parametrize("mode", ["off", "monitor"])
def test_require_with_a_mode_that_never_acts_is_warned_of(mode: str) -> None:
    loaded = configured(f'[rules.sender."bank.example"]\nrequire = true\nmode = "{mode}"\n')
    (warning,) = warnings(loaded)
    assert warning.startswith(f'rules.sender."bank.example": require = true with mode "{mode}"')


def test_require_with_the_inherited_mode_is_warned_of() -> None:
    loaded = configured('[rules.recipient."bank.example"]\nrequire = true\n')
    assert len(warnings(loaded)) == 1
    loaded = configured("[rules]\nrequire = true\n")
    assert [warning.split(":")[0] for warning in warnings(loaded)] == ["rules"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("", "virtual_alias_maps and the canonical maps are empty"),
        ('profile = "rfc8689"\nvirtual_alias_maps = ["hash:/etc/a"]\n', "profile is not postfix"),
    ],
)
def test_aliases_without_effect_are_warned_of(lines: str, why: str) -> None:
    loaded = configured(f'[mta]\naliases = "static"\n{lines}')
    (warning,) = warnings(loaded)
    assert warning.startswith("mta.aliases: without effect")
    assert why in warning


def test_require_with_a_mode_that_acts_is_not_warned_of() -> None:
    loaded = configured(
        '[rules]\nmode = "defer"\n[rules.recipient."bank.example"]\nrequire = true\n'
        '[rules.sender."bank.example"]\nrequire = true\nmode = "reject"\n'
    )
    assert warnings(loaded) == ()


def test_a_mode_that_is_inherited_from_a_parent_or_a_list_counts(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    (tmp_path / "p.txt").write_text("a.example\n")
    table = '[rules.recipient."a.example"]\nrequire = true\n'
    assert warnings(configured(f'{table}[rules.recipient.".example"]\nmode = "defer"\n')) == ()
    file.write_text(f'{table}[rules.list.p]\ndomains_file = "p.txt"\nmode = "defer"\n')
    assert warnings(load(file)) == ()
    file.write_text(f'{file.read_text()}match = "sender"\n')
    assert len(warnings(load(file))) == 1


@pytest.mark.parametrize(
    ("nameserver", "warned"),
    [("127.0.0.1", False), ("[::1]:5353", False), ("192.0.2.53", True), ("192.0.2.53:53", True)],
)
def test_r20_a_resolver_on_another_host_is_warned_of(nameserver: str, warned: bool) -> None:
    loaded = configured(f'dns.nameservers = ["{nameserver}"]\n')
    assert bool(warnings(loaded)) is warned


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("redis://redis.example/0", True),
        ("redis://localhost/0", False),
        ("rediss://redis.example/0", False),
    ],
)
def test_a_store_on_another_host_without_tls_is_warned_of(url: str, warned: bool) -> None:
    loaded = configured(f'store.url = "{url}"\n')
    assert [one.split(",")[0] for one in warnings(loaded)] == (
        ["store.url: what is kept"] if warned else []
    )


def test_a_milter_socket_over_tcp_and_one_for_everybody_are_warned_of() -> None:
    (warning,) = warnings(configured('milter.socket = "inet:8894@127.0.0.1"\n'))
    assert "over TCP everyone who can reach the address" in warning
    (warning,) = warnings(configured('milter.socket_mode = "0666"\n'))
    assert "every user" in warning


def test_a_wait_that_is_never_waited_is_warned_of() -> None:
    text = 'limits.message_wait = 12\nrules.recipient."example.org".decide_wait = {}\n'
    (warning,) = warnings(configured(text.format(13)))
    assert warning.startswith("limits.message_wait: a message waits 12 s at most")
    assert warnings(configured(text.format(12))) == ()


@pytest.mark.parametrize(("seconds", "warned"), [(299, True), (300, False)])
def test_less_patience_with_the_mta_than_it_has_with_clients_is_warned_of(
    seconds: int, warned: bool
) -> None:
    loaded = configured(f"limits.mta_silence = {seconds}\n")
    found = [text for text in warnings(loaded) if text.startswith("limits.mta_silence: ")]
    assert bool(found) is warned


def test_the_defaults_are_not_warned_of() -> None:
    assert warnings(Config()) == ()
