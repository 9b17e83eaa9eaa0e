"""The vocabulary that all parts share: requirements, evidence, forecasts, rules, decisions.

Frozen values only, without I/O and without a clock. Times are seconds since the epoch (float),
durations are seconds. Names of hosts and domains are A-labels in lower case without the trailing
dot, addresses have the form of :mod:`ipaddress`. The values of the enumerations are contracts:
they stand in the tag, the log, JSON, metrics and the configuration.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Requirement(enum.StrEnum):
    """What is asked for a message (RFC 8689 sections 2 and 3)."""

    REQUIRETLS = "requiretls"
    TLS_REQUIRED_NO = "tls-required-no"
    NONE = "none"


class Source(enum.StrEnum):
    """Where a requirement was found; ``source=`` of the tag."""

    ESMTP = "esmtp"
    REQUIRE_TLS_ESMTP = "require-tls-esmtp"
    RULE = "rule"
    TLS_REQUIRED = "tls-required"
    NONE = "none"


class Outcome(enum.StrEnum):
    """What the MTA does with a message."""

    DELIVER = "deliver"
    BOUNCE = "bounce"
    DEFER = "defer"
    UNKNOWN = "unknown"


class Reason(enum.StrEnum):
    """The reason for a forecast: a closed set, shared by JSON, tag, log and metrics."""

    OK = "ok"
    NONCOMPLIANT_UNVERIFIED = "noncompliant_unverified"
    NONCOMPLIANT_MX_INSECURE = "noncompliant_mx_insecure"
    NONCOMPLIANT_NOT_OFFERED = "noncompliant_not_offered"
    NONCOMPLIANT_NOT_CARRIED = "noncompliant_not_carried"
    NONCOMPLIANT_WEAK_TLS = "noncompliant_weak_tls"
    MX_LOOKUP_INSECURE = "mx_lookup_insecure"
    MX_NOT_IN_MTA_STS_POLICY = "mx_not_in_mta_sts_policy"
    STARTTLS_NOT_OFFERED = "starttls_not_offered"
    STARTTLS_REFUSED = "starttls_refused"
    TLS_HANDSHAKE_FAILED = "tls_handshake_failed"
    CERTIFICATE_NOT_VERIFIED = "certificate_not_verified"
    REQUIRETLS_NOT_OFFERED = "requiretls_not_offered"
    TLS_LEVEL_DOES_NOT_VERIFY = "tls_level_does_not_verify"
    MTA_POLICY_INVALID = "mta_policy_invalid"
    POLICY_LOOKUP_FAILED = "policy_lookup_failed"
    NO_TLSA_RECORDS = "no_tlsa_records"
    MX_UNSIGNED = "mx_unsigned"
    DNS_FAILURE = "dns_failure"
    NO_SUCH_DOMAIN = "no_such_domain"
    NULL_MX = "null_mx"
    NEXTHOP_INVALID = "nexthop_invalid"
    MAIL_LOOP = "mail_loop"
    UNREACHABLE = "unreachable"
    SERVER_REJECTS = "server_rejects"
    SMTPUTF8_NOT_OFFERED = "smtputf8_not_offered"
    MESSAGE_TOO_LARGE = "message_too_large"
    LOCAL = "local"
    WITHHELD = "withheld"
    UNKNOWN = "unknown"


UNKNOWN_STATUS = "unknown"
"""Stands in place of an enhanced status code if nothing is known."""

OTHER_DOMAIN = "other"
"""Stands in place of a domain for which no rule is configured."""

SMTP_PORT = 25
"""RFC 5321 section 4.5.4.2."""

LMTP_PORT = 24
"""lmtp_tcp_port of Postfix; RFC 2033 has no port of its own."""

MAX_SIZE = 2**63 - 1
"""Octets of a message: a larger size, declared or offered (RFC 1870), means the same."""


# ---------------------------------------------------------------- next hop


class Feature(enum.StrEnum):
    """What a domain or host may offer, and later no longer offer: a downgrade."""

    STARTTLS = "starttls"
    REQUIRETLS = "requiretls"
    TLSA = "tlsa"
    MTA_STS = "mta_sts"


class HopKind(enum.StrEnum):
    """How the MTA finds the servers of a next hop."""

    MX = "mx"  # example.org: MX lookup, RFC 5321 section 5.1
    SRV = "srv"  # example.org:submission: SRV lookup (use_srv_lookup of Postfix, RFC 2782)
    HOST = "host"  # [mx.example.org]: address lookup only
    ADDRESS = "address"  # [192.0.2.1], [IPv6:2001:db8::1]
    LOCAL = "local"  # the MTA delivers without SMTP


class MailProtocol(enum.StrEnum):
    """What a transport speaks with the server of a next hop."""

    SMTP = "smtp"
    LMTP = "lmtp"  # RFC 2033; Postfix's lmtp(8) looks up no MX records


class ServerTarget(NamedTuple):
    """A server with which a session can be held: its address, and how a client speaks to it.

    ``server_name`` is the name sent in the TLS handshake (SNI, RFC 6066 section 3); "" for none.
    """

    address: str
    port: int
    server_name: str
    protocol: MailProtocol = MailProtocol.SMTP


LMTP_PREFIX = "lmtp:inet:"
"""What the canonical form of a next hop of LMTP begins with; no other next hop can."""

SRV_PREFIX = "srv:"
"""What the canonical form of a next hop begins with whose servers SRV records name."""


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where the MTA sends a message next; forecasts are made by next hop.

    Attributes:
        kind: how its servers are found.
        host: a domain, a host name or an address; "" if the MTA delivers without SMTP.
        port: of all its servers.
        protocol: what they are spoken to in.
        given: what Postfix calls it, in lower case, if that is not the canonical form. Postfix
            looks up TLS policies by it, and compares it with relayhost.
    """

    kind: HopKind
    host: str
    port: int = SMTP_PORT
    protocol: MailProtocol = MailProtocol.SMTP
    given: str = ""

    @property
    def destination(self) -> str:
        """What Postfix looks up in its tables: as given, or in canonical form."""
        if self.given:
            return self.given
        host = self.host if self.kind in (HopKind.MX, HopKind.SRV) else f"[{self.host}]"
        usual = SMTP_PORT if self.protocol is MailProtocol.SMTP else LMTP_PORT
        return host if self.port == usual else f"{host}:{self.port}"

    def __str__(self) -> str:
        """The text that is read back as this next hop, in the syntax of Postfix."""
        if self.kind is HopKind.LOCAL:
            return "local"
        prefix = SRV_PREFIX if self.kind is HopKind.SRV else ""
        if self.protocol is MailProtocol.LMTP:
            prefix += LMTP_PREFIX
        return prefix + self.destination

    @property
    def service(self) -> str:
        """The service that Postfix looks for: the name or number of the port, as given."""
        name = self.destination.rpartition("]")[2].rpartition(":")[2]
        has_port = ":" in self.destination.rpartition("]")[2]
        return name if has_port and name else self.protocol.value

    @property
    def srv_name(self) -> str:
        """The owner of its SRV records, if Postfix looks for any (RFC 2782)."""
        return f"_{self.service}._tcp.{self.host}"


