"""``[mta]``: how the MTA delivers, and what of it one transport does differently."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from requiretls_milter import model
from requiretls_milter.config import fields, values
from requiretls_milter.config import routes as routing
from requiretls_milter.config.fields import Count, Flag, as_list
from requiretls_milter.config.schema.section import Section
from requiretls_milter.syntax import names, nexthop

_UNIX_SOCKET = "unix:"
"""What lmtp(8) writes before the path of a unix socket."""


class TransportOverrides(Section):
    """What one transport of master.cf does differently; the other keys are those of [mta]."""

    tls_security_level: fields.TlsLevelWord | None = Field(
        None, description="smtp_tls_security_level of this transport."
    )
    requiretls_policy: fields.RequiretlsPolicyField | None = Field(
        None, description="smtp_requiretls_policy of this transport."
    )
    tls_policy: fields.TlsPolicyField | None = Field(
        None, description="smtp_tls_policy_maps of this transport: a whole table, {} for none."
    )
    mta_sts: fields.MtaStsWord | None = Field(None, description="MTA-STS over this transport.")
    mta_sts_service: fields.MtaStsServiceWord | None = Field(
        None, description="The policy service of this transport."
    )
    insecure_mx_policy: fields.InsecureMxWord | None = Field(
        None, description="smtp_tls_dane_insecure_mx_policy of this transport."
    )
    mx_address_limit: Annotated[Count, Field(ge=0, le=1000)] | None = Field(
        None, description="smtp_mx_address_limit of this transport."
    )
    inet_protocols: fields.InetProtocols | None = Field(
        None, description="inet_protocols of this transport."
    )
    address_preference: fields.AddressPreferenceWord | None = Field(
        None, description="smtp_address_preference of this transport."
    )
    use_srv_lookup: Annotated[tuple[fields.ServiceName, ...], as_list] | None = Field(
        None, description="use_srv_lookup of this transport."
    )
    protocol: fields.ProtocolWord | None = Field(
        None,
        description=(
            'What this transport speaks: "smtp", or "lmtp" for a service of master.cf that runs '
            "lmtp(8). Unless set, the transport named lmtp speaks LMTP and all others SMTP."
        ),
    )


class Mta(Section):
    """How the MTA that calls the milter delivers; the defaults are those of Postfix 3.11."""

    profile: fields.ProfileWord = Field(
        model.ProfileName.POSTFIX,
        description=(
            'Whose behaviour is forecast. "postfix": what Postfix 3.11 does with the settings '
            'below. "rfc8689": what the RFC demands, for Sendmail and other MTAs that do not '
            "implement REQUIRETLS."
        ),
    )
    carries: fields.CapabilityWord = Field(
        model.Capability.AUTO,
        description=(
            "What the MTA acts on by itself: requiretls (Postfix 3.11 and later), tls-required "
            "(only the header field TLS-Required: No; Postfix 3.10) or nothing. auto: the version "
            "in macro v decides."
        ),
    )
    mydomain: fields.OptionalDomain = Field(
        "",
        description=(
            "mydomain of Postfix. Its default policy exempts this domain and its subdomains. "
            "Empty: no domain is exempt."
        ),
    )
    myhostname: fields.OptionalDomain = Field(
        "",
        description=(
            "myhostname of Postfix. A server on port 25 that gives this name in its EHLO reply is "
            "the MTA itself, and Postfix sees a mail loop: 5.4.6, or 4.4.6 if it tried a better MX "
            "before. Empty: no server is recognized by its name."
        ),
    )
    tls_security_level: fields.TlsLevelWord = Field(
        model.TlsLevel.MAY,
        description=(
            "smtp_tls_security_level: none, may, encrypt, dane, dane-only, verify or secure. "
            "Postfix keeps REQUIRETLS only at the levels that verify certificates: dane, "
            "dane-only, verify and secure."
        ),
    )
    requiretls_policy: fields.RequiretlsPolicyField = Field(
        values.DEFAULT_POLICY,
        description=(
            'smtp_requiretls_policy. "default": the list that Postfix has by itself (opportunistic '
            "for mydomain, localhost and address literals, enforce for all others). Or one policy "
            "for all: enforce, opportunistic+starttls, opportunistic or disable. Or a table: "
            '{ "example.org" = "enforce", ".example.net" = "opportunistic", "*" = "enforce" }. '
            'As in tables of Postfix the name itself comes first, then its parents as ".parent", '
            'then "*"; without a match the policy is enforce. "invalid" stands for a word that '
            "Postfix does not know, for which it defers with 4.7.10."
        ),
    )
    tls_policy: fields.TlsPolicyField = Field(
        {},
        description=(
            "The static tables of smtp_tls_policy_maps, by next hop. An entry is a level, and the "
            "names to match if the level is verify or secure: "
            '{ "example.org" = "dane-only", ".example.net" = "encrypt", '
            '"[mail.example.com]:587" = "secure match=example.com:.example.com" }. As in Postfix '
            'the name of a domain comes first, then its parents as ".parent". An entry for the '
            "name comes before MTA-STS, an entry for a parent after it."
        ),
    )
    mta_sts: fields.MtaStsWord = Field(
        model.MtaSts.OFF,
        description=(
            'How the MTA applies MTA-STS: "off", "match" (smtp_tls_policy_maps answers "secure '
            'match=..."), or "mx-patterns" (smtp_tls_enforce_sts_mx_patterns, Postfix 3.10.5 and '
            "later with a resolver plug-in that sends policy attributes)."
        ),
    )
    mta_sts_service: fields.MtaStsServiceWord = Field(
        model.MtaStsService.RESOLVER,
        description=(
            'The policy service behind smtp_tls_policy_maps. "postfix-mta-sts-resolver" has the '
            "policy of a smart host's domain in brackets and with a port too ([mx.example.org]:25, "
            'RFC 8461 section 3.4), "postfix-tlspol" that of a bare name only.'
        ),
    )
    insecure_mx_policy: fields.InsecureMxWord = Field(
        model.TlsLevel.DANE,
        description=(
            "smtp_tls_dane_insecure_mx_policy: dane, encrypt or may. This level is used if the MX "
            "record is not signed, but the TLSA records of the host are."
        ),
    )
    requiretls_esmtp_header: Flag = Field(
        True,
        description=(
            "requiretls_esmtp_header: whether the MTA obeys the header field Require-TLS-ESMTP: "
            "yes, which any sender can write."
        ),
    )
    mx_address_limit: Annotated[Count, Field(ge=0, le=1000)] = Field(
        5, description="smtp_mx_address_limit: how many addresses the MTA tries. 0: all."
    )
    inet_protocols: fields.InetProtocols = Field(
        ("ipv4", "ipv6"),
        description=(
            'inet_protocols: "ipv4", "ipv6" or both. Name only what the MTA can really use: a '
            "forecast for an address that the MTA never tries is worth nothing."
        ),
    )
    address_preference: fields.AddressPreferenceWord = Field(
        model.AddressPreference.ANY,
        description=(
            'smtp_address_preference: which address family the MTA tries first, "ipv4" or "ipv6". '
            '"any": chance decides among servers of equal preference.'
        ),
    )
    use_srv_lookup: Annotated[tuple[fields.ServiceName, ...], as_list] = Field(
        (),
        description=(
            "use_srv_lookup of Postfix: the services for which SRV records name the servers of a "
            'next hop without brackets: "submission" for example.org:submission, "smtp" for '
            "example.org itself."
        ),
    )
    local_transports: Annotated[tuple[fields.TransportName, ...], as_list] = Field(
        ("local", "virtual", "lmtp", "discard", "error", "retry"),
        description=(
            "Transports ({rcpt_mailer}) that do not send mail over SMTP to another site. Their "
            "recipients are local, and no forecast is made for them."
        ),
    )
    local_domains: Annotated[tuple[fields.DomainPattern, ...], as_list] = Field(
        (),
        description=(
            "Recipient domains that are delivered here; .example.org stands for the subdomains. "
            "Only for mail whose transport the MTA does not name, such as that of sendmail(1): "
            "what it names always comes first."
        ),
    )
    default_transport: Annotated[fields.Text, AfterValidator(values.destination)] = Field(
        "smtp",
        description=(
            "default_transport of Postfix, with or without a next hop: the way of mail whose "
            "transport the MTA does not name, such as that of sendmail(1), and the transport that "
            "check assumes."
        ),
    )
    relayhost: Annotated[fields.Text, AfterValidator(values.relay)] = Field(
        "",
        description=(
            "relayhost of Postfix, word for word: the next hop of mail for which the MTA names "
            "none and nothing else does."
        ),
    )
    routes: fields.Routes = Field(
        {},
        description=(
            "Where mail goes whose transport the MTA does not name, by recipient: transport_maps, "
            "and the domains of relay_domains, virtual_mailbox_domains and mydestination that are "
            'not delivered here. Keys as in transport(5): "user@example.org", "example.org", '
            '".example.org" for subdomains, "[192.0.2.1]" for an address in the place of a domain, '
            '"*". Values: "smtp:[gateway.example.org]:587"; "smtp:" '
            'for the recipient\'s own domain; "relay" without a colon for relayhost, if there is '
            'one; ":[host]" keeps the default transport. The most specific key of this table and '
            "of local_domains decides."
        ),
    )
    sender_transports: fields.SenderTransports = Field(
        {},
        description=(
            "sender_dependent_default_transport_maps of Postfix, for mail whose transport the MTA "
            'does not name. Keys: "user@example.org", "@example.org", "<>" for the null sender, '
            '"*" for any other sender, as a static table: then no address extension is cut off.'
        ),
    )
    sender_relayhosts: fields.SenderRelayhosts = Field(
        {},
        description=(
            "sender_dependent_relayhost_maps of Postfix, for mail whose next hop the MTA does not "
            "name. Keys as in sender_transports."
        ),
    )
    recipient_delimiter: Annotated[fields.Text, Field(max_length=16)] = Field(
        "",
        description=(
            "recipient_delimiter of Postfix: what separates a user's name from its extension in "
            "addresses that are looked up in these tables."
        ),
    )
    hand_over: fields.HandOver = Field(
        {},
        description=(
            "Transports of this host that hand their mail over to another one, as local(8) does "
            'with mailbox_transport: { local = "smtp:[192.0.2.30]" }, or "user@local" for one '
            "user (mailbox_transport_maps). The recipient is then forecast at that next hop."
        ),
    )
    route_transport: fields.OptionalTransport = Field(
        "",
        description=(
            "The transport to which a recipe moves a message with the tag's route=requiretls "
            '(milter_header_checks: "FILTER smtp-strict:"). What [mta.transport."NAME"] says of '
            "it then holds for every recipient for whom REQUIRETLS is asked, whatever transport "
            "the MTA named at RCPT. At RCPT a recipient is taken to be moved. A message that turns "
            "out to have route=mixed stays on its way, and is forecast for that way at its end. "
            "Empty: no recipe moves such mail."
        ),
    )
    aliases: fields.AliasesWord = Field(
        model.Aliases.OFF,
        description=(
            'Whether a recipient is expanded as Postfix does it after the milter was asked. "off": '
            "a forecast is for the next hop of the address that the client gave; a virtual alias "
            'that leaves by SMTP looks local. "static": canonical_maps, recipient_canonical_maps '
            "and virtual_alias_maps below are applied as far as their text can be read, and the "
            "forecast is the worst one of the addresses that a recipient becomes. A table that "
            "cannot be read, or a circle in it, makes that recipient one that is not expanded; it "
            'is never refused for that. "ask": tables that are no text are asked too, with '
            "postmap -q as the service's user; a recipient whose tables do not answer in time is "
            "not expanded. Needs profile postfix."
        ),
    )
    postmap: fields.OptionalCommand = Field(
        "",
        description=(
            'The postmap command of Postfix that is run with aliases = "ask": an absolute path '
            "and arguments, split as a shell does, but run without one. With several instances: "
            '"/usr/sbin/postmap -c /etc/postfix-out". Empty: postmap in /usr/sbin and the like.'
        ),
    )
    alias_life: Annotated[Count, Field(ge=1, le=86_400)] = Field(
        60,
        description=(
            'Seconds for which an answer of postmap is used again with aliases = "ask", also that '
            "there is no entry. Postfix itself looks up each time: so long a changed entry may be "
            "forecast as it was."
        ),
    )
    virtual_alias_maps: Annotated[tuple[fields.LookupTable, ...], as_list] = Field(
        (),
        description=(
            "virtual_alias_maps of Postfix, in its order: "
            '["hash:/etc/postfix/virtual", "inline:{ { a@example.org = b@example.net } }"]. Read '
            "are tables of the types hash, btree, lmdb, cdb, dbm and sdbm, whose source, the text "
            "that postmap made them of, lies beside them, and texthash, inline and static. All "
            "others are asked, or not read at all (aliases)."
        ),
    )
    recipient_canonical_maps: Annotated[tuple[fields.LookupTable, ...], as_list] = Field(
        (), description="recipient_canonical_maps of Postfix, in the same way."
    )
    canonical_maps: Annotated[tuple[fields.LookupTable, ...], as_list] = Field(
        (),
        description="canonical_maps of Postfix, in the same way, if they apply to recipients.",
    )
    myorigin: fields.OptionalDomain = Field(
        "",
        description=(
            "myorigin of Postfix: the domain of an address that has none. Empty: myhostname."
        ),
    )
    mydestination: Annotated[tuple[fields.Domain, ...], as_list] = Field(
        (),
        description=(
            "mydestination of Postfix, names only: the domains whose users are looked up in these "
            "tables without a domain too."
        ),
    )
    append_dot_mydomain: Flag = Field(
        False,
        description=(
            "append_dot_mydomain of Postfix: whether mydomain is appended to a domain without a "
            "dot, in these tables and in recipients."
        ),
    )
    propagate_unmatched_extensions: Annotated[tuple[fields.ExtendedWord, ...], as_list] = Field(
        ("canonical", "virtual"),
        description=(
            "propagate_unmatched_extensions of Postfix: in the results of which tables an "
            "extension (recipient_delimiter) is kept that the key has not."
        ),
    )
    virtual_alias_expansion_limit: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        1_000,
        description=(
            "virtual_alias_expansion_limit of Postfix: with more addresses for one recipient it "
            "takes no message."
        ),
    )
    virtual_alias_recursion_limit: Annotated[Count, Field(ge=1, le=10_000)] = Field(
        1_000,
        description=(
            "virtual_alias_recursion_limit of Postfix: with more steps, as in a circle of "
            "aliases, it takes no message."
        ),
    )
    virtual_alias_address_length_limit: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        1_000,
        description=(
            "virtual_alias_address_length_limit of Postfix: octets of an address, beyond which it "
            "takes no message."
        ),
    )
    my_addresses: Annotated[tuple[fields.Address, ...], as_list] = Field(
        (),
        description=(
            "inet_interfaces and proxy_interfaces, as the addresses of the MTA. An MX that leads "
            "back to one of them is a mail loop (5.4.6)."
        ),
    )
    testing_policies_count: bool = Field(
        False,
        description=(
            'Whether an MTA-STS policy in mode "testing" confirms an MX name as one in mode '
            '"enforce" does. RFC 8461 section 5 gives it no force.'
        ),
    )
    pkix_beside_unusable_tlsa: bool = Field(
        False,
        description=(
            "Whether a certificate chain to a trusted authority is enough for a host that has TLSA "
            "records of which none is usable. If false, nothing authenticates such a host."
        ),
    )
    tlsa_vouches_for_unsigned_mx: bool = Field(
        False,
        description=(
            "Whether signed TLSA records of a host make up for MX records that are not signed, as "
            'at the level "halfdane" of Postfix. RFC 8689 section 2 demands a secure MX lookup.'
        ),
    )
    every_mx: bool = Field(
        False,
        description=(
            "Whether every server of a domain has to satisfy the requirement. If false, one server "
            "is enough, as in RFC 8689 section 4.2.1. For profile rfc8689."
        ),
    )
    weak_tls_counts: bool = Field(
        False,
        description=(
            "Whether TLS satisfies that RFC 9325 forbids: RSA or DHE of less than 2048 bits (keys "
            "of less than 112 bits of security), or no forward secrecy. Postfix delivers over it, "
            "which the forecast of profile postfix says either way. If false, as RFC 8689 section "
            "4.2.1 recommends, such a delivery does not comply, and profile rfc8689 makes none."
        ),
    )
    transport: Mapping[fields.TransportName, TransportOverrides] = Field(
        {},
        description=(
            "Overrides by transport ({rcpt_mailer}), like -o in master.cf: "
            '[mta.transport."smtp-strict"] with the keys that differ.'
        ),
    )

    def destination_of(self, recipient: str, sender: str) -> routing.Destination | None:
        """Where mail goes if the MTA does not say it; None if it is delivered here."""
        return routing.find(self, recipient, sender)

    def handed_over(self, to: routing.Destination, recipient: str) -> routing.Destination:
        """Where the mail of a transport that hands it over goes in the end."""
        return routing.handed_over(self, to, recipient)

    def way(
        self,
        recipient: str,
        sender: str,
        *,
        told: routing.Destination | None = None,
        postfix: bool = False,
    ) -> routing.Way:
        """The way of a recipient's mail, as the MTA tells it or as its routing has it.

        If the MTA names several next hops (Postfix 3.5: ``a.example, b.example``), the first one
        stands for all: the MTA uses the others only when it fails. An address without a domain
        is local.

        Args:
            recipient: the envelope address, as typed.
            sender: the reverse-path, as typed.
            told: what the MTA tells; None if it tells nothing.
            postfix: whether the MTA says that it is Postfix.

        Raises:
            UnusableNextHopError: Postfix can deliver nothing there.
            NextHopError: the host, or the domain in its place, is not a next hop.
        """
        found = self.destination_of(recipient, sender) if told is None else told
        if found is None:
            return routing.Way("", nexthop.LOCAL)
        to = self.handed_over(found, recipient)
        text = to.nexthop or names.domain_of(recipient)
        if not text or (to.transport and to.transport in self.local_transports):
            return routing.Way(to.transport, nexthop.LOCAL)
        first = nexthop.SEPARATOR.split(text.strip(), maxsplit=1)[0]
        if first.startswith(_UNIX_SOCKET):  # LMTP, whatever the transport's name (R19)
            return routing.Way(to.transport, nexthop.LOCAL)
        return routing.Way(to.transport, self.nexthop_of(first, to.transport, postfix=postfix))

    @property
    def routes_anything(self) -> bool:
        """Whether mail to some domain may go elsewhere than to the domain by its MX records."""
        tables = (
            *(self.routes, self.local_domains, self.relayhost, self.hand_over),
            *(self.sender_transports, self.sender_relayhosts),
        )
        usual = routing.Destination.parse(self.default_transport)
        is_special = usual.transport in self.local_transports or self.speaks_lmtp(usual.transport)
        return any(tables) or bool(usual.nexthop) or is_special

    @property
    def postmap_command(self) -> tuple[str, ...]:
        """``postmap`` as program and arguments; () if the usual one is to be run."""
        return tuple(shlex.split(self.postmap))

    @property
    def usual_transport(self) -> str:
        """The transport of mail for which nothing else is configured."""
        return routing.Destination.parse(self.default_transport).transport

    def carrier(self, transport: str, asked: model.Requirement) -> str:
        """The transport by which a message goes in the end.

        Args:
            transport: which the MTA named ({rcpt_mailer}; any text).
            asked: what is asked for the message: it decides about its route.
        """
        if asked is model.Requirement.REQUIRETLS and self.route_transport:
            return self.route_transport
        return transport

    def speaks_lmtp(self, transport: str) -> bool:
        """Whether *transport* is an lmtp(8) of Postfix."""
        over = self.transport.get(transport)
        if over is not None and over.protocol is not None:
            return over.protocol is model.MailProtocol.LMTP
        return transport == model.MailProtocol.LMTP

    def nexthop_of(self, text: str, transport: str, *, postfix: bool) -> model.NextHop:
        """Read one next hop as *transport* takes it.

        Args:
            text: the next hop.
            transport: ({rcpt_mailer}; any text).
            postfix: whether it is Postfix that reads it.

        Raises:
            NextHopError: it is none.
        """
        protocol = model.MailProtocol.LMTP if self.speaks_lmtp(transport) else None
        hop = nexthop.parse(text, protocol or model.MailProtocol.SMTP, postfix=postfix)
        over = self.transport.get(transport)
        services = self.use_srv_lookup
        if over is not None and over.use_srv_lookup is not None:
            services = over.use_srv_lookup
        return nexthop.as_srv(hop) if hop.service in services else hop

    def profile_for(self, transport: str) -> model.MtaProfile:
        """How mail over *transport* ({rcpt_mailer}; any text) is delivered."""
        over = self.transport.get(transport, TransportOverrides())

        def chosen(key: str) -> Any:
            value = getattr(over, key)
            return getattr(self, key) if value is None else value

        return model.MtaProfile(
            name=self.profile,
            tls_security_level=chosen("tls_security_level"),
            requiretls_policy=_policy_pairs(chosen("requiretls_policy")),
            tls_policy=tuple(chosen("tls_policy").items()),
            mta_sts=chosen("mta_sts"),
            mta_sts_service=chosen("mta_sts_service"),
            insecure_mx_policy=chosen("insecure_mx_policy"),
            mydomain=self.mydomain,
            myhostname=self.myhostname,
            mx_address_limit=chosen("mx_address_limit"),
            inet_protocols=chosen("inet_protocols"),
            address_preference=chosen("address_preference"),
            my_addresses=self.my_addresses,
            relayhost=self.relayhost.lower(),
            use_srv_lookup=chosen("use_srv_lookup"),
            reading=model.Reading(
                testing_policies_count=self.testing_policies_count,
                pkix_beside_unusable_tlsa=self.pkix_beside_unusable_tlsa,
                tlsa_vouches_for_unsigned_mx=self.tlsa_vouches_for_unsigned_mx,
                every_mx=self.every_mx,
                weak_tls_counts=self.weak_tls_counts,
            ),
        )


def _policy_pairs(
    policy: str | model.RequiretlsPolicy | Mapping[str, model.RequiretlsPolicy],
) -> tuple[tuple[str, model.RequiretlsPolicy], ...] | None:
    """The policy in the form of :class:`model.MtaProfile`; None is Postfix's own list."""
    if isinstance(policy, model.RequiretlsPolicy):
        return (("*", policy),)
    if isinstance(policy, str):
        return None
    return tuple(policy.items())
