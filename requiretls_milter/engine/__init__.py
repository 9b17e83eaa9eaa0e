"""The engine: the one process that touches the network, and answers the workers' questions.

A worker asks: what will become of a message that asks for REQUIRETLS, if the MTA sends it to this
next hop? The engine gathers *evidence* (what DNS says, the MTA-STS policy, one SMTP session with
each server), has it judged (:mod:`requiretls_milter.forecast`), and answers with a forecast,
always within the deadline. If the evidence cannot be had by then, the forecast is ``unknown``.

The way of a question. A *flight* is one lookup, fetch or session under way; the *shelf* holds what
was found before; a *fleet* is several engines that share one store::

    server        a request on the engine's unix socket
    answers       a forecast that is kept
    assessor      one answer for all that ask the same, a deadline, the judge
    gathering     all questions about one next hop, in order (evidence/gathering.py)
    cache         five questions: mx, mta_sts, addresses, tlsa, probe
      recordstore   is the answer in the store?
      reachability  the live source (evidence/collector.py), watched by outage
        turns         the place for which each lookup, fetch and session waits

:mod:`~requiretls_milter.engine.process` is the process itself. What it works with:

* :mod:`~requiretls_milter.engine.cache`: evidence that is kept, or being found.
* :mod:`~requiretls_milter.engine.turns`: whose session, lookup or fetch comes next.
* :mod:`~requiretls_milter.engine.domains`: the state of each configured domain.
* :mod:`~requiretls_milter.engine.watched`: our own servers, looked at from outside.
* :mod:`~requiretls_milter.engine.web`: metrics, pages and answers to probes over HTTP.

**The store and the fleet.** Sessions and policies are stored
(:mod:`~requiretls_milter.engine.records`, :mod:`~requiretls_milter.engine.recordstore`), so that a
restart calls no server again and no outage of DNS takes a policy away. Engines on several hosts may
share a store: each server is called once for all of them. Failed attempts are each host's own,
since the network of one host may be at fault. The history of reports is in the store, too
(:mod:`~requiretls_milter.engine.reportdays`).

**Outages of our own.** If many servers fail at once and none can be reached, the fault lies with
our own network, and no domain is judged by that (:mod:`~requiretls_milter.engine.outage`).

**Downgrades.** What a host or a domain offered until lately, and does not now, is told
(:mod:`~requiretls_milter.engine.downgrades`).

**Past its life.** A forecast may be given out for some time after its life
(:mod:`~requiretls_milter.engine.answers`), unless there was trouble since
(:mod:`~requiretls_milter.engine.troubles`); DNS alone can confirm it
(:mod:`~requiretls_milter.engine.confirming`).

**Recipients.** With ``mta.aliases = "ask"`` the engine finds out what Postfix makes of a recipient
(:mod:`~requiretls_milter.engine.expander`), and asks postmap(1) for what stands in no text
(:mod:`~requiretls_milter.engine.postmap`, run as :mod:`~requiretls_milter.engine.programs` says).

**How the engine is.** :mod:`~requiretls_milter.engine.readout` copies whatever is read of it from
what lives on the loop: for commands, Prometheus and browsers. For the commands
:mod:`~requiretls_milter.engine.condition` makes values of it;
:mod:`~requiretls_milter.engine.overview` says these in sentences, for ``status`` and for the status
page. :mod:`~requiretls_milter.engine.loop` tells how long one turn of the loop takes.

**Reload.** What belongs to a configuration is built anew and replaced as a whole
(:mod:`~requiretls_milter.engine.parts`); questions under way are answered under the old one. If the
resolver begins or ceases to validate, all evidence is dropped, and the workers are told to forget
their forecasts.

Exceptions, and what their catchers conclude:
:class:`~requiretls_milter.evidence.turns.BusyError` (too much is under way: the forecast is
``unknown``), :class:`~requiretls_milter.engine.records.RecordError` (these bytes are no record:
find out afresh), :class:`~requiretls_milter.engine.parts.StartError` and
:class:`~requiretls_milter.engine.web.certificate.CertificateError` (this configuration cannot be
used: give the start up, or refuse the reload).
"""
