"""Checks of what Postfix does with REQUIRETLS: takes it, moves the mail, delivers it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from requiretls_milter.config import Config
from requiretls_milter.doctor.attachment import Attachment, is_inner
from requiretls_milter.doctor.finding import Finding, error, ok, warning
from requiretls_milter.doctor.mta import SEE_IMPORT
from requiretls_milter.forecast.profiles import must_match, requiretls_policy
from requiretls_milter.mirror.postconf import Parameters, Postfix, is_yes
from requiretls_milter.mirror.section import Mirror
from requiretls_milter.mirror.wording import shown
from requiretls_milter.model import MtaProfile, MtaSts, Requirement, RequiretlsPolicy
from requiretls_milter.syntax.tables import split_list

RECIPE = "docs/recipes/postfix.md"


def examine(
    config: Config, postfix: Postfix, made: Mirror, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    """Run all checks of what Postfix does with REQUIRETLS."""
    yield from _requirement_in(config, postfix, made, attachments)
    yield from _route(config, made)
    yield from _requirement_out(postfix, made)


# ---------------------------------------------------------------- what comes in


def _requirement_in(
    config: Config, postfix: Postfix, made: Mirror, attachments: Sequence[Attachment]
) -> Iterator[Finding]:
    main = postfix.settings
    if "requiretls_enable" not in main:
        if transport := _route_in_place(config, made):
            yield ok(
                "requiretls",
                f"Postfix {shown(postfix.version)} does not know REQUIRETLS and refuses the "
                "parameter (555); what rules and the field Require-TLS-ESMTP ask for goes by "
                f"{transport}",
            )
            return
        yield warning(
            "requiretls",
            f"Postfix {shown(postfix.version)} does not know REQUIRETLS: it refuses the parameter "
            "(555), and delivers as if nothing were required",
            "Use Postfix 3.11 or later, or the recipe for older ones "
            f"({RECIPE}): it sends what rules ask for by a transport that verifies.",
        )
        return
    if not is_yes(main, "requiretls_enable"):
        yield warning(
            "requiretls",
            "requiretls_enable = no: Postfix refuses REQUIRETLS (555) and obeys none",
            "Set requiretls_enable = yes, its default.",
        )
        return
    yield ok("requiretls", f"Postfix {shown(postfix.version)} announces and obeys REQUIRETLS")
    for one in attachments:
        if one.service.program != "smtpd" or is_inner(one.service):
            continue
        why = _without_starttls(one.service.settings)
        if why:
            yield warning(
                "starttls",
                f"{one.service} offers no TLS ({why}): no client can request REQUIRETLS there",
                "Set smtpd_tls_security_level = may with a certificate (smtpd_tls_chain_files).",
            )
        words = split_list(one.service.settings.get("smtpd_discard_ehlo_keywords", "").lower())
        hidden = [word for word in ("starttls", "requiretls") if word in words]
        if hidden:
            yield warning(
                "starttls",
                f"{one.service} does not announce {' and '.join(hidden)} "
                "(smtpd_discard_ehlo_keywords): no client requests REQUIRETLS there",
                "Remove them from smtpd_discard_ehlo_keywords.",
            )


def _without_starttls(settings: Parameters) -> str:
    """Say why an smtpd offers no TLS; "" if it does."""
    level = settings.get("smtpd_tls_security_level", "").strip().lower()
    obsolete = any(is_yes(settings, name) for name in ("smtpd_use_tls", "smtpd_enforce_tls"))
    if level == "none" or (not level and not obsolete):
        return f"smtpd_tls_security_level = {level}" if level else "no smtpd_tls_security_level"
    certificates = ("smtpd_tls_chain_files", "smtpd_tls_cert_file", "smtpd_tls_eccert_file")
    if not any(settings.get(name, "none") not in ("", "none") for name in certificates):
        return "no certificate"
    return ""


# ---------------------------------------------------------------- where it is moved


def _route_in_place(config: Config, made: Mirror) -> str:
    """The transport to which such mail is moved, if Postfix and ``[mta]`` say the same; else ""."""
    moved_to: str = made.mta.get("route_transport", "")
    return moved_to if moved_to == config.mta.route_transport else ""


def _route(config: Config, made: Mirror) -> Iterator[Finding]:
    """Compare ``mta.route_transport`` with what milter_header_checks of Postfix do."""
    said, moved_to = config.mta.route_transport, made.mta.get("route_transport", "")
    if said and said != moved_to:
        really = f"moves it to {moved_to}" if moved_to else "does not move it"
        yield error(
            "route",
            f"mta.route_transport is {said}, but Postfix {really}: mail with route=requiretls is "
            "forecast for a transport by which it does not go",
            f"Let milter_header_checks move it to {said} ({RECIPE}), or set mta.route_transport = "
            f'"{moved_to}".',
        )
    elif moved_to and not said:
        yield warning(
            "route",
            f"milter_header_checks of Postfix move mail with route=requiretls to {moved_to}, but "
            "mta.route_transport is empty: it is forecast for the transport that Postfix names "
            "before",
            f'Set mta.route_transport = "{moved_to}". {SEE_IMPORT}',
        )
    elif moved_to:
        profile = Config.model_validate({"mta": made.mta}).mta.profile_for(moved_to)
        level = profile.tls_security_level
        if _verifies(profile):
            yield ok("route", f"mail with route=requiretls goes by {moved_to}, at level {level}")
        else:
            yield error(
                "route",
                f"mail with route=requiretls goes by {moved_to}, but at level {level} Postfix "
                "verifies no certificate: it may go out in clear",
                f"For {moved_to} set -o smtp_tls_security_level=dane-only in master.cf ({RECIPE}).",
            )


def _verifies(profile: MtaProfile) -> bool:
    """Whether Postfix verifies certificates, of some domains at least."""
    return must_match(profile.tls_security_level) or profile.mta_sts is not MtaSts.OFF


# ---------------------------------------------------------------- what goes out


def _requirement_out(postfix: Postfix, made: Mirror) -> Iterator[Finding]:
    """Check that Postfix can deliver any REQUIRETLS mail at all."""
    if not is_yes(postfix.settings, "requiretls_enable"):
        return
    transport = postfix.settings.get("default_transport", "smtp").partition(":")[0] or "smtp"
    mta = Config.model_validate({"mta": made.mta}).mta
    profile = mta.profile_for(mta.carrier(transport, Requirement.REQUIRETLS))
    elsewhere = requiretls_policy(profile, "a-domain-elsewhere.invalid")
    level = profile.tls_security_level
    if elsewhere is RequiretlsPolicy.ENFORCE and not _verifies(profile):
        yield warning(
            "level",
            f"At smtp_tls_security_level = {level} Postfix verifies no certificate: it bounces "
            "every REQUIRETLS message for other sites (5.7.10)",
            "Set smtp_tls_security_level = dane and smtp_dns_support_level = dnssec, with a "
            "resolver on this host that validates; add an MTA-STS policy service.",
        )
    elif elsewhere is RequiretlsPolicy.INVALID:
        yield error(
            "level",
            "smtp_requiretls_policy has a word that Postfix does not know: it defers every "
            "REQUIRETLS message (4.7.10)",
            "Correct smtp_requiretls_policy.",
        )
    else:
        yield ok(
            "level",
            f"REQUIRETLS mail for other sites is delivered at level {level} with policy "
            f"{elsewhere.value}",
        )
