"""Read logs: the one way in for ``audit``, ``report --would-have`` and whatever comes.

A log is whatever an operator has at hand: a file of syslog or of the journal, the output of a
container, what a collector made of it, compressed or not, in any order, cut, damaged or hostile.
The way from there to what a report needs:

1. :mod:`~.sources` opens a log, tells its compression by its content and decompresses it;
2. :mod:`~.lines` cuts it into lines of bounded length (and entries of ``journalctl -o export``);
3. :mod:`~.events` finds in a line what the milter or Postfix wrote, behind whatever prefix or
   inside whatever JSON object; :mod:`~.times` reads the times, :mod:`~.milter` the milter's own
   words, :mod:`~.postfix` those of Postfix, :mod:`~.relay` the server in them;
4. :mod:`~.reading` puts the events of all logs into order of time;
5. :mod:`~.matching` tells whether the milter's words and Postfix's mean the same.

A command that is given no log reads :mod:`the usual ones <~.usual>` of this host.

A log that is followed while it is written comes through :mod:`~.growing`, over its rotations, and
:mod:`~.tailing`, which reads several at once; lines and events are the same.

Memory is bounded throughout: one line and one decompressor for each log that is open, and only
logs that overlap in time are open together.

Text in a log comes from strangers, too: a server's reply, a subject in another program's line. An
event is believed only if it begins where the message of a log line begins, see
:func:`.events.is_prefix`.
"""