# ---------------------------------------------------------------- evidence


class DnsOutcome(enum.StrEnum):
    """How a lookup ended.

    Only FOUND, NODATA and NXDOMAIN are answers (R22). Everything else (SERVFAIL,
    REFUSED, a timeout, a bogus signature) is ERROR and never "no records"
    (RFC 7672 sections 2.1.1 and 2.1.2).
    """

    FOUND = "found"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class MxRecord:
    """One MX record (RFC 5321 section 5.1), or an SRV record, which has a port (RFC 2782)."""

    preference: int
    host: str
    port: int = 0


@dataclass(frozen=True, slots=True, weakref_slot=True)
class MxEvidence:
    """The MX lookup of a domain.

    FOUND without records is a set in which no host name is usable.

    Attributes:
        outcome: whether there is an answer, and which.
        secure: the AD bit of a resolver that is trusted (RFC 7672 section 2.1.3); a
            negative answer has one as well.
        records: the usable ones, best preference first.
        null_mx: the set is a single MX "." (RFC 7505).
        null_among: "." stood beside other records. It is not among ``records``;
            Postfix takes such a set for a null MX all the same.
        canonical: the name at the end of the CNAME chain, which owns the records.
        error: why there is no answer, or no usable record.
        expires: the end of the shortest TTL on the path, seconds since the epoch.
        partial: there were more records than are kept. The best ones are kept,
            while Postfix keeps those that come first.
        unasked: there was no lookup, since its budget is spent (outcome ERROR). That
            says nothing of the domain.
        unproven: the answer has the AD bit, but nothing has shown yet that the resolver
            validates, so that it is not secure for the time being.
        observed_at: when it was looked up, seconds since the epoch; 0 if it was not.
    """

    outcome: DnsOutcome
    secure: bool = False
    records: tuple[MxRecord, ...] = ()
    null_mx: bool = False
    null_among: bool = False
    canonical: str = ""
    error: str = ""
    expires: float = 0.0
    partial: bool = False
    unasked: bool = False
    unproven: bool = False
    observed_at: float = 0.0


