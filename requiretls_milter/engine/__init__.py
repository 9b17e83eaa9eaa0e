"""The engine: the one process that touches the network, and answers the workers' questions.

A worker asks: what will become of a message that asks for REQUIRETLS, if the MTA sends it to this
next hop? The engine gathers *evidence* (what DNS says, the MTA-STS policy, one SMTP session with
each server), has it judged (:mod:`requiretls_milter.forecast`), and answers with a forecast,
always within the deadline. If the evidence cannot be had by then, the forecast is ``unknown``.

The way of a question. A *flight* is one lookup, fetch or session under way; the *shelf* holds what
was found before; a *fleet* is several engines that share one store::

    server      a request on the engine's unix socket
    assessor    one answer for all that ask the same, a deadline, the judge
    gathering   all questions about one next hop, in order (evidence/gathering.py)
    cache       five questions: mx, mta_sts, addresses, tlsa, probe
      shelf         is the answer kept?
      flights       is it being found already?
      policies      MTA-STS: is a known policy still the same?
      attempts      did this fail lately, so that no new attempt may be made yet?
      recordstore   is it in the store?
      fleet         is another engine of the fleet finding it?
      reachability  the live source, watched by outage

**Two layers.** Many domains share few mail servers. What was seen of a host is kept by host and
address, what a domain publishes by domain. Because of the first layer ten thousand domains at one
provider cost one session; because of the second the policies of two domains are never mixed (R59).
Both keep evidence as octets (:mod:`~requiretls_milter.engine.packing`).

**Findings and failures.** What was found is kept for its TTL, for a day at most. A failure to find
something out proves nothing about a server. It is kept for a pause, and until the pause ends it is
the answer; each further failure doubles the pause (R61). So a server in trouble is not called
again and again, and a resolver that does not answer is never taken for "no records".

**Two clocks.** Everything that is kept has an end on the wall clock, by which TTLs, certificates
and other hosts go, and one on the monotonic clock, which cannot be set back. The earlier end counts
(:class:`requiretls_milter.clocks.Life`).

**The store and the fleet.** Sessions and policies are stored, so that a restart calls no server
again and no outage of DNS takes a policy away. Engines on several hosts may share a store: each
server is called once for all of them. Failed attempts are each host's own, since the network of
one host may be at fault.

**Outages of our own.** If many servers fail at once and none can be reached, the fault lies with
our own network, and no domain is judged by that (:mod:`~requiretls_milter.engine.outage`).

**Configured domains.** A domain that has a rule of its own is assessed every five minutes
(:mod:`~requiretls_milter.engine.domainwatch`), with the question that mail to it would put, given
where the routing sends it (:mod:`~requiretls_milter.engine.configured`) and what the MTA of this
host carries (:mod:`~requiretls_milter.engine.servedmta`). The answers become
metrics (:mod:`~requiretls_milter.engine.domainstate`), and lines of ``status``
(:mod:`~requiretls_milter.engine.domainrecord`, :mod:`~requiretls_milter.engine.condition`).

**What the service shows.** Metrics, pages and answers to probes come from one server
(:mod:`~requiretls_milter.engine.scrape`), which lets in so many clients
(:mod:`~requiretls_milter.engine.admission`). It copies values on the loop, and a thread renders
them: metrics (:mod:`~requiretls_milter.engine.exposition`,
:mod:`~requiretls_milter.engine.families`, :mod:`~requiretls_milter.engine.domainlines`), the status
page (:mod:`~requiretls_milter.engine.statuspage`), whose sentences ``status`` prints too
(:mod:`~requiretls_milter.engine.overview`), and the report
(:mod:`~requiretls_milter.engine.reportpage`), whose history is in the store
(:mod:`~requiretls_milter.engine.reportdays`). :mod:`~requiretls_milter.engine.health` says whether
the service is well.

**Recipients.** With ``mta.aliases = "ask"`` the engine finds out what Postfix makes of a recipient
(:mod:`~requiretls_milter.engine.expander`), and asks postmap(1) for what stands in no text
(:mod:`~requiretls_milter.engine.postmap`).

**Turns.** Sessions, lookups and fetches wait for a place (:mod:`~requiretls_milter.engine.shares`).
:mod:`~requiretls_milter.engine.schedule` decides whose turn it is, with the queues of
:mod:`~requiretls_milter.engine.tickets`. What was spent of the budgets outlives the engine
(:mod:`~requiretls_milter.engine.spending`).

**Past its life.** A forecast may be given out for some time after its life
(:mod:`~requiretls_milter.engine.answers`), unless there was trouble since
(:mod:`~requiretls_milter.engine.troubles`); DNS alone can confirm it
(:mod:`~requiretls_milter.engine.confirming`). Evidence that a gathering still holds is bounded as
that on the shelves is (:mod:`~requiretls_milter.engine.alive`).

**Our own servers.** Watched domains are looked at from outside in the same turns
(:mod:`~requiretls_milter.engine.ownservers`). What changes is told to a command
(:mod:`~requiretls_milter.engine.notifying`, run as :mod:`~requiretls_milter.engine.programs`
says), as the object that ``check --inbound`` prints
(:mod:`~requiretls_milter.engine.inboundreport`), and by mail
(:mod:`~requiretls_milter.engine.mailing`).

**Reload.** What belongs to a configuration is built anew and replaced as a whole
(:mod:`~requiretls_milter.engine.parts`); questions under way are answered under the old one. If the
resolver begins or ceases to validate, all evidence is dropped, and the workers are told to forget
their forecasts.

Exceptions, and what their catchers conclude:
:class:`~requiretls_milter.evidence.turns.BusyError` (too much is under way: the forecast is
``unknown``), :class:`~requiretls_milter.engine.records.RecordError` (these bytes are no record:
find out afresh), :class:`~requiretls_milter.engine.parts.StartError` and
:class:`~requiretls_milter.engine.certificate.CertificateError` (this configuration cannot be used:
give the start up, or refuse the reload).
"""
