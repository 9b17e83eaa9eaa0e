"""Mistakes that no key can know of by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from requiretls_milter.config.secret import read_secret
from tests.support.configured import configured, mistakes_in


def certificate() -> str:
    return (
        Path("/etc/ssl/certs/ca-certificates.crt").read_text().partition("-----END")[0]
        + "-----END CERTIFICATE-----\n"
    )


def test_a_ca_file_with_a_certificate_is_good(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("a comment\n" + certificate())
    loaded = configured(f'probe.ca_file = "{ca_file}"\n')
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
    (mistake,) = mistakes_in(f'probe.ca_file = "{ca_file}"\n')
    assert mistake == f"probe.ca_file: {ca_file} holds no certificate in PEM form"


def test_a_ca_file_that_is_a_directory_is_an_error(tmp_path: Path) -> None:
    (mistake,) = mistakes_in(f'probe.ca_file = "{tmp_path}"\n')
    assert "cannot be read: Is a directory" in mistake


def test_a_relative_ca_file_is_an_error_of_its_own() -> None:
    (mistake,) = mistakes_in('probe.ca_file = "ca.pem"\n')
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
        return "[metrics]\n" + "\n".join((f'{name} = "{path}"' for name, path in files.items()))

    assert getattr(configured(written()).metrics, key) == str(both)
    files[key] = tmp_path / "missing.pem"
    (mistake,) = mistakes_in(written())
    assert mistake == f"metrics.{key}: {files[key]} cannot be read: No such file or directory"
    files[key] = tmp_path / "empty.pem"
    files[key].write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMEFC\n")
    (mistake,) = mistakes_in(written())
    assert mistake == f"metrics.{key}: {files[key]} holds no {what} in PEM form"


@pytest.mark.parametrize(
    ("given", "missing"), [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")]
)
def test_a_certificate_without_its_key_is_an_error(
    tmp_path: Path, given: str, missing: str
) -> None:
    file = tmp_path / "both.pem"
    file.write_text(
        certificate() + "-----BEGIN PRIVATE KEY-----\nMEFC\n-----END PRIVATE KEY-----\n"
    )
    (mistake,) = mistakes_in(f'metrics.{given} = "{file}"\n')
    assert mistake == f"metrics.{missing}: empty, but a certificate and its key are needed together"


def test_client_certificates_without_tls_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(certificate())
    (mistake,) = mistakes_in(f'metrics.tls_client_ca = "{file}"\n')
    assert mistake == "metrics.tls_client_ca: needs TLS, but metrics.tls_certificate is empty"


def test_two_sockets_on_one_path_are_an_error() -> None:
    (mistake,) = mistakes_in('milter.socket = "unix:/run/a.sock"\nengine.socket = "/run/a.sock"\n')
    assert mistake == "engine.socket: this is the path of milter.socket too"


def test_an_override_for_a_local_transport_is_an_error() -> None:
    (mistake,) = mistakes_in('[mta.transport.lmtp]\ntls_security_level = "dane"\n')
    assert mistake.startswith("mta.transport.lmtp: lmtp is one of mta.local_transports")


def test_a_route_by_a_local_transport_is_an_error() -> None:
    (mistake,) = mistakes_in('mta.route_transport = "virtual"\n')
    assert mistake.startswith("mta.route_transport: virtual is one of mta.local_transports")


def test_a_secret_is_read_when_the_configuration_is(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    text = f'store.secret_file = "{secret}"\n'
    assert mistakes_in(text) == (
        f"store.secret_file: {secret} cannot be read: No such file or directory",
    )
    secret.write_bytes(b" " * 40 + b"short\n")
    assert mistakes_in(text) == (f"store.secret_file: {secret} is shorter than 32 octets",)
    secret.write_bytes(b"x" * 1025)
    assert mistakes_in(text) == (f"store.secret_file: {secret} is longer than 1024 octets",)
    secret.write_bytes(b"\n" + b"x" * 32 + b"\n")
    assert configured(text).store.secret_file == str(secret)
    assert read_secret(str(secret)) == b"x" * 32