@dataclass(frozen=True, slots=True, weakref_slot=True)
class AddressLookup:
    """The address lookups of one host, A and AAAA merged.

    Attributes:
        outcome: FOUND if one of the two found an address.
        secure: an address RRset at ``canonical`` validated over a secure path; one of A
            and AAAA is enough.
        addresses: in canonical text form.
        canonical: the name at the end of the CNAME chain.
        alias_secure: whether the CNAME at the original name validates (RFC 7672 section
            2.2.2); None if the name is not an alias or the question did not arise.
        alias_error: it could not be found out whether that CNAME validates.
        error: what failed, of either lookup.
        expires: seconds since the epoch.
        partial: there were more addresses than are kept.
        unasked: at least one of the lookups was not made, since its budget is spent.
        unproven, observed_at: as in :class:`MxEvidence`.
    """

    outcome: DnsOutcome
    secure: bool = False
    addresses: tuple[str, ...] = ()
    canonical: str = ""
    alias_secure: bool | None = None
    alias_error: bool = False
    error: str = ""
    expires: float = 0.0
    partial: bool = False
    unasked: bool = False
    unproven: bool = False
    observed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """One TLSA record as it stands in DNS (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes

    def __hash__(self) -> int:
        """Octets keep their hash, so that this costs nothing where results are kept."""
        return hash(self.data)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class TlsaEvidence:
    """The TLSA lookup of one host.

    Attributes:
        queried: DNS was queried. It is not if the address RRset is insecure (RFC 7672
            section 2.2.2): there is no DANE then.
        outcome: whether there is an answer, and which.
        secure: each answer on the path validated.
        base_domain: the TLSA base domain at which the records were found, or looked up
            last (section 2.2.3).
        records: as they stand in DNS, usable or not.
        error: why there is no answer.
        expires: seconds since the epoch.
        partial: there were more records than are kept.
        unasked: a lookup was not made, since its budget is spent (outcome ERROR).
        observed_at: as in :class:`MxEvidence`.
    """

    queried: bool = False
    outcome: DnsOutcome = DnsOutcome.NODATA
    secure: bool = False
    base_domain: str = ""
    records: tuple[TlsaRecord, ...] = ()
    error: str = ""
    expires: float = 0.0
    partial: bool = False
    unasked: bool = False
    observed_at: float = 0.0


class ProbeStage(enum.StrEnum):
    """How far an SMTP session came: the step that failed, or DONE."""

    NOT_PROBED = "not_probed"
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    EHLO_TLS = "ehlo_tls"
    DONE = "done"


class ProbeFailure(enum.StrEnum):
    """What ended a session before DONE."""

    REFUSED = "refused"  # the server, or a host on the way, refused the connection
    UNREACHABLE = "unreachable"  # our own kernel has no way there: no route, or a local filter
    TIMEOUT = "timeout"
    CLOSED = "closed"
    REPLY = "reply"  # a 4xx or 5xx reply: see ``reply``
    PROTOCOL = "protocol"  # octets that are not SMTP or TLS, or a line without end
    LIMIT = "limit"  # more than is read: what an MTA makes of it is not known
    FORBIDDEN = "forbidden"  # an address that may not be contacted: probe.allow_networks


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply: code, enhanced status code if it has one, first 200 characters of text."""

    code: int
    enhanced: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ProbeEvidence:
    """An SMTP session with one address, up to the EHLO inside TLS.

    Attributes:
        address: the one that was contacted.
        stage: how far the session came. DONE without ``starttls_offered`` is a server
            without STARTTLS.
        failure: what ended the session before DONE; None if nothing did.
        reply: the 4xx or 5xx reply that ended it.
        starttls_offered: None if there was no EHLO reply.
        starttls_reply: the 4xx or 5xx reply of a server that offers STARTTLS and then
            refuses it; None if it does not.
        tls_version: as OpenSSL names it; empty without TLS.
        chain: the presented certificates as DER, leaf first.
        requiretls: whether the EHLO reply inside TLS has the keyword, the only reply
            that counts (RFC 8689 section 2, R3); None without such a reply.
        ehlo_name: the name that the server gives itself.
        error: why the session ended early, or why there was none.
        probed_at: seconds since the epoch.
        expires: how long this is good evidence, seconds since the epoch.
        chain_cut: the server presented more certificates than are kept.
        only_opportunistic: if not empty, TLS came about in a second session alone, begun
            as by an MTA that verifies no server; this is why the first one failed.
        cipher: the cipher suite, as OpenSSL names it; empty without TLS.
        smtputf8_in_clear: whether the EHLO reply before TLS offers SMTPUTF8 (RFC 6531); None
            without such a reply.
        smtputf8: the same of the EHLO reply inside TLS.
        size_limit: octets of the largest message (RFC 1870), by the last EHLO reply that names a
            number; 0 for no limit.
        small_group: if not empty, the key exchange was in a finite field, and a second session
            that takes no group of less than 2048 bits failed; this is why.
        group: of the key exchange, as OpenSSL names it; empty if it does not tell.
        dialogue: what both sides said, a line each: "C: " or "S: " before it. For people alone.
    """

    address: str
    stage: ProbeStage = ProbeStage.NOT_PROBED
    failure: ProbeFailure | None = None
    reply: Reply | None = None
    starttls_offered: bool | None = None
    starttls_reply: Reply | None = None
    tls_version: str = ""
    chain: tuple[bytes, ...] = ()
    requiretls: bool | None = None
    ehlo_name: str = ""
    error: str = ""
    probed_at: float = 0.0
    expires: float = 0.0
    chain_cut: bool = False
    only_opportunistic: str = ""
    cipher: str = ""
    small_group: str = ""
    smtputf8_in_clear: bool | None = None
    smtputf8: bool | None = None
    size_limit: int = 0
    group: str = ""
    dialogue: str = ""


