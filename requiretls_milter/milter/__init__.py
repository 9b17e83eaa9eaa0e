"""Receiving mail: libmilter's callbacks, the state of one message, its requirement and its tag.

A worker process runs this package. It reads what hostile SMTP clients send, knows no network
besides the milter's socket, and gets its forecasts from the engine through a
:class:`.source.ForecastSource`.

The life of a message, callback by callback:

**Negotiation.** Once for each connection that the MTA opens to the milter, :mod:`.adapter` agrees
on actions and protocol flags: which events are skipped, which get no reply, which macros are sent.
The connection takes the configuration that is in force now and keeps it.

**Connect.** The client's address decides whether the client is trusted
(``milter.trusted_networks``).

**MAIL.** A :class:`.transaction.Transaction` begins. The parameter REQUIRETLS, if it is there, is
the strongest requirement. The macros tell whether the client has authenticated, and which MTA this
is, hence which requirements it *carries*, that is, acts on itself (:mod:`.requirement`).

**RCPT.** For ordinary mail, for which nothing is asked, nothing is looked up here. Otherwise the
recipient's next hop is read from the MTA's macros (:mod:`.hop`), the operator's rule is found
(:mod:`requiretls_milter.rules`), requirement and next hop make a *question*, and the engine is
asked (:mod:`.waiting`). The callback does not wait for the answer, unless the rule may defer or
refuse this recipient: then it waits at most ``decide_wait``, and replies.

**Header.** Each field's name is tested. Four names matter: TLS-Required, Require-TLS-ESMTP,
Received (which may show that a requirement was lost) and the name of the tag, since a tag that
comes in is forged or old.

**End of message.** All requirements are known now. If the header changed the requirement of a
recipient, its question is put again. Forecasts that are still missing are awaited, for
``tag_wait`` or, if a rule may act, ``decide_wait``; after that a forecast is ``unknown``. Then the
message is decided as a whole, since a milter cannot refuse single recipients here
(:func:`requiretls_milter.rules.decide_message`). If it passes, incoming tags are removed and the
tag is written (:mod:`.tag`), and the sender gets new ESMTP parameters if the configuration says so
(:mod:`.envelope`). What was done with the message is counted and logged (:mod:`.account`). How
often a recipient was put off for its route is remembered (:mod:`.splitting`).

**Abort, close.** A message all of whose recipients were refused at RCPT is counted here; a message
that the client gave up is not counted.

No exception leaves a callback: it is counted and logged (:mod:`.containing`), and the mail goes on,
unless a rule demands that a message be deferred when it cannot be judged.

Only :mod:`.adapter` and :mod:`.listener` know pymilter. Everything between them and the socket to
the engine does no I/O, and tests drive it without any process; only :mod:`.waiting` and
:mod:`.serving`, which says how many connections there are and how long callbacks take, read a
clock. :mod:`.process` is the worker process that runs all this.
"""
