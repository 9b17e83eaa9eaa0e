"""Run all checks, in order."""

from __future__ import annotations

from requiretls_milter.config import Config, exposures, warnings
from requiretls_milter.doctor import aliases, host, mta
from requiretls_milter.doctor.finding import Finding, ok, warning
from requiretls_milter.mirror.postconf import Postconf, PostconfError, Postfix
from requiretls_milter.mirror.section import Mirror, mirror
from requiretls_milter.model import ProfileName
from requiretls_milter.reports import effect


def run(
    config: Config,
    *,
    postconf: str,
    config_dir: str,
    outside: str,
) -> list[Finding]:
    """Run all checks; this takes as long as DNS and the server outside take.

    Args:
        config: the configuration that the service should run with.
        postconf: the command line of postconf, see :class:`Postconf`.
        config_dir: the directory of main.cf, or "", see :class:`Postconf`.
        outside: a mail server on another network, or "".
    """
    findings: list[Finding] = []
    postfix, mirrored = _postfix(config, findings, postconf, config_dir)
    if postfix is not None and mirrored is not None:
        findings += mta.examine(config, postfix, mirrored)
        findings += host.socket_permissions(config, postfix, list(mta.attached(config, postfix)))
    findings += aliases.examine(config)
    findings.append(host.milter_answers(config))
    findings += host.service(config)
    findings.append(host.metrics(config))
    findings += host.resolvers(config, postfix, mirrored)
    findings += host.authorities(config, postfix, mirrored)
    findings.append(host.outside(outside, config))
    findings += (
        warning("configuration", text, "See docs/configuration.md.")
        for text in (*warnings(config), *exposures(config), *effect.warnings(config))
    )
    return findings


def _postfix(
    config: Config, findings: list[Finding], postconf: str, config_dir: str
) -> tuple[Postfix, Mirror] | tuple[None, None]:
    """Read the Postfix of this host and mirror it; if there is none, add a finding that says so."""
    try:
        postfix = Postconf(postconf, config_dir).read()
    except PostconfError as problem:
        if config.mta.profile is ProfileName.POSTFIX:
            findings.append(
                warning(
                    "postfix",
                    f"the MTA could not be examined: {problem}",
                    "Run doctor on the MTA's host, or name its Postfix by --postconf and "
                    "--config-dir.",
                )
            )
        else:
            findings.append(ok("postfix", f"no Postfix is examined: {problem}"))
        return None, None
    findings.append(ok("postfix", f"Postfix {postfix.version}"))
    return postfix, mirror(postfix)
