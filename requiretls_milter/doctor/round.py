"""The doctor's round: everything that is looked at, in order."""

from __future__ import annotations

from requiretls_milter.config import Config, warnings
from requiretls_milter.doctor import host, mta
from requiretls_milter.doctor.finding import Finding, ok, warning
from requiretls_milter.mirror.postconf import Postconf, PostconfError, Postfix
from requiretls_milter.mirror.section import Mirror, mirror
from requiretls_milter.model import ProfileName


def run(config: Config, *, postconf: str, config_dir: str, outside: str) -> list[Finding]:
    """Look at everything; takes as long as DNS and the server outside take.

    Args:
        config: what the service should run with.
        postconf, config_dir: see :class:`Postconf`.
        outside: a mail server elsewhere, or "".
    """
    findings: list[Finding] = []
    postfix, made = _postfix(config, findings, postconf, config_dir)
    if postfix is not None and made is not None:
        findings += mta.examine(config, postfix, made)
        findings += host.socket_permissions(config, postfix, list(mta.attached(config, postfix)))
    findings.append(host.milter_answers(config))
    findings += host.service(config)
    findings.append(host.metrics(config))
    findings += host.resolvers(config, postfix, made)
    findings += host.authorities(config, postfix, made)
    findings.append(host.outside(outside, config))
    findings += (
        warning("configuration", text, "See docs/configuration.md.") for text in warnings(config)
    )
    return findings


def _postfix(
    config: Config, findings: list[Finding], postconf: str, config_dir: str
) -> tuple[Postfix, Mirror] | tuple[None, None]:
    """The Postfix beside us, with its mirror; where there is none, a finding says so."""
    try:
        postfix = Postconf(postconf, config_dir).read()
    except PostconfError as problem:
        if config.mta.profile is ProfileName.POSTFIX:
            findings.append(
                warning(
                    "postfix",
                    f"nothing of the MTA could be looked at: {problem}",
                    "Run doctor on the MTA's host; --postconf and --config-dir say where Postfix "
                    "is.",
                )
            )
        else:
            findings.append(ok("postfix", f"no Postfix is looked at: {problem}"))
        return None, None
    findings.append(ok("postfix", f"Postfix {postfix.version}"))
    return postfix, mirror(postfix)