@dataclass(frozen=True, slots=True)
class HostEvidence:
    """What is known about one MX host, or about the host that is the next hop itself."""

    host: str
    preference: int
    addresses: AddressLookup
    tlsa: TlsaEvidence = TlsaEvidence()
    probes: tuple[ProbeEvidence, ...] = ()
    port: int = 0  # that of its SRV record; 0: the next hop's

    @property
    def unasked(self) -> str:
        """Why its addresses or TLSA records were not looked up (in time); "" if they were."""
        if self.addresses.unasked:
            return self.addresses.error
        return self.tlsa.error if self.tlsa.unasked else ""

    @property
    def partial(self) -> bool:
        """Whether there are more addresses or signed TLSA records than are kept."""
        return self.addresses.partial or (self.tlsa.partial and self.tlsa.secure)


class MtaStsMode(enum.StrEnum):
    """RFC 8461 section 3.2."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class MtaStsPolicy:
    """A policy as fetched (RFC 8461 section 3.2); ``max_age`` in seconds."""

    mode: MtaStsMode
    mx: tuple[str, ...]
    max_age: int
    id: str


@dataclass(frozen=True, slots=True, weakref_slot=True)
class MtaStsEvidence:
    """MTA-STS of one policy domain.

    Without ``policy`` and ``error`` the domain has no policy.

    Attributes:
        policy: the one in force.
        error: why the policy could not be fetched. Beside a policy: the refresh failed, and
            the kept policy still applies (RFC 8461 section 3.3).
        fetched_at: seconds since the epoch.
        expires: when to look again whether it is the same, at the latest the end of the policy;
            without one, when to look again.
        vanished: the refresh did not fail, but the domain has no policy any more and never
            withdrew it (section 8.3).
        unasked: it was not looked up, or not fetched, since a budget is spent; or not in time.
        observed_at: when the domain was last seen to have a policy or none, seconds since the
            epoch; 0 for a policy from the store.
    """

    policy: MtaStsPolicy | None = None
    error: str = ""
    fetched_at: float = 0.0
    expires: float = 0.0
    vanished: bool = False
    unasked: bool = False
    observed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class DomainEvidence:
    """All that is known about one next hop.

    Attributes:
        nexthop: what was looked up.
        mx: its MX records.
        mta_sts: the policy of its domain.
        hosts: in order of preference.
        gathered_at: seconds since the epoch.
        downgraded_at: when something that it had offered until then was first missing;
            0 if nothing is missing.
    """

    nexthop: NextHop
    mx: MxEvidence
    mta_sts: MtaStsEvidence = MtaStsEvidence()
    hosts: tuple[HostEvidence, ...] = ()
    gathered_at: float = 0.0
    downgraded_at: float = 0.0


@dataclass(frozen=True, slots=True)
class PublishedEvidence:
    """What a domain publishes for those that send to it, beside its servers; as found just now.

    Attributes:
        mta_sts: the policy as the policy host gives it out now, whatever was kept of it.
        policy_certificate: what the policy host presents, DER, verified or not; b"" if nothing.
        tlsrpt: whether there is a TLSRPT record (RFC 8460 section 3); None if that is not known.
        unsigned_tlsa: hosts that have TLSA records of which no sender can make use.
    """

    mta_sts: MtaStsEvidence = MtaStsEvidence(unasked=True)
    policy_certificate: bytes = b""
    tlsrpt: bool | None = None
    unsigned_tlsa: tuple[str, ...] = ()


class InboundProblem(enum.StrEnum):
    """What is wrong with a domain and its servers as those see them that send mail to it."""

    LOOKUP_FAILED = "lookup_failed"
    NO_SERVER = "no_server"
    MX_UNSIGNED = "mx_unsigned"
    TLSA_UNSIGNED = "tlsa_unsigned"
    TLSA_MISSING = "tlsa_missing"
    TLSA_UNUSABLE = "tlsa_unusable"
    TLSA_DOES_NOT_MATCH = "tlsa_does_not_match"
    ROLLOVER_UNPREPARED = "rollover_unprepared"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_REJECTS = "server_rejects"
    STARTTLS_NOT_OFFERED = "starttls_not_offered"
    STARTTLS_REFUSED = "starttls_refused"
    TLS_HANDSHAKE_FAILED = "tls_handshake_failed"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_EXPIRES = "certificate_expires"
    CERTIFICATE_NOT_VERIFIED = "certificate_not_verified"
    REQUIRETLS_NOT_OFFERED = "requiretls_not_offered"
    POLICY_MISSING = "policy_missing"
    POLICY_HOST_FAILS = "policy_host_fails"
    POLICY_CERTIFICATE_EXPIRED = "policy_certificate_expired"
    POLICY_CERTIFICATE_EXPIRES = "policy_certificate_expires"
    POLICY_NOT_ENFORCED = "policy_not_enforced"
    POLICY_MAX_AGE_SHORT = "policy_max_age_short"
    MX_NOT_IN_POLICY = "mx_not_in_policy"
    TLSRPT_MISSING = "tlsrpt_missing"


# ---------------------------------------------------------------- MTA profile


class ProfileName(enum.StrEnum):
    """Whose behaviour is forecast."""

    POSTFIX = "postfix"
    RFC8689 = "rfc8689"


class TlsLevel(enum.StrEnum):
    """The TLS security levels of Postfix (smtp_tls_security_level)."""

    NONE = "none"
    MAY = "may"
    ENCRYPT = "encrypt"
    HALF_DANE = "halfdane"  # cannot be configured: Postfix uses it for unsigned MX, signed TLSA
    DANE = "dane"
    DANE_ONLY = "dane-only"
    VERIFY = "verify"
    SECURE = "secure"


class RequiretlsPolicy(enum.StrEnum):
    """The actions of smtp_requiretls_policy."""

    ENFORCE = "enforce"
    OPPORTUNISTIC_STARTTLS = "opportunistic+starttls"
    OPPORTUNISTIC = "opportunistic"
    DISABLE = "disable"
    INVALID = "invalid"  # a word that Postfix does not know: it defers with 4.7.10


class AddressPreference(enum.StrEnum):
    """smtp_address_preference: the address family that comes first among equal servers."""

    ANY = "any"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class MtaSts(enum.StrEnum):
    """How the MTA applies MTA-STS."""

    OFF = "off"
    MATCH = "match"  # smtp_tls_policy_maps answers: secure match=PATTERNS
    MX_PATTERNS = "mx-patterns"  # with smtp_tls_enforce_sts_mx_patterns


class MtaStsService(enum.StrEnum):
    """The policy service behind smtp_tls_policy_maps: for which next hops it has a policy."""

    RESOLVER = "postfix-mta-sts-resolver"  # strips brackets and port (RFC 8461 section 3.4)
    TLSPOL = "postfix-tlspol"

    @property
    def bare_names_only(self) -> bool:
        """Whether a next hop in brackets, or with a port, has no policy."""
        return self is MtaStsService.TLSPOL


@dataclass(frozen=True, slots=True)
class Reading:
    """How RFC 8689 is read in points on which implementations differ (docs/forecast.md).

    Attributes:
        testing_policies_count: an MTA-STS policy in mode ``testing`` confirms an MX name.
        pkix_beside_unusable_tlsa: a chain to a trusted authority is enough if no TLSA record is
            usable.
        tlsa_vouches_for_unsigned_mx: a matching TLSA record makes up for MX records that are not
            signed.
        every_mx: every server must satisfy the requirement, not only one.
        weak_tls_counts: TLS satisfies that RFC 9325 forbids: keys of less than 112 bits of
            security, or no forward secrecy.
    """

    testing_policies_count: bool = False
    pkix_beside_unusable_tlsa: bool = False
    tlsa_vouches_for_unsigned_mx: bool = False
    every_mx: bool = False
    weak_tls_counts: bool = False


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """An entry of smtp_tls_policy_maps.

    Attributes:
        level: the TLS security level.
        match: the names that a certificate must have, in the notation of Postfix (``nexthop``,
            ``dot-nexthop``, ``hostname``, ``example.org``, ``.example.org``); empty: those of the
            level.
    """

    level: TlsLevel
    match: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The value of the entry, in the notation of Postfix."""
        return f"{self.level} match={':'.join(self.match)}" if self.match else str(self.level)


