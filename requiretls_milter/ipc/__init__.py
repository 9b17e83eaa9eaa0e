"""How the processes of one service talk to each other.

The service is a tree of processes. A *supervisor* starts them and talks to each over a
*channel*, a socket pair that is made before the fork (:mod:`~requiretls_milter.ipc.control`,
:mod:`~requiretls_milter.ipc.child`). *Workers* speak the milter protocol with the MTA and know
nothing of the network; the one *engine* does all DNS, HTTPS and SMTP. A worker reaches the
engine over the engine's unix socket (:mod:`~requiretls_milter.ipc.client`), and so does the
command line (:mod:`~requiretls_milter.ipc.query`).

This package is what a worker needs of the engine, and it imports neither the engine nor
anything of the network. A worker that parses a stranger's mail therefore has no DNS, TLS or
HTTP library in its memory.

========================  ==================================================================
``framing``               length-prefixed frames, for both lines
``control``, ``child``    the supervisor's channel: JSON, both ends from one program
``wire``                  the messages on the engine's socket: strict JSON with a version
``client``                a worker's connection: never blocks a callback, keeps forecasts
``query``                 one question of the command line
``unixsocket``            clears the way for a listening unix socket
========================  ==================================================================

Two rules hold on both lines. What does not decode exactly is an error and ends the line: no
message is guessed at. And nothing waits without a bound: a peer that does not read is cut off
when too much is unsent, a peer that does not answer is given up at a deadline.

Exceptions say what to conclude: :class:`~requiretls_milter.ipc.framing.WireError` (this peer or
message is of no use), :class:`~requiretls_milter.ipc.control.ControlClosed` (the other process
is gone), :class:`~requiretls_milter.ipc.query.EngineUnavailable` (do without the engine),
:class:`~requiretls_milter.ipc.unixsocket.SocketError` (this process cannot serve).
"""
