from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from requiretls_milter import config
from requiretls_milter.config import Config, ConfigError, loading, sources
from requiretls_milter.config.secret import read_secret
from tests.support.mistakes import without_place


def write(directory: Path, content: str | bytes) -> Path:
    path = directory / "config.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mistakes(directory: Path, content: str | bytes) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config.load(write(directory, content))
    return tuple(map(without_place, caught.value.mistakes))


def test_without_a_file_in_the_usual_place_all_is_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path / "none.toml")
    assert config.load() == Config()


def test_the_file_in_the_usual_place_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", write(tmp_path, "[milter]\nworkers = 3\n"))
    assert config.load().milter.workers == 3


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        config.load(tmp_path / "none.toml")


def test_what_lies_in_the_usual_place_must_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_PATH", tmp_path)  # a directory, also for root
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, "")) == Config()


def test_a_syntax_error_is_told_with_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, "[milter]\nworkers = 3 4\n"))
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"{tmp_path}/config.toml:2:13: not valid TOML: ")


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, "[milter]\nworkers = 3\nworkers = 4\n")
    assert mistake == "workers stands on line 2 already: keep one of the two lines"


def test_what_is_no_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, b"[milter]\nby = 'ok.example'\n# caf\xe9\n")
    assert "line 3 is not UTF-8" in mistake


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, b"\xef\xbb\xbf[milter]\n")
    assert "byte order mark" in mistake


@pytest.mark.parametrize("value", ["[" * 5000, "x = " + "[" * 5000, "x" + ".x" * 2000 + " = 1"])
def test_deep_nesting_is_an_error_and_no_crash(tmp_path: Path, value: str) -> None:
    assert mistakes(tmp_path, value)


@pytest.mark.parametrize(("over", "accepted"), [(-1, True), (0, True), (1, False)])
def test_a_file_has_a_mebibyte_at_most(tmp_path: Path, over: int, accepted: bool) -> None:
    content = "#" * (sources.MAX_FILE_BYTES + over)
    if accepted:
        assert config.load(write(tmp_path, content)) == Config()
    else:
        assert "larger than 1048576 bytes" in mistakes(tmp_path, content)[0]


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        config.load(Path("/dev/zero"))


# ---------------------------------------------------------------- files that it names


def certificate() -> str:
    return Path("/etc/ssl/certs/ca-certificates.crt").read_text().partition("-----END")[0] + (
        "-----END CERTIFICATE-----\n"
    )


def test_a_ca_file_with_a_certificate_is_good(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("a comment\n" + certificate())
    loaded = config.load(write(tmp_path, f'probe.ca_file = "{ca_file}"\n'))
    assert loaded.probe.ca_file == str(ca_file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nMEFC\n-----END PRIVATE KEY-----\n",
    ],
)
def test_a_ca_file_without_a_certificate_is_an_error(tmp_path: Path, content: str) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(content)
    (mistake,) = mistakes(tmp_path, f'probe.ca_file = "{ca_file}"\n')
    assert mistake == f"probe.ca_file: {ca_file} holds no certificate in PEM form"


def test_a_ca_file_that_is_a_directory_is_an_error(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, f'probe.ca_file = "{tmp_path}"\n')
    assert "cannot be read: Is a directory" in mistake


def test_a_relative_ca_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, 'probe.ca_file = "ca.pem"\n')
    assert mistake == 'probe.ca_file: expected an absolute path, got the text "ca.pem"'


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("tls_certificate", "certificate"),
        ("tls_key", "key without a passphrase"),
        ("tls_client_ca", "certificate"),
    ],
)
def test_files_of_the_metrics_endpoint_must_hold_what_they_should(
    tmp_path: Path, key: str, what: str
) -> None:
    both = tmp_path / "both.pem"
    both.write_text(
        certificate() + "-----BEGIN EC PRIVATE KEY-----\nMEFC\n-----END EC PRIVATE KEY-----\n"
    )
    files = dict.fromkeys(("tls_certificate", "tls_key", "tls_client_ca"), both)

    def written() -> str:
        return "[metrics]\n" + "\n".join(f'{name} = "{path}"' for name, path in files.items())

    assert getattr(config.load(write(tmp_path, written())).metrics, key) == str(both)
    files[key] = tmp_path / "missing.pem"
    (mistake,) = mistakes(tmp_path, written())
    assert mistake == f"metrics.{key}: {files[key]} cannot be read: No such file or directory"
    files[key] = tmp_path / "empty.pem"
    files[key].write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMEFC\n")
    (mistake,) = mistakes(tmp_path, written())
    assert mistake == f"metrics.{key}: {files[key]} holds no {what} in PEM form"


