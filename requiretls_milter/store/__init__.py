"""What outlives a restart, and what a fleet shares.

The engine stores two things: the results of SMTP sessions with mail servers, since each session is
a burden for the server, and MTA-STS policies, since an attacker must not be able to take them away
(RFC 8461 section 3.3). Beside them it stores what each server offered before, to notice downgrades,
and when the next attempt at a failed server may be made. A *store* holds these records as bytes, by
kind and key, each with an end. :mod:`requiretls_milter.engine.records` encodes and decodes them.

Three kinds of store are configured by ``store.url``:

==========================  ================================================================
``memory:``                 for as long as the process runs (:mod:`~requiretls_milter.store.memory`)
``sqlite:///PATH``          one file on this host (:mod:`~requiretls_milter.store.sqlite`)
``redis://``, ``rediss://`` one Redis or Valkey for a fleet (:mod:`~requiretls_milter.store.redis`)
==========================  ================================================================

It is opened by :mod:`~requiretls_milter.store.opening`. There are two protocols
(:mod:`~requiretls_milter.store.base`). A *backend* reads and writes, and each of its operations may
fail or hang. A *store* is what the engine uses: it never makes the engine wait for long and it does
not fail. :class:`~requiretls_milter.store.steady.SteadyStore` makes a store of a backend, with
memory as the stand-in for whatever the backend cannot do at the moment, or does too slowly
(:mod:`~requiretls_milter.store.slowness`). If the file or the Redis is gone, the engine therefore
has to find out again what was stored, but it answers every question.

Everything that comes back is checked. Each record carries a digest, which shows damage, and
two times, when it was written and until when it is good. Every reader applies the same rule to
them (:func:`~requiretls_milter.store.base.alive`): no record lives longer because a clock was set
back, or because the record seems to come from the future. The milters of a fleet may share a
secret: then the digest shows, too, that one of them wrote the record
(:mod:`~requiretls_milter.store.rediswire`).

In a fleet several engines share one Redis. A *claim* says which engine is calling a server or
fetching a policy at the moment; the others wait for its record
(:mod:`requiretls_milter.engine.cache.fleet`).

Exceptions, and what their catchers conclude: :class:`~requiretls_milter.store.base.StoreError` (the
store cannot be used now), :class:`~requiretls_milter.store.base.StoreDataError` (this one record
counts as missing), :class:`~requiretls_milter.store.base.StoreUnwritableError` (the store can be
read, but not written).
"""
