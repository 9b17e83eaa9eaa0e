"""``[limits]``: the bounds of all that strangers can make grow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from requiretls_milter.config.fields import Count, Seconds, Wait
from requiretls_milter.config.schema.section import RESTART, Section


class Limits(Section):
    """How much is done at once, and for how long. No stranger can make anything grow beyond it.

    Each time a limit is reached it counts in limit_reached_total, under the name of its key. If
    one is reached all day, find out what causes that before you raise it.
    """

    callbacks: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        200,
        description=(
            "Callbacks of one worker that wait for a forecast at the same time. Beyond this limit "
            "a callback does not wait, and its forecast is unknown. Each one holds a thread: those "
            "of eight workers fit into the 2048 that the systemd unit allows (TasksMax). Postfix "
            "has 100 smtpd processes by default."
        ),
    )
    message_wait: Seconds = Field(
        30,
        description=(
            "Seconds that one message may wait for forecasts in all, at RCPT TO and at its end. "
            "Beyond this limit no recipient of it waits, and what is not known yet is unknown. "
            "rules.decide_wait bounds the wait of each recipient: two hundred with slow domains "
            "would hold an SMTP session for half an hour. RFC 5321 section 4.5.3.2 has a client "
            "wait five minutes for a reply; many wait less for all of them."
        ),
    )
    mta_silence: Annotated[Count, Field(ge=1, le=86_400)] = Field(
        3_660,
        description=(
            "Seconds that the MTA may leave a connection silent, or an event half sent, which "
            "holds a thread. Beyond this limit libmilter closes the connection; a silent one it "
            "closes up to ten minutes later. While a client sends a message the MTA says nothing: "
            "in an hour 10 MB come in over a line of 3 kB/s. Sendmail also waits an hour for each "
            "command (Timeout.command), Postfix five minutes (smtpd_timeout). libmilter's own "
            "limit is two hours."
        ),
        json_schema_extra=RESTART,
    )
    questions: Annotated[Count, Field(ge=16, le=100_000)] = Field(
        4_096,
        description=(
            "Questions of one worker that the engine has not answered yet. Beyond this limit the "
            "forecast is unknown. The engine accepts twice as many from one connection."
        ),
        json_schema_extra=RESTART,
    )
    tags: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        100,
        description=(
            "Copies of the tag's field (milter.header_name) in the header of one message. All are "
            "removed, and the MTA reads the header from its top for each of them. Beyond this "
            "limit the message is refused (550 5.7.1), whatever its rule says. Each milter on the "
            "path removes the tags of the others, so that honest mail has one or two."
        ),
    )
    expansions: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        10_000,
        description=(
            "Addresses into which the recipients of one message are expanded (mta.aliases). "
            "Beyond this limit the next recipient is not expanded. Each takes half a kibibyte."
        ),
    )
    alias_entries: Annotated[Count, Field(ge=1, le=10_000_000)] = Field(
        200_000,
        description=(
            "Entries of all tables of mta.aliases together. Each worker keeps them in memory: "
            "28 MiB for 100,000 of usual length, and twice that while they are read anew, which "
            "takes half a second. Beyond this limit a table counts as one that cannot be read. "
            'With mta.aliases = "ask" the engine alone keeps them.'
        ),
    )
    alias_processes: Annotated[Count, Field(ge=1, le=100)] = Field(
        4,
        description=(
            'Runs of postmap at the same time (mta.aliases = "ask"), of which one table has half. '
            "Beyond this limit keys wait for their turn. A run looks up as many keys as wait, so "
            "that four at a time answer some thousand keys a second."
        ),
    )
    alias_timeout: Annotated[Count, Field(ge=1, le=600)] = Field(
        5,
        description=(
            "Seconds for one run of postmap. Beyond this limit it is killed, its table is not "
            "asked for five seconds, and recipients that could be in it are not expanded."
        ),
    )
    alias_keys: Annotated[Count, Field(ge=100, le=1_000_000)] = Field(
        10_000,
        description=(
            "Keys that wait for postmap. An address has up to five keys in each table. Beyond this "
            "limit a recipient is not expanded."
        ),
    )
    alias_answers: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        20_000,
        description=(
            "Answers of postmap that the engine keeps, with their keys 1 KiB each on average at "
            "most. Beyond this limit the least used one is dropped."
        ),
    )
    forecast_cache: Annotated[Count, Field(ge=100, le=1_000_000)] = Field(
        10_000,
        description=(
            "Forecasts that one worker keeps; with their questions they take 1.5 KiB each on "
            "average at most. Beyond this limit the least used one is dropped."
        ),
    )
    gatherings: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        500,
        description=(
            "Next hops for which the engine gathers evidence at the same time, each with up to 16 "
            "sessions. Beyond this limit the one that has taken longest makes room: what is known "
            "of it is judged. If none has taken 5 s the forecast of the new one is unknown."
        ),
    )
    flights: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        4_000,
        description=(
            "Lookups, fetches and sessions that run or wait for their turn: eight for each "
            "gathering, which asks no more at once. Beyond this limit the forecast is unknown."
        ),
    )
    probes: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        40,
        description=(
            "SMTP sessions at the same time, with all servers together. Beyond this limit a "
            "session waits for its turn: a burst of handshakes must not starve the engine. With "
            "sessions of 0.3 s, 40 at a time reach more than a hundred new servers each second "
            "(docs/benchmarks.md)."
        ),
    )
    probes_per_host: Annotated[Count, Field(ge=1, le=100)] = Field(
        1,
        description=(
            "SMTP sessions at the same time with one address. Beyond this limit a session waits "
            "for its turn. One by default: servers limit the connections of a client, and the MTA "
            "needs them for mail."
        ),
    )
    probes_per_minute: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        12_000,
        description=(
            "SMTP sessions that begin within any minute. Beyond this limit a session waits for its "
            "turn. The default is more than 40 sessions at a time reach over the internet, so that "
            "it matters only if servers answer at once or if probes was raised. Lower it if a "
            "firewall or provider counts connections to port 25."
        ),
    )
    address_per_minute: Annotated[Count, Field(ge=2, le=1_000_000)] = Field(
        120,
        description=(
            "Connections with one address within any minute: SMTP sessions, and fetches of MTA-STS "
            "policies. Strangers' names may all lead to an address of somebody else, and must not "
            "make us flood it. Half of them may begin at once, the other half spread over the "
            "minute; the names of one zone (example.org) get half of each. Beyond this limit no "
            "connection is made, and the forecast is unknown. A server is called once an hour for "
            "each of its names, so that the default matters only with hundreds of names at one "
            "address."
        ),
    )
    address_per_hour: Annotated[Count, Field(ge=2, le=10_000_000)] = Field(
        1_200,
        description=(
            "The same within any hour. The default is for a busy site: of 2,000 tenants of one "
            "provider, each with its own MX name, no address of the provider's twenty is called "
            "by more than 600 names."
        ),
    )
    network_per_minute: Annotated[Count, Field(ge=2, le=1_000_000)] = Field(
        960,
        description=(
            "The same for all addresses of one network (IPv4: /24, IPv6: /64) together. The "
            "default is that of eight addresses: a large provider has some servers in a network."
        ),
    )
    network_per_hour: Annotated[Count, Field(ge=2, le=10_000_000)] = Field(
        9_600,
        description="The same for a network within any hour: eight times that of an address.",
    )
    zone_lookups_per_minute: Annotated[Count, Field(ge=2, le=1_000_000)] = Field(
        1_200,
        description=(
            "DNS lookups of names in one zone (example.org, example.co.uk) within any minute. MX "
            "records may name thousands of hosts in the zone of somebody else, whose name servers "
            "would be asked for each. Half of them may begin at once. Beyond this limit no lookup "
            "is made, and the forecast is unknown. A host takes two to four lookups, and they are "
            "kept for their TTL."
        ),
    )
    zone_lookups_per_hour: Annotated[Count, Field(ge=2, le=10_000_000)] = Field(
        20_000,
        description=(
            "The same within any hour. The default is some five a second, for the tenants of one "
            "large provider, whose names have a short TTL."
        ),
    )
    lookups: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        64,
        description=(
            "DNS lookups at the same time. Beyond this limit a lookup waits for its turn. The "
            "default is what one resolver answers without dropping queries; each lookup takes a "
            "socket."
        ),
    )
    fetches: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        20,
        description=(
            "MTA-STS policies that are fetched at the same time. Beyond this limit a fetch waits "
            "for its turn. Policies are kept for weeks, so that many are fetched at once only in "
            "the beginning."
        ),
    )
    slow_after: Annotated[float, Field(strict=True, ge=0.1, le=60, allow_inf_nan=False)] = Field(
        1,
        description=(
            "Seconds after which a lookup, fetch or session is slow; or three times as long as is "
            "usual, if that is longer, up to five times this value. While others wait, slow ones "
            "may hold half of the places (probes, lookups, fetches); beyond that they are broken "
            "off and begin again later. For ten minutes what was slow waits with its like. Longer "
            "than almost all sessions take: raise it where every server is far away."
        ),
    )
    evidence_wait: Wait = Field(
        8,
        description=(
            "Seconds for which a question waits for all the evidence of its next hop. After them "
            "what is known is judged: if that is enough for a forecast, it is the answer; else the "
            "question waits until assessment_timeout. A little less than rules.decide_wait; at "
            "most half of assessment_timeout."
        ),
    )
    assessment_timeout: Wait = Field(
        25,
        description=(
            "Seconds after which the engine answers a question with unknown, unless what is known "
            "is enough; it goes on gathering the evidence. The waits of [rules] may be shorter. "
            "The MTA does not wait longer."
        ),
    )
    gathering_timeout: Seconds = Field(
        300,
        description=(
            "Seconds for all the evidence of one next hop, even if no message waits for it any "
            "more; then what is known is judged. The default is enough for 16 sessions with silent "
            "servers, one after the other if they share an address."
        ),
    )
    flight_timeout: Seconds = Field(
        180,
        description=(
            "Seconds for one lookup, fetch or probe (a session, or two if TLS fails in the first), "
            "including the time that it waits for its turn. Each step has a limit of its own too "
            "(dns.timeout, probe.command_timeout)."
        ),
    )
    fetch_timeout: Annotated[float, Field(strict=True, gt=0, le=60, allow_inf_nan=False)] = Field(
        30,
        description=(
            "Seconds for the fetch of one MTA-STS policy. RFC 8461 section 3.3 suggests a minute "
            "at most."
        ),
    )
    host_cache: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        25_000,
        description=(
            "Entries of evidence by host and address that the engine keeps in memory; with their "
            "keys and certificate chains they take 6 KiB each on average at most. Beyond this "
            "limit the least used one is dropped."
        ),
    )
    domain_cache: Annotated[Count, Field(ge=100, le=10_000_000)] = Field(
        25_000,
        description=(
            "Entries of evidence by domain that the engine keeps in memory; with their keys they "
            "take 6 KiB each on average at most. Beyond this limit the least used one is dropped."
        ),
    )
    store_queue: Annotated[Count, Field(ge=1, le=1_000_000)] = Field(
        10_000,
        description=(
            "Changes that wait for a store that is slow or away, 16 MiB of them at most. Beyond "
            "this limit the oldest one is given up and stays in memory only."
        ),
        json_schema_extra=RESTART,
    )
    metrics_connections: Annotated[Count, Field(ge=1, le=1_000)] = Field(
        32,
        description=(
            "Connections to the metrics endpoint: enough for a few Prometheus servers and people. "
            "Beyond this limit the longest idle one of the client with most connections is closed."
        ),
        json_schema_extra=RESTART,
    )
