"""The requirement of a message, read from its envelope and its header. Pure.

Two things are kept apart. *Asked* is what the sender or the operator wants.
*Carried* is the requirement on which the MTA acts itself: an MTA acts only on what it
received, and nothing that a milter adds or removes changes that. What is asked is
taken from the first of these sources that asks anything (RFC 8689 section 4.1: the
MAIL parameter wins over the header field):

- ``REQUIRETLS`` among the MAIL parameters;
- ``Require-TLS-ESMTP: yes``, which Postfix 3.11 adds to each message received
  with REQUIRETLS, and obeys from anyone;
- a rule of the operator;
- ``TLS-Required: No``.

Header fields come from strangers: they are compared as bytes and never decoded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from requiretls_milter.model import Capability, ProfileName, Requirement, Source

PARAMETER = b"REQUIRETLS"
"""RFC 8689 section 2 item 4: no value is associated with it."""

TLS_REQUIRED = "tls-required"
REQUIRE_TLS_ESMTP = "require-tls-esmtp"
RECEIVED = "received"
FIELDS = frozenset({TLS_REQUIRED, REQUIRE_TLS_ESMTP, RECEIVED})
"""Names of the header fields that matter, in lower case; the tag's name besides."""

MAX_TAG_BYTES = 1000
"""Octets of an earlier tag that are searched: this milter's tags are shorter."""

# Blanks as isspace(3) has them: Postfix skips these before the word. RFC 8689
# section 3 allows FWS, which they include, and nothing after the word.
_NO = re.compile(rb"[ \t\r\n\v\f]*no", re.IGNORECASE)
_YES = re.compile(rb"[ \t\r\n\v\f]*yes", re.IGNORECASE)
_RECEIVED_REQUIRETLS = re.compile(rb"\(\s*requiretls\s*\)", re.IGNORECASE)
_TAG_REQUIRETLS = re.compile(rb"(?:^|[\s;])requirement\s*=\s*requiretls(?:[\s;]|$)", re.IGNORECASE)


def asks_requiretls(parameters: Iterable[bytes]) -> bool:
    """Whether REQUIRETLS is among the MAIL parameters: any case, and no value (R1).

    The parameter counts whatever the TLS macros say: the MTA refuses it outside
    TLS, and passes on only what it accepted (R2).
    """
    for parameter in parameters:  # any() would take three times as long
        if len(parameter) == len(PARAMETER) and parameter.upper() == PARAMETER:
            return True
    return False


def is_tls_required_no(value: bytes) -> bool:
    """Whether a ``TLS-Required`` field says exactly ``No`` (RFC 8689 section 3, R8)."""
    return _NO.fullmatch(value) is not None


@dataclass(slots=True)
class HeaderFindings:
    """What the header of one message says, field by field as it comes in.

    Attributes:
        tag_name: the name of the tag's field, in lower case.
        tls_required_no: TLS-Required fields that say No.
        tls_required_malformed: TLS-Required fields that say anything else.
        require_tls_esmtp: whether a field ``Require-TLS-ESMTP: yes`` was there.
        received_requiretls: whether a Received field has the comment ``(requiretls)``.
        tags: copies of the tag's field, forged or of an earlier pass.
        tag_requiretls: whether one of them says ``requirement=requiretls``.
        non_ascii: whether any field has characters beyond ASCII; looked at only if
            :attr:`~requiretls_milter.milter.transaction.Transaction.may_need_smtputf8`.
    """

    tag_name: str
    tls_required_no: int = 0
    tls_required_malformed: int = 0
    require_tls_esmtp: bool = False
    received_requiretls: bool = False
    tags: int = 0
    tag_requiretls: bool = False
    non_ascii: bool = False

    def add(self, name: str, value: bytes) -> None:
        """Take a field; ``name`` in lower case, without blanks before the colon."""
        if name == RECEIVED:
            if not self.received_requiretls:
                self.received_requiretls = _RECEIVED_REQUIRETLS.search(value) is not None
        elif name == self.tag_name:
            self.tags += 1
            if not self.tag_requiretls and _TAG_REQUIRETLS.search(value[:MAX_TAG_BYTES]):
                self.tag_requiretls = True
        elif name == TLS_REQUIRED:
            if is_tls_required_no(value):
                self.tls_required_no += 1
            else:
                self.tls_required_malformed += 1
        elif name == REQUIRE_TLS_ESMTP and _YES.fullmatch(value):
            self.require_tls_esmtp = True

    @property
    def unremarkable(self) -> bool:
        """Whether nothing was found that matters."""
        return not (
            self.tags
            or self.tls_required_no
            or self.tls_required_malformed
            or self.require_tls_esmtp
            or self.received_requiretls
        )

    def tls_required(self, profile: ProfileName) -> bool:
        """Whether the message says ``TLS-Required: No``, as an MTA of ``profile`` reads it (R9).

        More than one field is a violation of RFC 8689 section 3. Postfix honours a
        valid one whatever the others say. By the letter of the RFC, a message that also
        says something else does not say No.
        """
        if profile is ProfileName.RFC8689 and self.tls_required_malformed:
            return False
        return self.tls_required_no > 0


