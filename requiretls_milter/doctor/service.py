"""Checks of the running service: its engine, its metrics, and what tells of watched domains."""

from __future__ import annotations

import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from requiretls_milter import __version__
from requiretls_milter.config import Config
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.doctor.host import ANSWER_TIMEOUT, greeting
from requiretls_milter.doctor.trust import authorities_now
from requiretls_milter.evidence.authorities import pem_blocks
from requiretls_milter.ipc import query
from requiretls_milter.ipc.wire import Condition, ServiceStatus
from requiretls_milter.syntax.endpoint import Endpoint
from requiretls_milter.syntax.text import error_text
from requiretls_milter.telemetry.catalogue import PREFIX

MAX_METRICS_BYTES = 4 * 1024 * 1024
"""Size of the metrics that are read, enough for thousands of domains."""

ASSESSED = frozenset({"mta", "dns", "probe"})
"""The sections in ``Config.assessment_digest``."""


def examine(config: Config) -> Iterator[Finding]:
    """Check that the engine answers, has this version, and runs with this configuration."""
    try:
        status = query.status(config.engine.socket, ANSWER_TIMEOUT, whole=True)
    except query.EngineUnavailable as problem:
        yield error(
            "service",
            f"no engine answers on {config.engine.socket}: {problem}",
            "Run doctor as root."
            if problem.denied
            else "Start the service: requiretls-milter serve; see its log.",
        )
        return
    if status.version != __version__:
        yield warning(
            "service",
            f"the running service is version {status.version}, this program {__version__}",
            "Restart the service.",
        )
    if status.assessment_digest != config.assessment_digest(authorities_now(config)):
        yield warning(
            "service",
            "the running service has another [mta], [dns] or [probe] than this configuration, or "
            "other certification authorities than their file has now",
            "Reload it (SIGHUP), or name the file that it runs with by --config.",
        )
    yield from _in_force(config, status.service)
    if len(status.workers) < status.all_workers:
        yield warning(
            "service",
            f"{len(status.workers)} of {status.all_workers} workers are connected to the engine",
            "See the service's log: a worker that cannot start says why.",
        )
    if not status.resolver_validates:
        yield warning(
            "service",
            "nothing has shown the running service that its resolver validates DNSSEC: nothing "
            "counts as secure there",
            'See the check "resolver", and the service\'s log: resolver_not_tested says why.',
        )
    if (condition := status.condition) is not None:
        yield from _watch_failing(condition)
    yield ok("service", f"the service runs (process {status.pid}, version {status.version})")


def _in_force(config: Config, service: ServiceStatus | None) -> Iterator[Finding]:
    """Compare what is in force with this configuration: all but what the digest compares."""
    if service is None:
        return
    if service.suspended:
        yield warning(
            "rules_suspended",
            "the rules of the running service are suspended: no mail is deferred or refused",
            "requiretls-milter resume, or take suspended = true out of [rules] and reload.",
        )
    differing = [name for name in service.differs_in(config) if name not in ASSESSED]
    if differing:
        sections = ", ".join(f"[{name}]" for name in differing)
        yield warning(
            "config_differs",
            f"the running service has another {sections} than this configuration",
            "Reload it (SIGHUP), or restart it if its log says needs_restart; or name the file "
            f"that it runs with by --config: {service.config_path}.",
        )


def _watch_failing(condition: Condition) -> Iterator[Finding]:
    """Tell of mails and commands of the watch that failed when they were used last."""
    if (failing := condition.mail_failing) is not None:
        yield warning(
            "watch_mail",
            f"the MTA does not take mail about watched domains: {failing.error}",
            "Correct watch.mail_server, mail_from or mail_to, or let the MTA accept such mail. It "
            "is tried again every five minutes.",
        )
    if (failing := condition.notify_failing) is not None:
        yield warning(
            "watch_notify",
            f"the command watch.notify failed when it was run last: {failing.error}",
            "See docs/watch.md: it runs as the service's user, within what the unit allows.",
        )


def watch(config: Config) -> Iterator[Finding]:
    """Check what tells of watched domains: it is used only when something breaks."""
    command = config.watch.command
    if command and not os.access(command[0], os.X_OK):
        yield error(
            "watch_notify",
            f"watch.notify: {command[0]} is no program that can be run here",
            "Install it, and let the service's user read and run it.",
        )
    if not config.watch.mail_to:
        return
    server = config.watch.mail_server
    try:
        said = greeting(server, ANSWER_TIMEOUT, ANSWER_TIMEOUT)
    except OSError as problem:
        said, why = b"", str(problem.strerror or problem)
    else:
        why = "no greeting of an SMTP server"
    if said.startswith(b"220"):
        yield ok("watch_mail", f"{server} takes connections for mail about watched domains")
    else:
        advice = "Start that MTA, or correct the key."
        yield error("watch_mail", f"watch.mail_server {server}: {why}", advice)


def metrics(config: Config) -> Finding:
    """Check that the metrics can be read, over TLS with the configured certificate."""
    listen = config.metrics.listen
    if listen is None:
        return ok("metrics", "metrics are switched off (metrics.listen is empty)")
    tls = bool(config.metrics.tls_certificate)
    url = f"{'https' if tls else 'http'}://{listen}/metrics"
    advice = "Start the service; make sure that no other program uses that port (metrics.listen)."
    if tls:
        try:
            presented = _presented(listen)
        except OSError as problem:
            return error("metrics", f"{url}: {error_text(problem)}", advice)
        if presented != _first_certificate(config.metrics.tls_certificate):
            return error(
                "metrics",
                f"{url}: the certificate there is not that of {config.metrics.tls_certificate}",
                "If it was renewed: reload the service (SIGHUP), and see its log.",
            )
        if config.metrics.tls_client_ca:
            return ok("metrics", f"metrics are served on {url} to those with a client certificate")
    try:
        # no proxy: it is a socket of this host
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_unverified())
        )
        with opener.open(url, timeout=ANSWER_TIMEOUT) as response:
            text = response.read(MAX_METRICS_BYTES).decode("utf-8", "replace")
    except urllib.error.HTTPError as problem:
        problem.close()  # it holds the connection
        return error("metrics", f"{url}: status {problem.code}", advice)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        why = error_text(reason) if isinstance(reason, Exception) else reason
        return error("metrics", f"{url}: {why}", advice)
    if f"{PREFIX}build_info" not in text:
        return error("metrics", f"{url}: the answer there is not this program's metrics", advice)
    return ok("metrics", f"metrics are served on {url}")


def _unverified() -> ssl.SSLContext:
    """Make a context that verifies nothing: the certificate is compared with the file instead."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _presented(listen: Endpoint) -> bytes | None:
    """Return the certificate that the server at an address presents; raises OSError."""
    with (
        socket.create_connection(listen, timeout=ANSWER_TIMEOUT) as connection,
        _unverified().wrap_socket(connection) as tls,
    ):
        return tls.getpeercert(binary_form=True)


def _first_certificate(path: str) -> bytes:
    """Return the first certificate of a PEM file, the server's own; b"" if there is none."""
    try:
        blocks = pem_blocks(Path(path))
        return ssl.PEM_cert_to_DER_cert(blocks[0]) if blocks else b""
    except (OSError, ValueError):
        return b""
