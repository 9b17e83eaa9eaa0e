"""The engine: the one process that touches the network, and answers the workers' questions.

A worker asks: what will become of a message that asks for REQUIRETLS, if the MTA sends it to this
next hop? The engine gathers *evidence* (what DNS says, the MTA-STS policy, one SMTP session with
each server), has it judged (:mod:`requiretls_milter.forecast`), and answers with a forecast,
always within the deadline. If it does not know, it says ``unknown``.

The way of a question::

    server      a request on the engine's unix socket
    assessor    one answer for all that ask the same, a deadline, the judge
    gathering   the order of the questions about one next hop (evidence/gathering.py)
    cache       five questions: mx, mta_sts, addresses, tlsa, probe
      shelf         is the answer kept?
      flights       is it being found already?
      policies      MTA-STS: is a known policy still the same?
      attempts      did this fail a moment ago?
      recordstore   is it in the store?
      fleet         is another engine of the fleet finding it?
      reachability  the live source, watched by outage

**Two layers.** Many domains share few mail servers. What was seen of a host is kept by host and
address, what a domain publishes by domain. The first layer makes ten thousand domains at one
provider cost one session; the second never mixes the policies of two domains (R59).

**Findings and attempts.** What was found lives as long as its TTL, for a day at most. What could
not be found out is no verdict: it stands as the last attempt, and the pause until the next one
doubles (R61). So a server in trouble is not called again and again, and a lame resolver is never
taken for "no records".

**Two clocks.** Everything that is kept ends on the wall clock, which TTLs, certificates and other
hosts go by, and on the monotonic clock, which cannot be set back. Neither may prolong a life
(:class:`requiretls_milter.clocks.Life`).

**The store and the fleet.** Sessions and policies are stored, so that a restart calls no server
again and no outage of DNS takes a policy away. Engines on several hosts may share a store: each
server is called once for all of them. Failed attempts are each host's own, since the network of
one host may be at fault.

**Is it they or we?** If many servers fail at once and none can be reached, it is our own network,
and no domain is judged by that (:mod:`~requiretls_milter.engine.outage`).

**Reload.** What belongs to a configuration is built anew and replaced as a whole
(:mod:`~requiretls_milter.engine.parts`); questions under way end under the old one. When what is
trusted changes, workers are told to forget their forecasts.

Exceptions, and what their catchers conclude:
:class:`~requiretls_milter.engine.flights.BusyError` (too much is under way: the forecast is
``unknown``), :class:`~requiretls_milter.engine.records.RecordError` (these bytes are no record:
find out afresh), :class:`~requiretls_milter.engine.parts.StartError` and
:class:`~requiretls_milter.engine.scrape.CertificateError` (this configuration cannot be used:
give the start up, or refuse the reload).
"""
