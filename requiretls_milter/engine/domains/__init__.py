"""Configured domains: how each domain with a rule of its own is, whether or not mail goes there.

Each is assessed every five minutes (:mod:`~requiretls_milter.engine.domains.watch`), with the
question that mail to it would put, given where the routing sends it
(:mod:`~requiretls_milter.engine.domains.configured`) and what the MTA of this host carries
(:mod:`~requiretls_milter.engine.domains.servedmta`). The answers become metrics
(:mod:`~requiretls_milter.engine.domains.state`), and lines of ``status``
(:mod:`~requiretls_milter.engine.domains.record`).
"""
