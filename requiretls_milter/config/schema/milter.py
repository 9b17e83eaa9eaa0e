"""``[milter]``: the side that faces the MTA."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from requiretls_milter.config import fields, values
from requiretls_milter.config.fields import Count, Flag, Seconds, as_list
from requiretls_milter.config.schema.section import RESTART, Section
from requiretls_milter.syntax import endpoint


class Milter(Section):
    """The side that faces the MTA: where the milter listens, and with how many processes."""

    socket: fields.MilterSocketField = Field(
        endpoint.parse_milter_socket("unix:/run/requiretls-milter/milter.sock"),
        description=(
            "The socket on which the MTA calls the milter: unix:/PATH, inet:PORT@HOST or "
            "inet6:PORT@HOST. For a chrooted Postfix: "
            "unix:/var/spool/postfix/requiretls-milter/milter.sock, which main.cf names "
            "unix:requiretls-milter/milter.sock. Over TCP everyone who can reach the address can "
            "call the milter, including every user of this host."
        ),
        json_schema_extra=RESTART,
    )
    socket_owner: fields.OptionalUser = Field(
        "",
        description=(
            "Owner of a unix socket, as the name or number of a user. Empty: the user that the "
            "service runs as. Only root may give the socket to another user."
        ),
        json_schema_extra=RESTART,
    )
    socket_group: fields.OptionalGroup = Field(
        "",
        description=(
            'Group of a unix socket, such as "postfix", as a name or number. Empty: the group that '
            "the service runs with. The MTA needs write permission on the socket and search "
            "permission on its directory."
        ),
        json_schema_extra=RESTART,
    )
    socket_mode: fields.FileMode = Field(
        "0660",
        description=(
            "Permissions of a unix socket, in octal. Users outside the group need none: only the "
            "MTA calls."
        ),
        json_schema_extra=RESTART,
    )
    workers: Annotated[Count, Field(ge=0, le=64)] = Field(
        0,
        description=(
            "Number of processes that answer the MTA. 0: two for each core that the service may "
            "use (by its affinity and the quota of its control group), at least 2 and at most 8. "
            "A Python process uses one core however many threads it has, and spends most of a "
            "message in system calls: with two for each core a quarter more messages are answered "
            "in a second than with one. More bring nothing, and each takes some 10 MB."
        ),
        json_schema_extra=RESTART,
    )
    trusted_networks: Annotated[tuple[fields.Network, ...], as_list] = Field(
        (values.network("127.0.0.0/8"), values.network("::1/128")),
        description=(
            "Networks, in CIDR notation, whose clients are trusted without authentication "
            "(enforce_for = trusted). By default this is only this host: strangers must not learn "
            "forecasts."
        ),
    )
    drain_timeout: Seconds = Field(
        10,
        description=(
            "Seconds that open transactions have to finish when the service stops. Then libmilter "
            "closes them, and the MTA asks the client to try again later."
        ),
    )
    header_name: fields.FieldName = Field(
        "X-RequireTLS",
        description=(
            "Name of the header field that carries the tag. Fields of this name in incoming mail "
            "are removed."
        ),
    )
    by: fields.OptionalDomain = Field(
        "",
        description=(
            "Value of by= in the tag. Empty: the name that the MTA gives itself (macro j)."
        ),
    )
    tag_leaving: Flag = Field(
        True,
        description=(
            "Whether a message is tagged if it has a recipient that is not local. Set this to "
            "false if the MTA cannot remove a header field from mail that leaves the site "
            "(Sendmail): the tag reveals your rules."
        ),
    )
    headers_only_bounces: Flag = Field(
        False,
        description=(
            "Whether a message for which REQUIRETLS is asked gets the parameter RET=HDRS (RFC 8689 "
            "section 5), whatever its sender said. A bounce of it then returns no body, here and "
            "at later hops. Off by default: the milter has to set the sender again as it was in "
            "MAIL, which undoes a change that an earlier milter made to it (SRS, BATV). The null "
            "sender is never changed."
        ),
    )
    envid_mark: fields.EnvidMark = Field(
        "",
        description=(
            'A word, such as "REQUIRETLS", that is appended to the ENVID of a message with '
            "route=requiretls, together with RET=HDRS. By this word a ruleset of Sendmail knows "
            "that the message must go over verified TLS. The next server sees the word too. "
            "Empty: nothing is appended. The milter sets the sender again, as for "
            "headers_only_bounces."
        ),
    )
