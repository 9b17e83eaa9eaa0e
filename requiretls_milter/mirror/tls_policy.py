"""smtp_tls_policy_maps as the ``tls_policy`` and ``mta_sts`` of ``[mta]``. Pure.

Postfix asks each table in turn for the next hop, then for its parents. Static tables become one;
a service that answers by MTA-STS is mirrored by what it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

from requiretls_milter.mirror.postconf import Entries, Settings, is_yes, split_list
from requiretls_milter.mirror.requiretls_policy import examples
from requiretls_milter.mirror.unmirrored import shown
from requiretls_milter.model import MtaSts, TlsLevel
from requiretls_milter.syntax import tlspolicy

POLICY_SERVICES = frozenset({"socketmap", "tcp"})
"""Table types of smtp_tls_policy_maps that are a live service: what MTA-STS plug-ins speak."""

_MAPS = "smtp_tls_policy_maps"
_NO_RULE = "forecast without these entries, so let no rule act on mail to them (mode monitor)"


def mirror_policies(
    settings: Settings, tables: Mapping[str, Entries | None], no_dane: str
) -> tuple[dict[str, str], list[str]]:
    """What ``tls_policy`` has to be, and what it cannot say.

    Args:
        settings: of one smtp(8).
        tables: the entries of each table, None where it cannot be read.
        no_dane: why this Postfix cannot do DANE; "" where it can.
    """
    merged: dict[str, str] = {}
    warnings: list[str] = []
    maps = split_list(settings.get(_MAPS, ""))
    behind_service = False
    for item in maps:
        entries = tables.get(item)
        if _is_service(item):
            behind_service = True
        elif entries is None:
            warnings.append(
                f"{_MAPS}: {shown(item)}: a table that cannot be read: its TLS policies are not "
                "mirrored, and forecasts are made without them"
            )
        else:
            new, told = _mirrored(entries, no_dane)
            merged = {**new, **merged}  # the first table that has a key decides
            warnings += (f"{_MAPS}: {shown(item)}: {text}" for text in told)
            if behind_service and new:
                warnings.append(
                    f"{_MAPS}: {shown(item)} stands behind a policy service: here an entry for a "
                    "domain's own name comes before MTA-STS, in Postfix after it"
                )
    if not maps:  # else Postfix ignores it (smtp_tls_list_init())
        warnings += (
            f"smtp_tls_per_site: {shown(item)}: this obsolete table is not mirrored, and "
            f"forecasts are made without it: use {_MAPS}"
            for item in split_list(settings.get("smtp_tls_per_site", ""))
        )
    return merged, warnings


def mirror_mta_sts(settings: Settings) -> tuple[MtaSts, list[str]]:
    """What ``mta_sts`` has to be: how MTA-STS comes into Postfix, by a policy service."""
    services = [item for item in split_list(settings.get(_MAPS, "")) if _is_service(item)]
    if not services:
        return MtaSts.OFF, []
    taken = f"{_MAPS}: {shown(services[0])} is taken for an MTA-STS policy service"
    else_unknown = (
        "whatever else it answers, a level of its own for DANE for example, is not mirrored"
    )
    if not is_yes(settings, "smtp_tls_enforce_sts_mx_patterns"):
        return MtaSts.MATCH, [f"{taken}; {else_unknown}"]
    return MtaSts.MX_PATTERNS, [
        f"{taken} that sends policy attributes (policy_type=sts); if yours does not, set mta_sts "
        f'= "match"; {else_unknown}'
    ]


def _is_service(item: str) -> bool:
    kind = item.removeprefix("proxy:").removeprefix("debug:").partition(":")[0]
    return kind in POLICY_SERVICES


def _mirrored(entries: Entries, no_dane: str) -> tuple[dict[str, str], list[str]]:
    """The entries that can be mirrored, and what is to be said of the others, by name."""
    mirrored: dict[str, str] = {}
    without: dict[str, tuple[str, ...]] = {}
    weaker: list[str] = []
    not_at_all: dict[str, str] = {}
    for name, text in entries:
        value, dropped = tlspolicy.as_mirrored(text)
        try:
            key, policy = tlspolicy.key(name), tlspolicy.parse(value)
            if no_dane and policy.level is TlsLevel.DANE_ONLY:
                raise ValueError(f"level dane-only, but {no_dane}: Postfix defers all mail, 4.7.5")
        except ValueError as error:
            not_at_all[name] = str(error)
            continue
        if no_dane and policy.level is TlsLevel.DANE:
            policy = tlspolicy.parse(TlsLevel.MAY)
            weaker.append(name)
        mirrored[key] = str(policy)
        if dropped and policy.level is not TlsLevel.NONE:
            without[name] = dropped
    warnings = []
    if without:
        attributes = ", ".join(sorted(set().union(*without.values())))
        warnings.append(
            f"mirrored without {attributes}: {examples(without)}: what these change of a TLS "
            "session no forecast knows"
        )
    if weaker:
        warnings.append(
            f"level dane, but {no_dane}: Postfix does without DANE, as at level may, and so does "
            f"the mirror: {examples(weaker)}"
        )
    if not_at_all:
        why = shown(next(iter(not_at_all.values())))
        warnings.append(f"not mirrored: {examples(not_at_all)} ({why}): {_NO_RULE}")
    return mirrored, warnings
