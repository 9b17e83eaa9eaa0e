"""Whether ``[mta]`` says how the Postfix beside it delivers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from requiretls_milter import config as configuration
from requiretls_milter.config import Config
from requiretls_milter.config.mistakes import dotted
from requiretls_milter.config.text import shown_text
from requiretls_milter.doctor.finding import Finding, ok, warning
from requiretls_milter.mirror.postconf import Postfix
from requiretls_milter.mirror.section import Mirror
from requiretls_milter.model import Aliases, MtaProfile, ProfileName, RequiretlsPolicy
from requiretls_milter.syntax.capability import capability

SEE_IMPORT = "Use the output of requiretls-milter mta import (docs/mta-import.md)."

_AT_LEAST = ("local_transports", "local_domains", "my_addresses")
"""Lists to which the configuration may add more than Postfix has."""

_ROUTING = (
    *("default_transport", "relayhost", "routes", "sender_transports", "sender_relayhosts"),
    *("recipient_delimiter", "hand_over"),
)
"""Keys that say where mail goes."""

_EXPANDING = (
    *("virtual_alias_maps", "recipient_canonical_maps", "canonical_maps", "myorigin"),
    *("mydestination", "append_dot_mydomain", "propagate_unmatched_extensions"),
    *("virtual_alias_expansion_limit", "virtual_alias_recursion_limit"),
    "virtual_alias_address_length_limit",
)
"""Keys that say what recipients become; they matter only if recipients are expanded."""


def differences(config: Config, postfix: Postfix, made: Mirror) -> Iterator[Finding]:
    """Compare ``[mta]`` with the mirror of Postfix; warn of what ``[mta]`` cannot express."""
    if config.mta.profile is not ProfileName.POSTFIX:
        yield warning(
            "mta",
            f'mta.profile = "{config.mta.profile}", but there is a Postfix: it is not forecast',
            'Set mta.profile = "postfix", if this Postfix is the one that calls the milter.',
        )
        return
    found = list(_different(config.mta, postfix, made))
    if not found:
        yield ok("mta", "[mta] agrees with Postfix")
    for text in found:
        yield warning("mta", text, SEE_IMPORT)
    aliases = config.mta.aliases
    solved = frozenset() if aliases is Aliases.OFF else made.while_off
    solved |= made.while_not_asked if aliases is Aliases.ASK else frozenset()
    for text in made.warnings:
        if text in solved:
            continue
        yield warning(
            "not_mirrored", f"not in [mta]: {text}", "See docs/mta-import.md for the consequences."
        )


def _different(mta: configuration.Mta, postfix: Postfix, made: Mirror) -> Iterator[str]:
    """Write a sentence for each key that differs from the mirror."""
    should = Config.model_validate({"mta": made.mta}).mta
    version = postfix.settings.get("milter_macro_v", "")
    if capability(mta.carries, version) is not capability(should.carries, version):
        yield _sentence("mta.carries", mta.carries.value, should.carries.value)
    plain_has, plain_should = mta.model_dump(mode="json"), should.model_dump(mode="json")
    for key in ("mydomain", "myhostname", "requiretls_esmtp_header"):
        if plain_has[key] != plain_should[key]:
            yield _sentence(f"mta.{key}", plain_has[key], plain_should[key])
    for key in _AT_LEAST:
        lacking = [item for item in plain_should[key] if item not in plain_has[key]]
        if lacking:
            yield f"mta.{key} lacks {shown_text(lacking)}"
    yield from _called_local(mta, should, postfix)
    expands = mta.aliases is not Aliases.OFF
    keyed = any("@" in key for key in (*mta.routes, *mta.sender_transports, *mta.sender_relayhosts))
    for key in (*_ROUTING, *(_EXPANDING if expands else ())):
        if key == "recipient_delimiter" and not expands and not keyed:
            continue  # it separates nothing
        if plain_has[key] != plain_should[key]:
            yield _sentence(f"mta.{key}", plain_has[key], plain_should[key])
    # The mirror lacks keys of settings that this Postfix does not have.
    keys = [key for key in configuration.TransportOverrides.model_fields if key in made.mta]
    has, wanted = mta.profile_for(""), should.profile_for("")
    differing = [key for key in keys if _value(has, key) != _value(wanted, key)]
    for key in differing:
        yield _sentence(f"mta.{key}", _shown(has, key), _shown(wanted, key))
    for service in postfix.running("smtp"):
        if service.type == "unix":
            yield from _different_transport(service.name, mta, should, keys, differing)
    known = {service.name for service in postfix.services}
    for name in mta.transport:
        if name not in known:
            yield f"{dotted(('mta', 'transport', name))}: Postfix has no transport of that name"


def _called_local(
    mta: configuration.Mta, should: configuration.Mta, postfix: Postfix
) -> Iterator[str]:
    """Find what the configuration calls local although Postfix hands it on over the network."""
    for name in mta.local_transports:
        leaves = any(
            service.program in ("smtp", "lmtp") and service.type == "unix"
            for service in postfix.services
            if service.name == name
        )
        if name not in should.local_transports and (leaves or name in should.hand_over):
            yield (
                f"mta.local_transports has {name}, but in Postfix its mail leaves over the "
                "network: it gets no forecast"
            )
    for domain in mta.local_domains:
        if domain in should.local_domains:
            continue
        to = should.destination_of(f"postmaster@{domain.removeprefix('.')}", "")
        if to is not None and domain in should.routes:
            yield (
                f"mta.local_domains has {domain}, but Postfix sends its mail to "
                f"{to.transport}:{to.nexthop}"
            )


def _different_transport(
    name: str,
    mta: configuration.Mta,
    should: configuration.Mta,
    keys: Sequence[str],
    differing: Sequence[str],
) -> Iterator[str]:
    """Write a sentence for each key of a transport that differs for a reason of its own."""
    has, wanted = mta.profile_for(name), should.profile_for(name)
    base_has, base_wanted = mta.profile_for(""), should.profile_for("")
    for key in keys:
        if _value(has, key) == _value(wanted, key):
            continue
        inherited = all(
            _value(own, key) == _value(base, key)
            for own, base in ((has, base_has), (wanted, base_wanted))
        )
        if key not in differing or not inherited:
            where = dotted(("mta", "transport", name, key))
            yield _sentence(where, _shown(has, key), _shown(wanted, key))


def _sentence(key: str, has: Any, should: Any) -> str:
    return f"{key} is {shown_text(has)}, but in Postfix it is {shown_text(should)}"


def _value(profile: MtaProfile, key: str) -> Any:
    """Return a key's value in a form that is equal for all values with the same meaning."""
    value = getattr(profile, key)
    if value is None or key not in ("requiretls_policy", "tls_policy"):
        return value
    # The order has no meaning, and a REQUIRETLS policy without a match is enforce.
    return frozenset(pair for pair in value if pair != ("*", RequiretlsPolicy.ENFORCE))


def _shown(profile: MtaProfile, key: str) -> Any:
    """Return a key's value as it stands in TOML."""
    value = getattr(profile, key)
    if key == "requiretls_policy":
        if value is None:
            return "default"
        if [pattern for pattern, _ in value] == ["*"]:
            return value[0][1].value
        return {pattern: policy.value for pattern, policy in value}
    if key == "tls_policy":
        return {name: str(policy) for name, policy in value}
    return list(value) if isinstance(value, tuple) else value
