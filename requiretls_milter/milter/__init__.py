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

**RCPT.** Ordinary mail, for which nothing is asked, costs nothing here. Otherwise the recipient's
next hop is read from the MTA's macros (:mod:`.hop`), the operator's rule is found
(:mod:`requiretls_milter.rules`), requirement and next hop make a *question*, and the engine is
asked. The answer is not awaited, unless the rule may defer or refuse this recipient: then the
callback waits at most ``decide_wait``, and replies.

**Header.** Each field's name is tested; three names matter, and the tag's own. TLS-Required,
Require-TLS-ESMTP, traces of a lost requirement and forged tags are noted.

**End of message.** All requirements are known now. If the header changed one, its question is
asked anew. Forecasts that are still missing are awaited, for ``tag_wait`` or, if a rule may act,
``decide_wait``; after that a forecast is ``unknown``. Then the message is decided: it is refused
only if every recipient would be, all alike. If it passes, forged tags are removed and the tag is
written (:mod:`.tag`), and the sender gets new ESMTP parameters if the configuration says so
(:mod:`.envelope`). What became of it is counted and logged (:mod:`.account`).

**Abort, close.** A message that was refused at every recipient is counted here; one that the
client gave up is not.

Whatever fails in a callback is contained: the exception is counted and logged, and the mail goes
on, unless a rule demands that a message be deferred when it cannot be judged.

Only :mod:`.adapter` and :mod:`.listener` know pymilter. Everything between them and the socket to
the engine is pure: it reads no clock and does no I/O, and tests drive it without any process.
:mod:`.process` is the worker around all this.
"""
