"""What the service shows over HTTP: metrics, pages for people, and answers to probes.

All of it comes from one server (:mod:`~requiretls_milter.engine.web.scrape`), which lets in so many
clients (:mod:`~requiretls_milter.engine.web.admission`). It copies values on the loop, and a thread
renders them (:mod:`~requiretls_milter.engine.web.page`): metrics
(:mod:`~requiretls_milter.engine.web.exposition`, :mod:`~requiretls_milter.engine.web.families`,
:mod:`~requiretls_milter.engine.web.domainlines`, :mod:`~requiretls_milter.engine.web.processes`),
the status page (:mod:`~requiretls_milter.engine.web.statuspage`) and the report
(:mod:`~requiretls_milter.engine.web.reportpage`), which
:mod:`~requiretls_milter.engine.web.webpage` makes safe for a browser.
:mod:`~requiretls_milter.engine.web.health` says whether the service is well, and
:mod:`~requiretls_milter.engine.web.certificate` how the server speaks TLS.
"""
