"""Run all checks, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from requiretls_milter.config import Config, exposures, warnings
from requiretls_milter.doctor import (
    aliases,
    attachment,
    calling,
    host,
    mta,
    requirement,
    sendmail,
    sendmailcf,
    service,
    trust,
)
from requiretls_milter.doctor.finding import Finding, ok, warning
from requiretls_milter.doctor.sendmailcf import Sendmail, SendmailError
from requiretls_milter.doctor.trust import MtaAuthorities
from requiretls_milter.mirror.moved import tag_field
from requiretls_milter.mirror.postconf import Postconf, PostconfError, Postfix
from requiretls_milter.mirror.section import Mirror, mirror
from requiretls_milter.model import ProfileName
from requiretls_milter.reports import effect


class Where(NamedTuple):
    """Where the MTA of this host is.

    Attributes:
        postconf: the command line of postconf, see :class:`Postconf`.
        config_dir: the directory of main.cf, or "", see :class:`Postconf`.
        sendmail_cf: the configuration of Sendmail.
    """

    postconf: str = "postconf"
    config_dir: str = ""
    sendmail_cf: Path = sendmailcf.DEFAULT_PATH


def run(config: Config, where: Where, *, outside: str) -> list[Finding]:
    """Run all checks; this takes as long as DNS and the server outside take.

    Args:
        config: the configuration that the service should run with.
        where: the MTA.
        outside: a mail server on another network, or "".
    """
    findings: list[Finding] = []
    postfix: Postfix | None = None
    mirrored: Mirror | None = None
    authorities: MtaAuthorities | None = None
    if config.mta.profile is ProfileName.RFC8689 and os.path.exists(where.sendmail_cf):
        if (found := _sendmail(config, findings, where)) is not None:
            authorities = MtaAuthorities.of_sendmail(found)
    else:
        postfix, mirrored = _postfix(config, findings, where)
    if postfix is not None and mirrored is not None:
        findings += host.postfix_runs(postfix)
        findings += examine_postfix(config, postfix, mirrored)
        findings += host.socket_permissions(
            config, postfix, list(attachment.attachments(config, postfix))
        )
        authorities = MtaAuthorities.of_postfix(postfix, mirrored)
    findings += aliases.examine(config)
    findings.append(host.milter_answers(config))
    findings += service.examine(config)
    findings.append(service.metrics(config))
    findings += service.watch(config)
    findings += trust.resolvers(config, postfix, mirrored)
    findings += trust.authorities(config, authorities)
    findings.append(host.outside(outside, config))
    findings += (
        warning("configuration", text, "See docs/configuration.md.")
        for text in (*warnings(config), *exposures(config), *effect.warnings(config))
    )
    return findings


def examine_postfix(config: Config, postfix: Postfix, made: Mirror) -> Iterator[Finding]:
    """Compare the settings of a Postfix with the configuration. No I/O but realpath(3)."""
    attachments = list(attachment.attachments(config, postfix))
    yield from attachment.examine(config, postfix, attachments)
    yield from calling.examine(config, postfix, attachments)
    yield from requirement.examine(config, postfix, made, attachments)
    yield from mta.differences(config, postfix, made)


def _sendmail(config: Config, findings: list[Finding], where: Where) -> Sendmail | None:
    """Examine the Sendmail of this host; if that is not possible, add a finding that says so."""
    try:
        found = sendmailcf.read(where.sendmail_cf)
    except SendmailError as problem:
        findings.append(
            warning(
                "sendmail",
                f"the MTA could not be examined: {problem}",
                "Run doctor as root on the MTA's host, or name the file by --sendmail-cf.",
            )
        )
        return None
    findings += sendmail.examine(config, found)
    return found


def _postfix(
    config: Config, findings: list[Finding], where: Where
) -> tuple[Postfix, Mirror] | tuple[None, None]:
    """Read the Postfix of this host and mirror it; if there is none, add a finding that says so."""
    try:
        postfix = Postconf(where.postconf, where.config_dir).read(
            tag_field(config.milter.header_name)
        )
    except PostconfError as problem:
        if config.mta.profile is not ProfileName.POSTFIX:
            findings.append(ok("postfix", f"no Postfix is examined: {problem}"))
        elif os.path.exists(where.sendmail_cf):
            findings.append(
                warning(
                    "sendmail",
                    'mta.profile = "postfix", but there is no Postfix, and there is a Sendmail: '
                    "it is not forecast",
                    'Set mta.profile = "rfc8689", as docs/recipes/sendmail.md has it.',
                )
            )
        else:
            findings.append(
                warning(
                    "postfix",
                    f"the MTA could not be examined: {problem}",
                    "Run doctor on the MTA's host, or name its Postfix by --postconf and "
                    "--config-dir.",
                )
            )
        return None, None
    findings.append(ok("postfix", f"Postfix {postfix.version}"))
    return postfix, mirror(postfix)