@dataclass(frozen=True, slots=True)
class Asked:
    """The requirement for a recipient, where it was found, and what the MTA carries of it."""

    requirement: Requirement
    source: Source
    carried: Requirement


NOTHING_ASKED = Asked(Requirement.NONE, Source.NONE, Requirement.NONE)


def resolve(
    findings: HeaderFindings,
    *,
    esmtp: bool,
    rule_requires: bool,
    capability: Capability,
    esmtp_header: bool,
    profile: ProfileName,
) -> Asked:
    """What is asked and what is carried, as far as it is known now (R2, R10, R15).

    Args:
        findings: the header so far; empty before it came.
        esmtp: REQUIRETLS was among the MAIL parameters.
        rule_requires: a rule with ``require = true`` matches.
        capability: the requirements that the MTA carries itself.
        esmtp_header: ``mta.requiretls_esmtp_header``.
        profile: how the MTA reads several TLS-Required fields.
    """
    by_header = esmtp_header and findings.require_tls_esmtp
    says_no = findings.tls_required(profile)

    if capability is Capability.REQUIRETLS and (esmtp or by_header):
        carried = Requirement.REQUIRETLS  # RFC 8689 section 4.1: the field is ignored then (R10)
    elif capability is not Capability.NOTHING and says_no:
        carried = Requirement.TLS_REQUIRED_NO
    else:
        carried = Requirement.NONE

    if esmtp:
        return _asked(Requirement.REQUIRETLS, Source.ESMTP, carried)
    if by_header:
        return _asked(Requirement.REQUIRETLS, Source.REQUIRE_TLS_ESMTP, carried)
    if rule_requires:
        return _asked(Requirement.REQUIRETLS, Source.RULE, carried)
    if says_no:
        return _asked(Requirement.TLS_REQUIRED_NO, Source.TLS_REQUIRED, carried)
    return NOTHING_ASKED


_asked = functools.cache(Asked)
"""The same answer is the same object: there are few."""


def is_lost(findings: HeaderFindings, *, esmtp: bool, esmtp_header: bool) -> bool:
    """Whether REQUIRETLS was asked earlier on the path and is not asked any more (R17).

    By RFC 8689 section 6 a message that is sent on should keep its requirement. The
    RFC defines no trace of a lost one, but there are three: a comment
    ``(requiretls)`` in a Received field, as mox writes it (Postfix writes none);
    Postfix's ``Require-TLS-ESMTP``, if it is not honoured here; and a tag of
    this milter. All of them can be forged: this is to be counted, not obeyed.
    """
    if esmtp or (esmtp_header and findings.require_tls_esmtp):
        return False
    return findings.require_tls_esmtp or findings.received_requiretls or findings.tag_requiretls
