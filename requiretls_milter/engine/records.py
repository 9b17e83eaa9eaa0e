"""What the engine keeps in the store, as bytes and back.

A store's digests show damage, but not who wrote: a Redis may be written by
others, so that nothing that comes back is believed unseen. What does not fit the
model, is out of bounds, or says of itself that it is good for longer than it
could be, is no record (:class:`RecordError`), and the engine looks afresh.

What is kept is what costs others something to find out: sessions with servers
(a temporary failure is no knowledge, and kept apart, only so that a restart does
not call again at once), and MTA-STS policies, which must outlive what an attacker
can take away (RFC 8461 section 3.3). DNS is not kept: its answers are asked for again in
no time, and whether they are secure is for each process to see for itself.

Each kind of record has a version of its own (``v``): a change to one kind does not
cost the others. A record of an earlier version is read if it still says what it
said then; otherwise it is dropped without complaint, as if there were none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from requiretls_milter.config import Config
from requiretls_milter.evidence.mta_sts import PolicyError, read_policy, read_record
from requiretls_milter.evidence.probe import FRESH, MAX_CHAIN
from requiretls_milter.model import (
    MtaStsEvidence,
    MtaStsPolicy,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reply,
)
from requiretls_milter.store.base import CLOCK_SKEW
from requiretls_milter.syntax.text import printable

MAX_TLS_VERSION = 20
"""Characters of the name of a TLS version."""


class RecordError(ValueError):
    """Bytes that are no record of ours, or one that cannot be true; the text says why."""


class _Record(BaseModel):
    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class _Policy(_Record):
    v: Literal[1] = 1
    policy: MtaStsPolicy
    fetched_at: float
    asked_at: float


class _Probe(_Record):
    v: Literal[1] = 1
    found: ProbeEvidence


class _Attempt(_Record):
    v: Literal[2] = 2
    found: ProbeEvidence
    pause: float


class _EarlierAttempt(_Record):
    """Version 1 did not tell a network that cannot be reached from a server that refuses."""

    v: Literal[1]
    found: ProbeEvidence
    pause: float


_AnyAttempt = _Attempt | _EarlierAttempt
_attempts: TypeAdapter[_AnyAttempt] = TypeAdapter(Annotated[_AnyAttempt, Field(discriminator="v")])


@dataclass(frozen=True, slots=True)
class KeptAttempt:
    """A session that failed; until ``found.expires`` there is to be no other one.

    ``pause``: the seconds that this was, before jitter: the next one doubles it.
    """

    found: ProbeEvidence
    pause: float


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """A policy as it was fetched, and when mail asked for it last."""

    evidence: MtaStsEvidence
    policy: MtaStsPolicy
    asked_at: float


def encode_policy(policy: MtaStsPolicy, fetched_at: float, asked_at: float) -> bytes:
    """A policy as bytes."""
    record = _Policy(policy=policy, fetched_at=fetched_at, asked_at=asked_at)
    return record.model_dump_json().encode()


def decode_policy(value: bytes, now: float) -> KeptPolicy:
    """Bytes as a policy.

    Raises:
        RecordError: they are none, or it is none that could have been fetched.
    """
    try:
        kept = _Policy.model_validate_json(value)
    except ValidationError as error:
        raise RecordError(_first_mistake(error)) from error
    policy = kept.policy
    lines = [f"mode: {policy.mode}", f"max_age: {policy.max_age}"]
    lines += [f"mx: {pattern}" for pattern in policy.mx]
    try:
        # What a policy host may say and what we may have kept is the same.
        read = read_policy("\n".join(["version: STSv1", *lines]).encode(), policy.id)
        known = read == policy and read_record([f"v=STSv1; id={policy.id}".encode()]) == policy.id
    except (PolicyError, UnicodeEncodeError) as error:
        raise RecordError(str(error)) from error
    if not known or not policy.max_age:
        raise RecordError("a policy that nobody can have published")
    _require_past(kept.fetched_at, now)
    return KeptPolicy(
        MtaStsEvidence(
            policy, fetched_at=kept.fetched_at, expires=kept.fetched_at + policy.max_age
        ),
        policy,
        min(kept.asked_at, now),
    )


def worth_keeping(found: ProbeEvidence) -> bool:
    """Whether a session told what the server can do: it went to its end, for better or worse."""
    refused = found.starttls_reply
    return (
        found.stage is ProbeStage.DONE
        and found.failure is None
        and not found.only_opportunistic
        and (refused is None or refused.code >= 500)
    )


def encode_probe(found: ProbeEvidence) -> bytes:
    """A session as bytes."""
    return _Probe(found=found).model_dump_json().encode()


def decode_probe(value: bytes, address: str, now: float) -> ProbeEvidence:
    """Bytes as the session with *address*, no longer good than it was when it was held.

    Raises:
        RecordError: they are none, or it is none that we would have kept.
    """
    try:
        found = _Probe.model_validate_json(value).found
    except ValidationError as error:
        raise RecordError(_first_mistake(error)) from error
    if found.address != address or not worth_keeping(found):
        raise RecordError("not the session that it should be")
    _require_ours(found, now)
    return replace(found, expires=min(found.expires, found.probed_at + FRESH))


def worth_a_pause(found: ProbeEvidence) -> bool:
    """Whether a session failed in a way that may pass: nobody is to call again at once.

    A 4xx reply to STARTTLS is as temporary as a lost connection, and so may a
    first handshake be that failed where a second one did not. What was
    forbidden or switched off stays so until the configuration changes.
    """
    if found.only_opportunistic:
        return True
    if found.stage is ProbeStage.DONE:
        return found.starttls_reply is not None and found.starttls_reply.code < 500
    if found.stage is ProbeStage.NOT_PROBED:
        return False
    return found.failure is not ProbeFailure.FORBIDDEN


def encode_attempt(found: ProbeEvidence, pause: float) -> bytes:
    """A session that failed as bytes; *pause* as in :class:`KeptAttempt`."""
    return _Attempt(found=found, pause=pause).model_dump_json().encode()


def decode_attempt(value: bytes, address: str, now: float, longest: float) -> KeptAttempt | None:
    """Bytes as a session with *address* that failed, with a pause of *longest* seconds at most.

    None for a record of an earlier version: how that session failed is not known well enough.

    Raises:
        RecordError: they are none, or it is none that we would have kept.
    """
    try:
        kept = _attempts.validate_json(value)
    except ValidationError as error:
        raise RecordError(_first_mistake(error)) from error
    if isinstance(kept, _EarlierAttempt):
        return None
    found, pause = kept.found, kept.pause
    if found.address != address or not worth_a_pause(found):
        raise RecordError("not the session that it should be")
    if not 0 < pause <= longest:
        raise RecordError("a pause that we would not have made")
    _require_ours(found, now)
    return KeptAttempt(
        replace(found, expires=min(found.expires, found.probed_at + 2 * pause)), pause
    )


def _require_ours(found: ProbeEvidence, now: float) -> None:
    """Make sure that a session may be one that was held, and says no more than we keep."""
    texts = [found.ehlo_name, found.error, found.only_opportunistic]
    for reply in (found.reply, found.starttls_reply):
        if reply is not None:
            texts += _reply_texts(reply)
    if any(printable(text) != text for text in texts) or len(found.tls_version) > MAX_TLS_VERSION:
        raise RecordError("text that we would not have kept")
    if len(found.chain) > MAX_CHAIN:
        raise RecordError(f"more than {MAX_CHAIN} certificates")
    _require_past(found.probed_at, now)


def _reply_texts(reply: Reply) -> list[str]:
    if not 200 <= reply.code < 600:
        raise RecordError(f"a reply code of {reply.code}")
    return [reply.enhanced, reply.text]


def _require_past(time: float, now: float) -> None:
    if not 0 <= time <= now + CLOCK_SKEW:
        raise RecordError("written under another clock")


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "record"
    return printable(f"{place}: {first['msg']}")


# ---------------------------------------------------------------- scopes


@dataclass(frozen=True, slots=True)
class Scopes:
    """What is put behind keys, so that only those share a record who would have found the same.

    A policy is as good as the authorities that vouched for it; a session is
    what the server says to the name that we give, and one that the
    configuration forbids is not to be had from others either.
    """

    policy: str = ""
    probe: str = ""

    @classmethod
    def of(cls, config: Config) -> Scopes:
        """The scopes of a configuration; empty for the defaults."""
        probe = config.probe
        networks = ",".join(map(str, probe.allow_networks))
        return cls(
            _scope(probe.ca_file),
            _scope(probe.helo, networks, "" if probe.enabled else "off"),
        )


def _scope(*parts: str) -> str:
    if not any(parts):
        return ""
    return "#" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
