"""Evidence: what DNS, policy hosts and mail servers say, as plain values.

This package does everything that touches the network: DNS lookups, MTA-STS policies,
SMTP probes. It finds out and does not judge. What it finds are frozen values of
:mod:`requiretls_milter.model`; :mod:`requiretls_milter.forecast`, which does no I/O, says
what they mean for a delivery.

A failure is evidence too: nothing here raises for what the network does. A timeout, a
refusal and a malformed reply are told apart from "there is none", because an attacker
on the path can cause them. If a failed lookup counted as "no records", suppressing a
packet would switch the protection off.

What is gathered for a domain
-----------------------------
Mail for example.org goes to its MX hosts, best preference first. For each host the MTA
looks up addresses, connects, says EHLO and may start TLS. A domain can tell senders in
two ways to deliver its mail to its own servers over TLS only:

DANE (RFC 7672)
    With DNSSEC the zone is signed. A TLSA record at ``_25._tcp.mx.example.org`` says
    which certificate or key the server presents. A sender can rely on the record only if each
    answer on the way to it is validated: the MX records, the addresses, each CNAME, the
    TLSA records. The resolver validates, and sets the AD bit in a validated answer. So
    :mod:`~requiretls_milter.evidence.dns` keeps that bit with each answer, and
    :mod:`~requiretls_milter.evidence.selftest` tests whether the resolver really validates.
    :mod:`~requiretls_milter.evidence.tlsa` finds the name at which the records are looked
    up if a host is an alias.

MTA-STS (RFC 8461)
    Without DNSSEC the domain publishes a policy over HTTPS, at
    ``https://mta-sts.example.org/.well-known/mta-sts.txt``, which names its MX hosts. The
    web's certification authorities vouch for it. A TXT record says that there is a
    policy and when it changed; senders keep a policy for up to a year, so that an
    attacker who suppresses the TXT record gains nothing
    (:mod:`~requiretls_milter.evidence.mta_sts`).

The rest is what a server does: whether it answers, offers STARTTLS, which certificates it
presents, and whether it offers REQUIRETLS *inside* TLS, the only place where the keyword
proves anything (RFC 8689 section 2). :mod:`~requiretls_milter.evidence.probe` goes through a
session up to that point, as Postfix would, and says QUIT.

Which module does what
----------------------
:mod:`~requiretls_milter.evidence.gathering` is the plan: which questions are put, and in
which order. :mod:`~requiretls_milter.evidence.collector` is the live source that answers
them; the engine wraps it in a cache. Servers to probe are chosen by
:mod:`requiretls_milter.forecast.reach`, as Postfix chooses them.

Strangers control what DNS and servers say. So replies are bounded in size and time,
only public addresses and those that the operator allows are contacted
(:mod:`~requiretls_milter.evidence.addresses`), and neither one domain nor all of them
together can cause more sessions than a limiter allows (:mod:`~requiretls_milter.evidence.turns`).
"""
