"""What the service says of itself: log lines and metrics.

Every process logs to stderr (:mod:`.log`). Metrics are declared in one :mod:`.catalogue`, with
label values from the closed sets of :mod:`.labels`. A process counts in plain Python
(:mod:`.counting`) and reports cumulative totals; the engine adds those of all processes up, dead
ones included (:mod:`.aggregate`), and shows them to Prometheus
(:mod:`requiretls_milter.engine.web.exposition`).

Names, keys, labels and ``event=`` words are contracts: operators' alerts and scripts rely on them.
Strangers cannot create any: values that they choose are folded into closed sets or made printable
and bounded (R62).
"""