# ---------------------------------------------------------------- keys that do not go together


@pytest.mark.parametrize(
    ("given", "missing"),
    [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")],
)
def test_a_certificate_without_its_key_is_an_error(
    tmp_path: Path, given: str, missing: str
) -> None:
    file = tmp_path / "both.pem"
    file.write_text(
        certificate() + "-----BEGIN PRIVATE KEY-----\nMEFC\n-----END PRIVATE KEY-----\n"
    )
    (mistake,) = mistakes(tmp_path, f'metrics.{given} = "{file}"\n')
    assert mistake == f"metrics.{missing}: empty, but a certificate and its key are needed together"


def test_client_certificates_without_tls_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(certificate())
    (mistake,) = mistakes(tmp_path, f'metrics.tls_client_ca = "{file}"\n')
    assert mistake == "metrics.tls_client_ca: needs TLS, but metrics.tls_certificate is empty"


def test_metrics_for_everybody_in_clear_are_warned_of(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, 'metrics.listen = "192.0.2.1:9894"\n'))
    (warning,) = config.warnings(loaded)
    assert warning.startswith("metrics.listen: 192.0.2.1 can be reached from other hosts")


def test_two_sockets_on_one_path_are_an_error(tmp_path: Path) -> None:
    (mistake,) = mistakes(
        tmp_path, 'milter.socket = "unix:/run/a.sock"\nengine.socket = "/run/a.sock"\n'
    )
    assert mistake == "engine.socket: this is the path of milter.socket too"


def test_an_override_for_a_local_transport_is_an_error(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, '[mta.transport.lmtp]\ntls_security_level = "dane"\n')
    assert mistake.startswith("mta.transport.lmtp: lmtp is one of mta.local_transports")


def test_a_route_by_a_local_transport_is_an_error(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, 'mta.route_transport = "virtual"\n')
    assert mistake.startswith("mta.route_transport: virtual is one of mta.local_transports")


def test_a_route_without_a_tag_is_warned_of(tmp_path: Path) -> None:
    text = 'mta.route_transport = "smtp-strict"\nmilter.tag_leaving = {}\n'
    (warning,) = config.warnings(config.load(write(tmp_path, text.format("false"))))
    assert warning.startswith("mta.route_transport: with milter.tag_leaving = false")
    assert config.warnings(config.load(write(tmp_path, text.format("true")))) == ()


@pytest.mark.parametrize("mode", ["off", "monitor"])
def test_require_with_a_mode_that_never_acts_is_warned_of(tmp_path: Path, mode: str) -> None:
    loaded = config.load(
        write(tmp_path, f'[rules.sender."bank.example"]\nrequire = true\nmode = "{mode}"\n')
    )
    (warning,) = config.warnings(loaded)
    assert warning.startswith(f'rules.sender."bank.example": require = true with mode "{mode}"')


def test_require_with_the_inherited_mode_is_warned_of(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, '[rules.recipient."bank.example"]\nrequire = true\n'))
    assert len(config.warnings(loaded)) == 1
    loaded = config.load(write(tmp_path, "[rules]\nrequire = true\n"))
    assert [warning.split(":")[0] for warning in config.warnings(loaded)] == ["rules"]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("", "virtual_alias_maps and the canonical maps are empty"),
        ('profile = "rfc8689"\nvirtual_alias_maps = ["hash:/etc/a"]\n', "profile is not postfix"),
    ],
)
def test_aliases_without_effect_are_warned_of(tmp_path: Path, lines: str, why: str) -> None:
    loaded = config.load(write(tmp_path, f'[mta]\naliases = "static"\n{lines}'))
    (warning,) = config.warnings(loaded)
    assert warning.startswith("mta.aliases: without effect")
    assert why in warning


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("virtual", "as in main.cf"),
        ("hash:", "as in main.cf"),
        ("Hash:/etc/virtual", "as in main.cf"),
        ("hash:virtual", "absolute"),
        ("proxy:lmdb:virtual", "absolute"),
        ("inline:" + "x" * 70_000, "at most 65536"),
    ],
)
def test_a_table_is_named_as_in_main_cf(tmp_path: Path, item: str, why: str) -> None:
    (mistake,) = mistakes(tmp_path, f'[mta]\nvirtual_alias_maps = ["{item}"]\n')
    assert mistake.startswith("mta.virtual_alias_maps")
    assert why in mistake


