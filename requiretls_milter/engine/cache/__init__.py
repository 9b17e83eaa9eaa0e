"""The cache of evidence: what is kept, what is being found, and what may not be asked again yet.

:class:`~requiretls_milter.engine.cache.source.CachedSource` answers the five questions of an
evidence source (``mx``, ``mta_sts``, ``addresses``, ``tlsa``, ``probe``), in this order::

    shelf         is the answer kept?
    flights       is it being found already?
    policies      MTA-STS: is a known policy still the same?
    attempts      did this fail lately, so that no new attempt may be made yet?
    fleet         is another engine that shares the store finding it?

**Two layers.** Many domains share few mail servers. What was seen of a host is kept by host and
address, what a domain publishes by domain. Because of the first layer ten thousand domains at one
provider cost one session; because of the second the policies of two domains are never mixed (R59).
Both keep evidence as octets (:mod:`~requiretls_milter.engine.cache.packing`). Evidence that a
gathering still holds is bounded as that on the shelves is
(:mod:`~requiretls_milter.engine.cache.alive`).

**Findings and failures.** What was found is kept for its TTL, for a day at most. A failure to find
something out proves nothing about a server. It is kept for a pause, and until the pause ends it is
the answer; each further failure doubles the pause (R61). So a server in trouble is not called
again and again, and a resolver that does not answer is never taken for "no records".

**Two clocks.** Everything that is kept has an end on the wall clock, by which TTLs, certificates
and other hosts go, and one on the monotonic clock, which cannot be set back. The earlier end counts
(:class:`requiretls_milter.clocks.Life`).
"""
