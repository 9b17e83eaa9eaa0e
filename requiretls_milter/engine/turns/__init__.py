"""Turns: sessions, lookups and fetches wait for a place; each next hop has a fair share of them.

:mod:`~requiretls_milter.engine.turns.shares` is the limiter of each of the three resources. It does
what :mod:`~requiretls_milter.engine.turns.schedule` says, which decides whose turn it is without
I/O and without a clock, with the queues of :mod:`~requiretls_milter.engine.turns.tickets`. What was
spent of the budgets of addresses, networks and zones outlives the engine
(:mod:`~requiretls_milter.engine.turns.spending`).
"""