@dataclass(frozen=True, slots=True)
class MtaProfile:
    """How the MTA delivers over one transport; see ``[mta]`` of docs/configuration.md.

    ``requiretls_policy`` and ``tls_policy`` are tables as pairs (pattern, value). They are searched
    as Postfix searches a table: the name itself, then each ``.parent``, then, in the first of them,
    ``*``.
    """

    name: ProfileName = ProfileName.POSTFIX
    tls_security_level: TlsLevel = TlsLevel.MAY
    requiretls_policy: tuple[tuple[str, RequiretlsPolicy], ...] | None = None
    tls_policy: tuple[tuple[str, TlsPolicy], ...] = ()
    mta_sts: MtaSts = MtaSts.OFF
    mta_sts_service: MtaStsService = MtaStsService.RESOLVER
    insecure_mx_policy: TlsLevel = TlsLevel.DANE
    mydomain: str = ""
    myhostname: str = ""
    mx_address_limit: int = 5
    inet_protocols: tuple[str, ...] = ("ipv4", "ipv6")
    address_preference: AddressPreference = AddressPreference.ANY
    my_addresses: tuple[str, ...] = ()
    relayhost: str = ""
    use_srv_lookup: tuple[str, ...] = ()
    reading: Reading = Reading()


# ---------------------------------------------------------------- forecast


