"""Translate smtp_tls_policy_maps into ``tls_policy`` and ``mta_sts`` of ``[mta]``. Pure.

Postfix looks up the next hop, then its parents, in each table in turn. Static tables are merged
into one. A policy service that answers by MTA-STS becomes ``mta_sts``.
"""

from __future__ import annotations

from collections.abc import Mapping

from requiretls_milter.mirror.postconf import Entries, Parameters, is_yes
from requiretls_milter.mirror.wording import examples, shown
from requiretls_milter.model import MtaSts, MtaStsService, TlsLevel
from requiretls_milter.syntax import tlspolicy
from requiretls_milter.syntax.tables import split_list, split_table

POLICY_SERVICES = frozenset({"socketmap", "tcp"})
"""Table types of smtp_tls_policy_maps that are a live service, as MTA-STS plug-ins are."""

_MAPS = "smtp_tls_policy_maps"
_TLSPOL_MAP = "QUERY"
_NO_RULE = "forecast without these entries, so let no rule act on mail to them (mode monitor)"


def mirror_policies(
    settings: Parameters, tables: Mapping[str, Entries | None], no_dane: str
) -> tuple[dict[str, str], list[str]]:
    """Return the value of ``tls_policy``, and warnings of what it cannot express.

    Args:
        settings: those of one smtp(8).
        tables: the entries of each table; None if the table cannot be read.
        no_dane: why this Postfix cannot do DANE; "" if it can.
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
                "mirrored, and forecasts ignore them"
            )
        else:
            new, problems = _mirrored(entries, no_dane)
            merged = {**new, **merged}  # the first table with a key decides
            warnings += (f"{_MAPS}: {shown(item)}: {text}" for text in problems)
            if behind_service and new:
                warnings.append(
                    f"{_MAPS}: {shown(item)} comes after a policy service: in a forecast an entry "
                    "for a domain's own name goes before MTA-STS, in Postfix after it"
                )
    if not maps:  # else Postfix ignores it (smtp_tls_list_init())
        warnings += (
            f"smtp_tls_per_site: {shown(item)}: this obsolete table is not mirrored, and "
            f"forecasts ignore it: use {_MAPS}"
            for item in split_list(settings.get("smtp_tls_per_site", ""))
        )
    return merged, warnings


def mirror_mta_sts(settings: Parameters) -> tuple[MtaSts, list[str]]:
    """Return the value of ``mta_sts``, and warnings: Postfix gets MTA-STS from a policy service."""
    services = [item for item in split_list(settings.get(_MAPS, "")) if _is_service(item)]
    if not services:
        return MtaSts.OFF, []
    taken = f"{_MAPS}: {shown(services[0])} is taken for an MTA-STS policy service"
    else_unknown = "anything else that it answers, such as a level for DANE, is not mirrored"
    if not is_yes(settings, "smtp_tls_enforce_sts_mx_patterns"):
        return MtaSts.MATCH, [f"{taken}; {else_unknown}"]
    return MtaSts.MX_PATTERNS, [
        f"{taken} that sends policy attributes (policy_type=sts); if yours does not, set mta_sts "
        f'= "match"; {else_unknown}'
    ]


def mirror_service(settings: Parameters) -> MtaStsService:
    """Tell the policy service by the name of its map: postfix-tlspol's is QUERY."""
    services = [item for item in split_list(settings.get(_MAPS, "")) if _is_service(item)]
    first = services[0] if services else ""
    query = first.rpartition(":")[2].upper().startswith(_TLSPOL_MAP)
    return MtaStsService.TLSPOL if query or "tlspol" in first.lower() else MtaStsService.RESOLVER


def _is_service(item: str) -> bool:
    return split_table(item)[0] in POLICY_SERVICES


def _mirrored(entries: Entries, no_dane: str) -> tuple[dict[str, str], list[str]]:
    """Return the entries that can be mirrored, and warnings that name the others."""
    mirrored: dict[str, str] = {}
    without: dict[str, tuple[str, ...]] = {}
    weaker: list[str] = []
    not_at_all: dict[str, str] = {}
    for name, text in entries:
        try:
            value, dropped = tlspolicy.as_mirrored(text)
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
            f"mirrored without {attributes}: {examples(without)}: no forecast knows what these "
            "change of a TLS session"
        )
    if weaker:
        warnings.append(
            f"level dane, but {no_dane}: Postfix delivers without DANE, as at level may, and so "
            f"does the mirror: {examples(weaker)}"
        )
    if not_at_all:
        why = shown(next(iter(not_at_all.values())))
        warnings.append(f"not mirrored: {examples(not_at_all)} ({why}): {_NO_RULE}")
    return mirrored, warnings