def test_require_with_a_mode_that_acts_is_not_warned_of(tmp_path: Path) -> None:
    loaded = config.load(
        write(
            tmp_path,
            '[rules]\nmode = "defer"\n[rules.recipient."bank.example"]\nrequire = true\n'
            '[rules.sender."bank.example"]\nrequire = true\nmode = "reject"\n',
        )
    )
    assert config.warnings(loaded) == ()


def test_a_mode_that_is_inherited_from_a_parent_or_a_list_counts(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a.example\n")
    tables = '[rules.recipient."a.example"]\nrequire = true\n'
    parent = '[rules.recipient.".example"]\nmode = "defer"\n'
    partners = '[rules.list.p]\ndomains_file = "p.txt"\nmode = "defer"\n'
    assert config.warnings(config.load(write(tmp_path, tables + parent))) == ()
    assert config.warnings(config.load(write(tmp_path, tables + partners))) == ()
    senders = f'{partners}match = "sender"\n'
    assert len(config.warnings(config.load(write(tmp_path, tables + senders)))) == 1


@pytest.mark.parametrize(
    ("nameserver", "warned"),
    [("127.0.0.1", False), ("[::1]:5353", False), ("192.0.2.53", True), ("192.0.2.53:53", True)],
)
def test_r20_a_resolver_on_another_host_is_warned_of(
    tmp_path: Path, nameserver: str, warned: bool
) -> None:
    loaded = config.load(write(tmp_path, f'dns.nameservers = ["{nameserver}"]\n'))
    assert bool(config.warnings(loaded)) is warned


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("redis://redis.example/0", True),
        ("redis://localhost/0", False),
        ("rediss://redis.example/0", False),
    ],
)
def test_a_store_on_another_host_without_tls_is_warned_of(
    tmp_path: Path, url: str, warned: bool
) -> None:
    loaded = config.load(write(tmp_path, f'store.url = "{url}"\n'))
    assert [one.split(",")[0] for one in config.warnings(loaded)] == (
        ["store.url: what is kept"] if warned else []
    )


def test_a_secret_is_read_when_the_configuration_is(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    text = f'store.secret_file = "{secret}"\n'
    assert mistakes(tmp_path, text) == (
        f"store.secret_file: {secret} cannot be read: No such file or directory",
    )
    secret.write_bytes(b" " * 40 + b"short\n")
    assert mistakes(tmp_path, text) == (f"store.secret_file: {secret} is shorter than 32 octets",)
    secret.write_bytes(b"x" * 1_025)
    assert mistakes(tmp_path, text) == (f"store.secret_file: {secret} is longer than 1024 octets",)
    secret.write_bytes(b"\n" + b"x" * 32 + b"\n")
    assert config.load(write(tmp_path, text)).store.secret_file == str(secret)
    assert read_secret(str(secret)) == b"x" * 32


def test_a_milter_socket_over_tcp_and_one_for_everybody_are_warned_of(tmp_path: Path) -> None:
    (warning,) = config.warnings(
        config.load(write(tmp_path, 'milter.socket = "inet:8894@127.0.0.1"\n'))
    )
    assert "over TCP everyone who can reach the address" in warning
    (warning,) = config.warnings(config.load(write(tmp_path, 'milter.socket_mode = "0666"\n')))
    assert "every user" in warning


def test_a_wait_that_is_never_waited_is_warned_of(tmp_path: Path) -> None:
    text = 'limits.message_wait = 12\nrules.recipient."example.org".decide_wait = {}\n'
    (warning,) = config.warnings(config.load(write(tmp_path, text.format(13))))
    assert warning.startswith("limits.message_wait: a message waits 12 s at most")
    assert config.warnings(config.load(write(tmp_path, text.format(12)))) == ()


@pytest.mark.parametrize(("seconds", "warned"), [(299, True), (300, False)])
def test_less_patience_with_the_mta_than_it_has_with_clients_is_warned_of(
    tmp_path: Path, seconds: int, warned: bool
) -> None:
    loaded = config.load(write(tmp_path, f"limits.mta_silence = {seconds}\n"))
    found = [text for text in config.warnings(loaded) if text.startswith("limits.mta_silence: ")]
    assert bool(found) is warned


def test_the_defaults_are_not_warned_of() -> None:
    assert config.warnings(Config()) == ()


def test_the_configuration_imports_no_network_and_no_openssl() -> None:
    code = (
        "import sys, requiretls_milter.config as c; c.load(None);"
        "print([m for m in ('aiohttp', 'asyncio', 'dns', 'ssl', 'OpenSSL', 'cryptography')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
