"""Our own servers, as others see them: the domains of ``[watch]`` (docs/watch.md).

Each is looked at from outside, in the same turns as the next hops of mail
(:mod:`~requiretls_milter.engine.watched.ownservers`). What was found out is an object of JSON
(:mod:`~requiretls_milter.engine.watched.inboundreport`). What changes is told to a command
(:mod:`~requiretls_milter.engine.watched.notifying`) and by mail
(:mod:`~requiretls_milter.engine.watched.mailing`, whose letters
:mod:`~requiretls_milter.engine.watched.watchmail` writes).
"""
