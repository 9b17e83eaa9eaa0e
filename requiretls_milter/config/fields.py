"""The types with which the schema declares its keys: each reads a value as :mod:`.values` does.

A type whose name ends in ``Word`` has a closed set of words; one that begins with ``Optional``
takes the empty text too, which stands for "not set".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator

from requiretls_milter import model
from requiretls_milter.config import values
from requiretls_milter.config.domainlist import DomainList
from requiretls_milter.config.patterns import domain, domain_pattern
from requiretls_milter.config.values import word
from requiretls_milter.syntax.endpoint import (
    Endpoint,
    MilterSocket,
    Nameserver,
    StoreUrl,
    absolute_path,
    parse_endpoint,
    parse_milter_socket,
    parse_nameserver,
    parse_store_url,
    unix_path,
)
from requiretls_milter.syntax.names import IpNetwork


def _list_to_tuple(value: Any) -> Any:
    """TOML has lists, a frozen configuration has tuples. A single value is no list of one."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list, got {values.given(value)}")
    return tuple(value)


as_list = BeforeValidator(_list_to_tuple)
"""Marks a field that is a list in the file and a tuple in the configuration."""

Text = Annotated[str, Field(strict=True, max_length=values.MAX_TEXT)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=3600, allow_inf_nan=False)]
"""A timeout, in seconds; an hour is more than SMTP's own limits (RFC 5321 section 4.5.3.2)."""
Wait = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False), AfterValidator(values.wait)]
"""Seconds that SMTP waits for us."""
Grace = Annotated[float, Field(strict=True, ge=0, le=31_536_000, allow_inf_nan=False)]
"""Seconds, a year at most."""

LookupTable = Annotated[str, Field(strict=True), AfterValidator(values.lookup_table)]
DomainPattern = Annotated[Text, AfterValidator(domain_pattern)]
OptionalDomain = Annotated[Text, AfterValidator(values.optional(domain))]
ListName = Annotated[Text, AfterValidator(values.list_name)]
DomainListField = Annotated[
    DomainList, PlainValidator(values.domain_list), PlainSerializer(DomainList.as_json)
]
ServiceName = Annotated[Text, AfterValidator(values.service)]
TransportName = Annotated[Text, AfterValidator(values.transport)]
OptionalTransport = Annotated[Text, AfterValidator(values.optional(values.transport))]
Domain = Annotated[Text, AfterValidator(domain)]
MailAddress = Annotated[Text, AfterValidator(values.mail_address)]
OptionalMailAddress = Annotated[Text, AfterValidator(values.optional(values.mail_address))]
OptionalTimeOfDay = Annotated[Text, AfterValidator(values.optional(values.time_of_day))]
OptionalCommand = Annotated[Text, AfterValidator(values.optional(values.command))]
OptionalUser = Annotated[Text, AfterValidator(values.optional(values.user))]
OptionalGroup = Annotated[Text, AfterValidator(values.optional(values.group))]
FieldName = Annotated[Text, AfterValidator(values.field_name)]
EnvidMark = Annotated[str, BeforeValidator(values.envid_mark)]
Address = Annotated[Text, AfterValidator(values.address)]
Network = Annotated[IpNetwork, PlainValidator(values.network), PlainSerializer(str)]
UnixPath = Annotated[Text, AfterValidator(unix_path)]
OptionalPath = Annotated[Text, AfterValidator(values.optional(absolute_path))]
KeyPrefix = Annotated[Text, AfterValidator(values.key_prefix)]
FileMode = Annotated[Text, AfterValidator(values.file_mode)]

MilterSocketField = Annotated[
    MilterSocket,
    PlainValidator(values.parsed(MilterSocket, parse_milter_socket)),
    PlainSerializer(str),
]
NameserverField = Annotated[
    Nameserver, PlainValidator(values.parsed(Nameserver, parse_nameserver)), PlainSerializer(str)
]
StoreUrlField = Annotated[
    StoreUrl, PlainValidator(values.parsed(StoreUrl, parse_store_url)), PlainSerializer(str)
]
EndpointField = Annotated[
    Endpoint, PlainValidator(values.parsed(Endpoint, parse_endpoint)), PlainSerializer(str)
]
OptionalEndpoint = Annotated[
    Endpoint | None,
    PlainValidator(values.or_none(values.parsed(Endpoint, parse_endpoint))),
    PlainSerializer(lambda endpoint: "" if endpoint is None else str(endpoint)),
]

AliasesWord = Annotated[model.Aliases, BeforeValidator(word(model.Aliases))]
ExtendedWord = Literal["canonical", "virtual"]
ProfileWord = Annotated[model.ProfileName, BeforeValidator(word(model.ProfileName))]
CapabilityWord = Annotated[model.Capability, BeforeValidator(word(model.Capability))]
TlsLevelWord = Annotated[
    model.TlsLevel,
    BeforeValidator(word(model.TlsLevel, but_not=(model.TlsLevel.HALF_DANE,))),
]
InsecureMxWord = Annotated[
    model.TlsLevel,
    BeforeValidator(
        word(
            model.TlsLevel,
            but_not=set(model.TlsLevel)
            - {model.TlsLevel.MAY, model.TlsLevel.ENCRYPT, model.TlsLevel.DANE},
        )
    ),
]
MtaStsServiceWord = Annotated[model.MtaStsService, BeforeValidator(word(model.MtaStsService))]
MtaStsWord = Annotated[model.MtaSts, BeforeValidator(word(model.MtaSts))]
AddressPreferenceWord = Annotated[
    model.AddressPreference, BeforeValidator(word(model.AddressPreference))
]
ProtocolWord = Annotated[model.MailProtocol, BeforeValidator(word(model.MailProtocol))]
ModeWord = Annotated[model.Mode, BeforeValidator(word(model.Mode))]
EnforceForWord = Annotated[model.EnforceFor, BeforeValidator(word(model.EnforceFor))]
OnTemporaryWord = Annotated[model.OnTemporary, BeforeValidator(word(model.OnTemporary))]
OnUnreachableWord = Annotated[model.OnUnreachable, BeforeValidator(word(model.OnUnreachable))]
OnUnknownWord = Annotated[model.OnUnknown, BeforeValidator(word(model.OnUnknown))]
OnNoncompliantWord = Annotated[model.OnNoncompliant, BeforeValidator(word(model.OnNoncompliant))]
MatchWord = Annotated[model.Match, BeforeValidator(word(model.Match))]
OnMixedWord = Annotated[model.OnMixed, BeforeValidator(word(model.OnMixed))]

InetProtocols = Annotated[tuple[values.InetProtocol, ...], BeforeValidator(values.inet_protocols)]
RequiretlsPolicyField = Annotated[
    Literal["default"] | model.RequiretlsPolicy | Mapping[str, model.RequiretlsPolicy],
    BeforeValidator(values.requiretls_policy),
]
TlsPolicyField = Annotated[
    Mapping[str, Annotated[model.TlsPolicy, PlainSerializer(str)]],
    BeforeValidator(values.tls_policy),
]
Routes = Annotated[
    Mapping[str, str], BeforeValidator(values.table_of(values.route_key, values.route))
]
SenderTransports = Annotated[
    Mapping[str, str], BeforeValidator(values.table_of(values.sender_key, values.destination))
]
SenderRelayhosts = Annotated[
    Mapping[str, str], BeforeValidator(values.table_of(values.sender_key, values.relay))
]
HandOver = Annotated[
    Mapping[str, str], BeforeValidator(values.table_of(values.hand_over_key, values.destination))
]
