"""A running service at one moment, for tests of what is shown of it."""

from __future__ import annotations

from typing import Any

from requiretls_milter import __version__
from requiretls_milter.config import Config
from requiretls_milter.engine.overview import FileState, Overview
from requiretls_milter.ipc.wire import DomainStatus, ProcessStatus, ServiceStatus, StatusReply
from requiretls_milter.model import Capability, Outcome, Reason
from tests.support.engineview import WELL

NOW = 1_800_000_000.0

CONFIG = Config()


def service_status(**more: Any) -> ServiceStatus:
    """A service that runs since a day, but for *more*."""
    values: dict[str, Any] = {
        "since": NOW - 90_000,
        "serves": True,
        "problems": (),
        "config_path": "/etc/x.toml",
        "config_since": NOW - 3_700,
        "config_digests": CONFIG.digests(),
        "generation": 3,
        "reload_succeeded": True,
        "suspended": False,
        "processes": (
            ProcessStatus(name="supervisor", pid=1, ready=True, since=NOW - 90_000),
            ProcessStatus(name="engine", pid=2, ready=True, since=NOW - 60),
            ProcessStatus(name="worker-1"),
            ProcessStatus(name="worker-2", pid=3, ready=True, since=NOW, connections=4),
        ),
    }
    return ServiceStatus(**(values | more))


def status_reply(**more: Any) -> StatusReply:
    """What its engine replies, but for *more*."""
    values: dict[str, Any] = {
        "id": 1,
        "version": __version__,
        "pid": 2,
        "generation": 3,
        "assessment_digest": "",
        "uptime": 1.0,
        "workers": (),
        "in_flight": 0,
        "cache_entries": {},
        "resolver_validates": True,
        "mta_version": "Postfix 3.11.7",
        "carries": Capability.REQUIRETLS,
    }
    return StatusReply(**(values | more))


def overview(**more: Any) -> Overview:
    """A service that is well, but for *more*: values of any of its parts."""

    def changed(model: Any) -> Any:
        update = {key: value for key, value in more.items() if key in type(model).model_fields}
        return model.model_copy(update=update)

    return Overview(
        changed(status_reply()),
        changed(service_status()),
        changed(WELL),
        NOW,
        more.get("file", FileState()),
    )


def domain_status(domain: str, ready: bool | None, **more: Any) -> DomainStatus:
    """What is known of a configured domain."""
    outcome, status, reason, text = {
        True: (Outcome.DELIVER, "2.0.0", Reason.OK, ""),
        False: (
            Outcome.BOUNCE,
            "5.7.30",
            Reason.REQUIRETLS_NOT_OFFERED,
            f"mx1.{domain}[192.0.2.1] does not offer REQUIRETLS",
        ),
        None: (Outcome.UNKNOWN, "unknown", Reason.UNKNOWN, "nothing is known in time"),
    }[ready]
    values: dict[str, Any] = {
        "domain": domain,
        "outcome": outcome,
        "status": status,
        "reason": reason,
        "text": text,
        "ready": ready,
        "assessed_at": NOW - 180,
        "since": NOW - 200_000,
    }
    return DomainStatus(**(values | more))
