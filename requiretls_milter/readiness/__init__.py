"""Can REQUIRETLS be switched on? The figures that answer it, and the page that shows them. Pure.

The question is put over the next hops that mail really goes to: what would become of it today if
all of it asked for REQUIRETLS.

- :mod:`.values`: what is known of each next hop, and all that a report rests on
  (:class:`.values.Readiness`).
- :mod:`.judging`: evidence and forecast become the readiness of one next hop, with the steps that
  it still lacks.
- :mod:`.figures`: shares, the answer in one sentence, what stands in the way, which next
  hops lack one step alone.
- :mod:`.words`: every word and sentence that a report shows.
- :mod:`.days`: the history, a report a day.
- :mod:`.page`: one self-contained HTML page, of :mod:`.sections`, :mod:`.charts`, :mod:`.tables`
  and a :mod:`.style`.

What was not found out is never counted as ready: a share is a part of all mail, also of that of
which nothing is known.
"""
