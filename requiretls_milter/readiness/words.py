"""Every word and sentence that a report on readiness shows, whatever its form. Pure."""

from __future__ import annotations

from requiretls_milter.model import Capability, Reason
from requiretls_milter.readiness.days import MailSource
from requiretls_milter.readiness.figures import Answer, Count, Figures, Share
from requiretls_milter.readiness.values import HopState, Policy, Readiness, Step
from requiretls_milter.syntax.moments import day
from requiretls_milter.syntax.text import quantity

STATES = {
    HopState.READY: "delivered with REQUIRETLS",
    HopState.NONCOMPLIANT: "delivered, but not as RFC 8689 requires",
    HopState.BOUNCE: "returned to the sender",
    HopState.DEFER: "kept in the queue for now",
    HopState.UNKNOWN: "not known",
}
"""What would become of a message."""

STEPS = {
    Step.MX_NAME: "sign the MX records with DNSSEC, or publish an MTA-STS policy in mode enforce",
    Step.STARTTLS: "offer STARTTLS that works",
    Step.CERTIFICATE: "present a certificate that verifies (TLSA or a public authority)",
    Step.STRONG_TLS: "use TLS as strong as RFC 9325 demands",
    Step.REQUIRETLS: "offer REQUIRETLS",
    Step.OWN_SETTINGS: "our own MTA: its settings do not allow it",
}
"""What is to be done, by the next hop but for the last one."""

LACKS = {
    Step.MX_NAME: "DNSSEC or MTA-STS",
    Step.STARTTLS: "STARTTLS",
    Step.CERTIFICATE: "a certificate that verifies",
    Step.STRONG_TLS: "strong TLS",
    Step.REQUIRETLS: "REQUIRETLS",
    Step.OWN_SETTINGS: "nothing: our own MTA hinders",
}
"""What a next hop does not have, in short."""

POLICIES = {
    Policy.DANE: "DANE",
    Policy.MTA_STS: "MTA-STS",
    Policy.BOTH: "DANE and MTA-STS",
    Policy.NEITHER: "neither",
    Policy.UNKNOWN: "not known",
}

REASONS = {
    Reason.OK: "nothing",
    Reason.NONCOMPLIANT_UNVERIFIED: "delivered without verifying the server",
    Reason.NONCOMPLIANT_MX_INSECURE: "delivered although the MX records are not authenticated",
    Reason.NONCOMPLIANT_NOT_OFFERED: "delivered although the server does not offer REQUIRETLS",
    Reason.NONCOMPLIANT_NOT_CARRIED: "delivered without passing REQUIRETLS on",
    Reason.NONCOMPLIANT_WEAK_TLS: "delivered with TLS weaker than RFC 9325 allows",
    Reason.MX_LOOKUP_INSECURE: "MX records neither signed nor confirmed by MTA-STS",
    Reason.MX_NOT_IN_MTA_STS_POLICY: "the server is not in the MTA-STS policy",
    Reason.STARTTLS_NOT_OFFERED: "STARTTLS is not offered",
    Reason.STARTTLS_REFUSED: "STARTTLS is refused",
    Reason.TLS_HANDSHAKE_FAILED: "the TLS handshake fails",
    Reason.CERTIFICATE_NOT_VERIFIED: "the certificate does not verify",
    Reason.REQUIRETLS_NOT_OFFERED: "REQUIRETLS is not offered",
    Reason.TLS_LEVEL_DOES_NOT_VERIFY: "the TLS level of our MTA does not verify the server",
    Reason.MTA_POLICY_INVALID: "the REQUIRETLS policy of our MTA is not valid",
    Reason.POLICY_LOOKUP_FAILED: "DANE or MTA-STS could not be looked up",
    Reason.NO_TLSA_RECORDS: "no usable TLSA records, which our MTA demands",
    Reason.MX_UNSIGNED: "MX records not signed, as our MTA demands",
    Reason.DNS_FAILURE: "the DNS does not answer",
    Reason.NO_SUCH_DOMAIN: "no such domain",
    Reason.NULL_MX: "the domain accepts no mail",
    Reason.NEXTHOP_INVALID: "our MTA cannot use the next hop",
    Reason.MAIL_LOOP: "the mail would come back to us",
    Reason.UNREACHABLE: "no server can be reached",
    Reason.SERVER_REJECTS: "the server refuses us",
    Reason.SMTPUTF8_NOT_OFFERED: "SMTPUTF8 is not offered",
    Reason.MESSAGE_TOO_LARGE: "the message is too large",
    Reason.LOCAL: "delivered on this host",
    Reason.WITHHELD: "withheld",
    Reason.UNKNOWN: "nothing could be found out",
}
"""What stands in the way."""

SOURCES = {
    MailSource.LOG: "the mail in the log",
    MailSource.LIST: "the next hops of a list",
    MailSource.COUNTERS: "the configured domains",
}

UNKNOWN_WORD = "not known"
"""In the place of a word that a session would have told."""

NOT_VALIDATING = (
    "The resolver does not validate DNSSEC: nothing counts as signed, so that few next hops can be "
    "ready. Mend the resolver, and run the report again."
)


def title() -> str:
    """The question."""
    return "Can REQUIRETLS be switched on?"


def answer(report: Readiness, found: Figures) -> str:
    """The answer in one sentence."""
    today = "would be delivered with REQUIRETLS today"
    match found.answer:
        case Answer.YES:
            return f"Yes: {_part(found, 'all')} {today}."
        case Answer.PARTLY:
            return (
                f"Not for all mail: {_part(found, found.share.percent)} {today}, the rest would "
                f"not. It can be switched on for {quantity(found.ready.domains, 'next hop')} of "
                f"{found.total.domains:,}."
            )
        case Answer.NO:
            return f"No: {_part(found, 'none')} {today}."
        case Answer.UNKNOWN:
            if not report.destinations:
                return "Nothing is known: no next hop was assessed."
            return f"Nothing can be said: nothing is known of {_part(found, 'half')} or more."


def _part(found: Figures, part: str) -> str:
    return f"{part} of the mail" if found.counts_mail else f"mail to {part} of the next hops"


def period(report: Readiness) -> str:
    """What the report is about, and when that was."""
    what = SOURCES[report.source]
    if report.since is None or report.until is None:
        return what
    first, last = day(report.since), day(report.until)
    return f"{what} of {first}" if first == last else f"{what} from {first} to {last}"


def of(share: Share, word: str) -> str:
    """A share in numbers: ``1,000 of 1,204 recipients``."""
    return f"{share.part:,} of {quantity(share.whole, word)}"


def missing(steps: tuple[Step, ...] | None) -> str:
    """What a next hop lacks."""
    if steps is None:
        return UNKNOWN_WORD
    return "; ".join(LACKS[step] for step in steps) or "nothing"


def share_of(count: Count, found: Figures) -> str:
    """The share of mail that next hops have; "" if it is not known how much there is."""
    return Share(count.mail, found.total.mail).percent if found.counts_mail else ""


def mta_in_words(version: str, capability: Capability) -> str:
    """What an MTA is, and what it carries; *version* is empty if that is not known."""
    name = version or "the MTA of this host"
    if capability is Capability.REQUIRETLS:
        return f"{name}, which acts on REQUIRETLS itself"
    return f"{name}, which does not know REQUIRETLS: the milter alone sees to it"
