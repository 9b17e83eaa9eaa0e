"""Records of the engine: evidence as bytes for the store, and back.

A store's digests show damage, but not the writer. Other programs may write to a Redis, so nothing
that comes back is believed unseen: bytes that do not fit the model, that are out of bounds, or
that claim to be good for longer than they could be are no record (:class:`RecordError`), and the
engine finds out afresh.

Records are kept of what costs others something to find out: sessions with servers (failed ones
apart, only so that a restart does not call such a server again at once), and MTA-STS policies,
which must outlive what an attacker can take away (RFC 8461 section 3.3). DNS answers are not
kept: a resolver gives them in no time, and each process has to see for itself whether they are
secure.

Each kind of record has a version of its own (``v``): a change to one kind does not cost the
others. A record of an earlier version is read if it still means what it meant then; otherwise it
is dropped without complaint, as if there were none.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from requiretls_milter.config import Config
from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.evidence.mta_sts import PolicyError, read_policy, read_record
from requiretls_milter.evidence.probe import FRESH, MAX_CHAIN, MAX_DIALOGUE, MAX_GROUP
from requiretls_milter.forecast.inboundserver import Problem
from requiretls_milter.model import (
    MAX_SIZE,
    Forecast,
    MtaStsEvidence,
    MtaStsPolicy,
    Outcome,
    ProbeEvidence,
    ProbeFailure,
    ProbeStage,
    Reason,
    Reply,
)
from requiretls_milter.store.base import CLOCK_SKEW
from requiretls_milter.syntax.status import is_enhanced, outcome_of
from requiretls_milter.syntax.strict import StrictModel, decoded
from requiretls_milter.syntax.text import printable

MAX_TLS_VERSION = 20
"""Characters of the name of a TLS version."""

MAX_CIPHER = 64
"""Characters of the name of a cipher suite."""


MAX_STATUS = 9
"""Characters of an enhanced status code."""

MAX_PROBLEMS = 200
"""Problems of a watched domain that are kept."""

MAX_TIME = 253_402_300_800.0
"""The end of the year 9999, which a certificate can name at most (RFC 5280 section 4.1.2.5)."""


class RecordError(RequiretlsMilterError, ValueError):
    """Bytes that are no record of ours, or one that cannot be true; the text says why.

    The caller concludes that there is no record.
    """


class _Policy(StrictModel):
    v: Literal[1] = 1
    policy: MtaStsPolicy
    fetched_at: float
    asked_at: float


class _Probe(StrictModel):
    v: Literal[2] = 2
    found: ProbeEvidence


class _EarlierProbe(StrictModel):
    """Version 1 did not note the cipher suite, without which TLS 1.2 may be strong or weak."""

    v: Literal[1]
    found: ProbeEvidence


_AnyProbe = _Probe | _EarlierProbe
_probes: TypeAdapter[_AnyProbe] = TypeAdapter(Annotated[_AnyProbe, Field(discriminator="v")])


class _Attempt(StrictModel):
    v: Literal[2] = 2
    found: ProbeEvidence
    pause: float


class _EarlierAttempt(StrictModel):
    """Version 1 did not tell a network that cannot be reached from a server that refuses."""

    v: Literal[1]
    found: ProbeEvidence
    pause: float


_AnyAttempt = _Attempt | _EarlierAttempt
_attempts: TypeAdapter[_AnyAttempt] = TypeAdapter(Annotated[_AnyAttempt, Field(discriminator="v")])


@dataclass(frozen=True, slots=True)
class KeptAttempt:
    """A session that failed; until ``found.expires`` no other may be tried.

    ``pause`` is that time in seconds, before jitter; the next pause is twice as long.
    """

    found: ProbeEvidence
    pause: float


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """A policy as it was fetched, and when mail wanted it last."""

    evidence: MtaStsEvidence
    policy: MtaStsPolicy
    asked_at: float


def encode_policy(policy: MtaStsPolicy, fetched_at: float, asked_at: float) -> bytes:
    """Encode a policy."""
    record = _Policy(policy=policy, fetched_at=fetched_at, asked_at=asked_at)
    return record.model_dump_json().encode()


def decode_policy(value: bytes, now: float) -> KeptPolicy:
    """Decode a policy.

    Raises:
        RecordError: the bytes are no policy, or one that could not have been fetched.
    """
    kept = decoded(_Policy.model_validate_json, value, RecordError, "record")
    policy = kept.policy
    lines = [f"mode: {policy.mode}", f"max_age: {policy.max_age}"]
    lines += [f"mx: {pattern}" for pattern in policy.mx]
    try:
        # A policy that was kept must be one that a policy host could publish.
        read = read_policy("\n".join(["version: STSv1", *lines]).encode(), policy.id)
        known = read == policy and read_record([f"v=STSv1; id={policy.id}".encode()]) == policy.id
    except (PolicyError, UnicodeEncodeError) as error:
        raise RecordError(str(error)) from error
    if not known or not policy.max_age:
        raise RecordError("a policy that cannot have been published")
    _require_past(kept.fetched_at, now)
    return KeptPolicy(
        MtaStsEvidence(
            policy, fetched_at=kept.fetched_at, expires=kept.fetched_at + policy.max_age
        ),
        policy,
        min(kept.asked_at, now),
    )


def worth_keeping(found: ProbeEvidence) -> bool:
    """Whether a session showed what the server can do: it went to its end, for better or worse."""
    refused = found.starttls_reply
    return (
        found.stage is ProbeStage.DONE
        and found.failure is None
        and not found.only_opportunistic
        and (refused is None or refused.code >= 500)
    )


def encode_probe(found: ProbeEvidence) -> bytes:
    """Encode a session."""
    return _Probe(found=found).model_dump_json().encode()


def decode_probe(value: bytes, address: str, now: float) -> ProbeEvidence | None:
    """Decode a session with *address*; it is good for as long as when it was held (R61).

    None for a record of an earlier version, if it does not say enough of the session.

    Raises:
        RecordError: the bytes are no session, or one that would not have been kept.
    """
    kept = decoded(_probes.validate_json, value, RecordError, "record")
    found = kept.found
    if found.address != address or not worth_keeping(found):
        raise RecordError("not the session that it should be")
    _require_ours(found, now)
    if isinstance(kept, _EarlierProbe) and found.tls_version not in ("", "TLSv1.3"):
        return None
    return replace(found, expires=min(found.expires, found.probed_at + FRESH))


def worth_a_pause(found: ProbeEvidence) -> bool:
    """Whether a session failed in a way that may pass, so that the next one has to wait (R61).

    A 4xx reply to STARTTLS is as temporary as a lost connection. So may be a first handshake
    that failed if a second one did not. What was forbidden or switched off stays so until the
    configuration changes.
    """
    if found.only_opportunistic:
        return True
    if found.stage is ProbeStage.DONE:
        return found.starttls_reply is not None and found.starttls_reply.code < 500
    if found.stage is ProbeStage.NOT_PROBED:
        return False
    return found.failure is not ProbeFailure.FORBIDDEN


def encode_attempt(found: ProbeEvidence, pause: float) -> bytes:
    """Encode a session that failed; *pause* as in :class:`KeptAttempt`."""
    return _Attempt(found=found, pause=pause).model_dump_json().encode()


def decode_attempt(value: bytes, address: str, now: float, longest: float) -> KeptAttempt | None:
    """Decode a session with *address* that failed, with a pause of *longest* seconds at most.

    None for a record of an earlier version: how that session failed is not known well enough.

    Raises:
        RecordError: the bytes are no such session, or one that would not have been kept.
    """
    kept = decoded(_attempts.validate_json, value, RecordError, "record")
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
    """Make sure that a session may be one that was held, with no more text than is kept."""
    texts = [found.ehlo_name, found.error, found.only_opportunistic, found.small_group]
    texts.append(found.cipher)
    for reply in (found.reply, found.starttls_reply):
        if reply is not None:
            texts += _reply_texts(reply)
    texts.append(found.group)
    texts += found.dialogue.split("\n")
    too_long = (
        len(found.tls_version) > MAX_TLS_VERSION
        or len(found.cipher) > MAX_CIPHER
        or len(found.group) > MAX_GROUP
        or len(found.dialogue) > MAX_DIALOGUE
    )
    if too_long or any(printable(text) != text for text in texts):
        raise RecordError("text that we would not have kept")
    if not 0 <= found.size_limit <= MAX_SIZE:
        raise RecordError("a limit of size that no server has")
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


# ---------------------------------------------------------------- watched domains


class _Watched(StrictModel):
    v: Literal[1] = 1
    problems: Annotated[tuple[Problem, ...], Field(max_length=MAX_PROBLEMS)]


def encode_watched(problems: Iterable[Problem]) -> bytes:
    """Encode what is wrong with a watched domain, the first :data:`MAX_PROBLEMS` of it."""
    kept = tuple(itertools.islice(problems, MAX_PROBLEMS))
    return _Watched(problems=kept).model_dump_json().encode()


def decode_watched(value: bytes) -> tuple[Problem, ...]:
    """Decode what was wrong with a watched domain.

    Raises:
        RecordError: the bytes are no such record.
    """
    kept = decoded(_Watched.model_validate_json, value, RecordError, "record")
    for one in kept.problems:
        if any(printable(text) != text for text in (one.host, one.text)):
            raise RecordError("text that we would not have kept")
        if one.at is not None and not 0 <= one.at < MAX_TIME:
            raise RecordError("a time that cannot be")
    return kept.problems


# ---------------------------------------------------------------- configured domains


class _Settled(StrictModel):
    v: Literal[1] = 1
    outcome: Outcome
    status: Annotated[str, Field(max_length=MAX_STATUS)]
    reason: Reason
    since: Annotated[float, Field(ge=0, lt=MAX_TIME, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Settled:
    """What was known last of a configured domain, and since when; seconds since the epoch."""

    outcome: Outcome
    status: str
    reason: Reason
    since: float

    def is_same(self, forecast: Forecast) -> bool:
        """Whether a forecast says the same."""
        said = (forecast.outcome, forecast.status, forecast.reason)
        return said == (self.outcome, self.status, self.reason)


def encode_settled(settled: Settled) -> bytes:
    """Encode what was known last of a configured domain."""
    return _Settled(**asdict(settled)).model_dump_json().encode()


def decode_settled(value: bytes) -> Settled:
    """Decode what was known last of a configured domain.

    Raises:
        RecordError: the bytes are no such record.
    """
    kept = decoded(_Settled.model_validate_json, value, RecordError, "record")
    if not is_enhanced(kept.status) or kept.outcome is not outcome_of(kept.status):
        raise RecordError("a status that we would not have kept")
    return Settled(kept.outcome, kept.status, kept.reason, kept.since)


# ---------------------------------------------------------------- scopes


@dataclass(frozen=True, slots=True)
class Scopes:
    """Suffixes of keys: only configurations that would find the same thing share a record.

    A policy is as good as the authorities that vouched for it: those that stood in the file, or in
    the system's store, and not what the file is called. A session depends on the name that we
    give in EHLO, and one that the configuration forbids must not come from another engine
    either.
    """

    policy: str = ""
    probe: str = ""

    @classmethod
    def of(cls, config: Config, authorities: str) -> Scopes:
        """Return the scopes of a configuration and of its authorities (:attr:`TrustStore.digest`).

        That of a session is empty for the defaults.
        """
        probe = config.probe
        networks = ",".join(map(str, probe.allow_networks))
        return cls(
            _scope(authorities),
            _scope(probe.helo, networks, "" if probe.enabled else "off"),
        )


def _scope(*parts: str) -> str:
    if not any(parts):
        return ""
    return "#" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
