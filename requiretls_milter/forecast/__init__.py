"""The forecast: a pure function of evidence, of what a message asks, and of the MTA's profile.

Nothing here does I/O or reads a clock; time is an argument. The same evidence always gives
the same forecast. So tests can compare it with recordings of a real Postfix, and the command
``check`` can judge again the evidence that the engine gathered.

The question
------------
A message that asks for REQUIRETLS (RFC 8689) must not be sent to a server unless four
things hold (section 4.2.1): the server's *name* is authentic, the server starts TLS, its
*certificate* proves that it has that name, and it offers REQUIRETLS inside TLS, by which
it promises to demand the same of the next server. If no server satisfies these conditions,
the message comes back to its sender. :func:`~requiretls_milter.forecast.judge.judge` says,
before the MTA accepts the message, what the delivery would end with.

The name is authentic if DNSSEC signs the MX records, or if an MTA-STS policy in mode
``enforce`` names the host (:mod:`~requiretls_milter.forecast.servers`,
:mod:`~requiretls_milter.forecast.mta_sts`). The certificate proves the name by DANE or
by PKIX (:mod:`~requiretls_milter.forecast.authentication`):

DANE
    A signed TLSA record says which certificate or key it must be. DANE-EE(3) names the
    server's own, and nothing else counts then, neither name nor date. DANE-TA(2)
    names an authority above it, to which the presented chain must lead; dates and names
    count (:mod:`~requiretls_milter.forecast.dane`). If there are usable TLSA records,
    no other proof counts.
PKIX
    Otherwise the chain must lead to a certification authority that the operator trusts,
    and name the MX host (:mod:`~requiretls_milter.forecast.pkix`).

"Encrypted but not verified" is never enough.

Evidence and judgement
----------------------
*Evidence* is what was seen, for all profiles the same; *judgement* is what it means for
one profile. An expired certificate is evidence, and so is a failed lookup. That the
certificate means 5.7.10, and the lookup a temporary failure, is judgement. Nothing in
evidence is called good or bad, and nothing in this package looks anything up.

Two profiles judge. ``rfc8689`` (:mod:`~requiretls_milter.forecast.rfc8689`) follows the RFC
to the letter. ``postfix`` (:mod:`~requiretls_milter.forecast.postfix`) follows Postfix
3.11, whose answer depends on its TLS level, its smtp_requiretls_policy and its tables
(:mod:`~requiretls_milter.forecast.profiles`). The forecast's ``status`` is what the MTA would
do, its ``compliant`` whether that satisfies the RFC: the two can differ
(:mod:`~requiretls_milter.forecast.strength` says what RFC 9325 demands of TLS). Sentences that both
profiles need are in :mod:`~requiretls_milter.forecast.sentences`.

How Postfix chooses among servers
---------------------------------
Postfix makes a list of all addresses of all MX hosts, best preference first. It leaves
out itself and all servers that are not better preferred, shuffles servers of equal
preference, and keeps smtp_mx_address_limit addresses (five), of IPv4 and of IPv6 in fair
shares. It tries them in turn. The first success, and some failures, end the delivery;
otherwise the last failure recorded decides. So the result may depend on chance, and the
text of such a forecast says so. :mod:`~requiretls_milter.forecast.reach` makes the list,
:mod:`~requiretls_milter.forecast.attempt` finds all results that are possible; its
docstring has a worked example.

Certificates
------------
:mod:`~requiretls_milter.forecast.certificate` reads one certificate,
:mod:`~requiretls_milter.forecast.path` verifies a chain by OpenSSL's own code, as the MTAs
do, and :mod:`~requiretls_milter.forecast.der` cuts out the octets that TLSA records are
about. To verify a chain takes milliseconds, so :mod:`~requiretls_milter.forecast.memo` keeps
results. A result that is kept must not depend on the time: therefore dates are checked
separately.

Values
------
A forecast is made for each recipient of each message for which something is asked, so that
its speed counts. Values of which each forecast makes several, such as the attempt at a
server, are named tuples: to make a frozen dataclass takes three times as long. The sets of
levels and policies stand in frozensets for the same reason.
"""
