"""What the commands find out and how they word it: ``check``, ``audit``, ``report`` and others.

- ``check``: :mod:`~requiretls_milter.reports.live` takes next hops as they come and prints each
  as soon as it is known. :mod:`~requiretls_milter.reports.finder` gets the evidence, from a running
  engine or by gathering it; :mod:`~requiretls_milter.reports.assess` has several assessed at once;
  :mod:`~requiretls_milter.reports.check` makes the JSON object of a next hop from it;
  :mod:`~requiretls_milter.reports.check_text` prints that object for people, and
  :mod:`~requiretls_milter.reports.tally` says it in one line, and all of them in a few.
  Both are put on the terminal by :mod:`~requiretls_milter.reports.printing`.
  What the MTA of this host carries is told by :mod:`~requiretls_milter.reports.carrying`.
- ``check --inbound``: :mod:`~requiretls_milter.reports.inbound` looks at our own domains.
- ``simulate``: :mod:`~requiretls_milter.reports.simulate` sends one message through the milter's
  own code; :mod:`~requiretls_milter.reports.expanding` says what its recipient becomes if tables
  have to be asked.
- ``status``: :mod:`~requiretls_milter.reports.status` words what a running service tells of itself.
- ``report`` without options runs the same for each configured domain
  (:mod:`~requiretls_milter.reports.report_text`).
- ``report`` with logs or a list: :mod:`~requiretls_milter.reports.traffic` finds where the mail
  went, :mod:`~requiretls_milter.reports.readiness` has each next hop assessed, and
  :mod:`~requiretls_milter.reports.readiness_text` prints what
  :mod:`requiretls_milter.readiness` makes of it.
- ``report --would-have``: :mod:`~requiretls_milter.reports.would_have` decides logged mail again
  under stricter modes.
- ``audit``: :mod:`~requiretls_milter.reports.audit` compares logged forecasts with logged
  deliveries, which :mod:`~requiretls_milter.reports.following` brings together;
  :mod:`~requiretls_milter.reports.audit_follow` does so while they are logged.
- ``config explain``: :mod:`~requiretls_milter.reports.explain` shows which table of ``[rules]``
  each value comes from.
- ``export``: :mod:`~requiretls_milter.reports.export` writes the rules as lookup tables of Postfix.

:mod:`~requiretls_milter.reports.observation` is evidence with how it was come by, and
:mod:`~requiretls_milter.reports.ages` says how long ago that was.

Everything here is pure but for ``live``, ``finder``, ``assess``, ``expanding``, ``hopfile``,
``progress``, ``inbound`` and :mod:`~requiretls_milter.reports.logs`, the one reader of logs for all
reports.
"""
