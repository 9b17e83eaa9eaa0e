"""What outlives a restart, and what a fleet shares.

The engine keeps two things that cost others something to find out, or that an attacker must not
be able to take away: SMTP sessions with mail servers, and MTA-STS policies (RFC 8461 section
3.3). Beside them it keeps what each server offered before, to notice downgrades, and when the
next attempt at a failed server may be made. A *store* holds these as bytes, by kind and key,
each until a time. What the bytes mean is the engine's business
(:mod:`requiretls_milter.engine.records`).

Three kinds of store are configured by ``store.url``:

==========================  ================================================================
``memory:``                 for as long as the process runs (:mod:`~requiretls_milter.store.memory`)
``sqlite:///PATH``          one file on this host (:mod:`~requiretls_milter.store.sqlite`)
``redis://``, ``rediss://`` one Redis or Valkey for a fleet (:mod:`~requiretls_milter.store.redis`)
==========================  ================================================================

There are two protocols (:mod:`~requiretls_milter.store.base`). A *backend* reads and writes, and
each of its operations may fail or hang. A *store* is what the engine uses: it never makes the
engine wait for long and it does not fail.
:class:`~requiretls_milter.store.steady.SteadyStore` makes a store of a backend, with memory as
the stand-in for whatever the backend cannot do at the moment. A file or a Redis that is gone
therefore costs knowledge and never an answer.

Nothing that comes back is believed unseen. Each record carries a digest, which shows damage, and
two times, when it was written and until when it is good. Every reader applies the same rule to
them (:func:`~requiretls_milter.store.base.alive`): a clock that was set back, and a record that
seems to come from the future, make nothing live longer.

In a fleet several engines share one Redis. A *claim* says which engine is calling a server or
fetching a policy at the moment; the others wait for its record
(:mod:`requiretls_milter.engine.fleet`).

Exceptions: :class:`~requiretls_milter.store.base.StoreError` (the store knows nothing now),
:class:`~requiretls_milter.store.base.StoreDataError` (this one record does not exist),
:class:`~requiretls_milter.store.base.StoreUnwritableError` (it can be read, and not written).
"""