@dataclass(frozen=True, slots=True)
class Verdict:
    """One profile's short answer."""

    status: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the MTA's own delivery would end with.

    ``status`` is an enhanced status code (RFC 3463), ``2.0.0`` for success, or
    ``unknown``. ``compliant`` says whether the delivery would satisfy RFC 8689
    section 4.2.1 for what was asked; None if nothing is asked or no
    delivery is made. ``text`` is one line for people, ``mx`` the server that
    decided, ``tls`` Postfix's log token. ``rfc8689`` is the same evidence
    judged by that profile. ``valid_until`` bounds how long it may be reused.
    ``downgraded_at`` is when something that the next hop offered until then
    (STARTTLS, REQUIRETLS, TLSA, MTA-STS) was first missed, and 0.0 if the
    forecast does not rest on such a loss. ``largest`` is the size in octets of
    the largest message for which the forecast holds as well (RFC 1870): None for
    any size, 0 for the size alone that was asked about. ``proven_until`` is the end of the first
    proof on which it rests, a certificate or an MTA-STS policy: however long a forecast may be
    given out past its life, it ends there; 0.0 if it rests on none. ``stale`` is for how many
    seconds its life was over when it was given out; 0.0 if it was not.
    """

    status: str
    outcome: Outcome
    reason: Reason
    text: str = ""
    compliant: bool | None = None
    mx: str = ""
    tls: str | None = None
    rfc8689: Verdict | None = None
    valid_until: float = 0.0
    downgraded_at: float = 0.0
    largest: int | None = None
    proven_until: float = 0.0
    stale: float = 0.0


def unknown_forecast(text: str) -> Forecast:
    """The forecast of a question that could not be answered: never "secure"."""
    return Forecast(UNKNOWN_STATUS, Outcome.UNKNOWN, Reason.UNKNOWN, text)


def unusable_forecast(text: str) -> Forecast:
    """The forecast for a next hop that smtp(8) of Postfix cannot use.

    It ends with a fatal error, and the mail stays in the queue until the setting is corrected.
    """
    return Forecast(
        "4.3.0", Outcome.DEFER, Reason.NEXTHOP_INVALID, f"Postfix cannot use it: {text}"
    )


LOCAL_FORECAST = Forecast(
    "2.0.0",
    Outcome.DELIVER,
    Reason.LOCAL,
    "delivered on this host: no SMTP hop to assess",
)
"""The forecast of a recipient that the MTA delivers itself."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a message needs of a server, whatever is asked of TLS.

    Attributes:
        smtputf8: an address or the header has characters beyond ASCII, and its sender asked for
            SMTPUTF8 (RFC 6531).
        size: its octets, by the parameter SIZE of MAIL, rounded; 0 if nothing is known.
    """

    smtputf8: bool = False
    size: int = 0


NOTHING_NEEDED = Needs()


@dataclass(frozen=True, slots=True)
class Question:
    """What a worker asks the engine; the key under which it keeps the answer.

    Attributes:
        nexthop: canonical, in the syntax of Postfix.
        transport: by which the message goes in the end; it chooses the profile of the MTA.
        asked: what the sender or a rule asks.
        carried: what the MTA itself will act on; it differs from ``asked`` if the MTA does not
            know REQUIRETLS.
        needs: what the message needs beside that.
    """

    nexthop: str
    transport: str
    asked: Requirement
    carried: Requirement
    needs: Needs = NOTHING_NEEDED


# ---------------------------------------------------------------- decision


class Mode(enum.StrEnum):
    """What a rule does with a forecast: the key ``mode`` of ``[rules]``."""

    OFF = "off"
    MONITOR = "monitor"
    DEFER = "defer"
    REJECT = "reject"

    @property
    def acts(self) -> bool:
        """Whether the rule may defer or refuse mail at all."""
        return self in (Mode.DEFER, Mode.REJECT)


class EnforceFor(enum.StrEnum):
    """Whose mail a rule may defer or refuse."""

    AUTHENTICATED = "authenticated"
    TRUSTED = "trusted"
    ALL = "all"


class OnTemporary(enum.StrEnum):
    """What mode reject does with a temporary failure of TLS, 4.7.x."""

    ACCEPT = "accept"
    DEFER = "defer"


class OnUnreachable(enum.StrEnum):
    """What modes defer and reject do if no server can be reached, or takes mail for now."""

    ACCEPT = "accept"  # the MTA queues the mail
    DEFER = "defer"  # the client tries again


class OnUnknown(enum.StrEnum):
    """What modes defer and reject do without a forecast."""

    AUTO = "auto"  # accept if the MTA itself keeps the requirement, else defer
    ACCEPT = "accept"
    DEFER = "defer"


class OnNoncompliant(enum.StrEnum):
    """What modes defer and reject do with a delivery that RFC 8689 would not make."""

    AUTO = "auto"  # accept if the MTA itself keeps the requirement, else refuse
    ACCEPT = "accept"
    REFUSE = "refuse"


class OnMixed(enum.StrEnum):
    """What becomes of a message if its recipients would take different routes."""

    ACCEPT = "accept"  # as it is: its route is mixed
    SPLIT = "split"  # the client brings each route's recipients in a transaction of their own


class Match(enum.StrEnum):
    """By what a list of domains is looked up: the key ``match`` of ``[rules.list.NAME]``."""

    RECIPIENT = "recipient"
    NEXTHOP = "nexthop"
    SENDER = "sender"


class Aliases(enum.StrEnum):
    """Whether a recipient is expanded as the MTA will do it: the key ``aliases`` of ``[mta]``."""

    OFF = "off"
    STATIC = "static"  # by tables whose text can be read
    ASK = "ask"  # by all tables: what is no text is asked with postmap -q


class Capability(enum.StrEnum):
    """What an MTA acts on by itself: the key ``carries`` of ``[mta]``.

    AUTO stands in the configuration only: the version that the MTA tells decides, and makes one of
    the other three of it.
    """

    AUTO = "auto"
    REQUIRETLS = "requiretls"
    TLS_REQUIRED = "tls-required"
    NOTHING = "nothing"


class Standing(enum.StrEnum):
    """What a client is to us; ``client=`` of the log."""

    AUTHENTICATED = "authenticated"  # by SASL
    TRUSTED = "trusted"  # by its address: milter.trusted_networks
    OTHER = "other"


class Action(enum.StrEnum):
    """What is done with a recipient or a message; a label of the metrics."""

    ACCEPT = "accept"
    DEFER = "defer"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class SmtpReply:
    """A reply to the client; ``code`` and ``enhanced`` are of the same class."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        """The line that the client gets."""
        return f"{self.code} {self.enhanced} {self.text}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done with a recipient, and why; there is a ``reply`` unless it is accepted."""

    action: Action
    why: str
    reply: SmtpReply | None = None
