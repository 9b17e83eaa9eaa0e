"""How the processes of one service talk to each other.

The service is a tree of processes. *Workers* speak the milter protocol with the MTA and use no
network; the one *engine* does all DNS, HTTPS and SMTP. A *supervisor* starts them. There are two
kinds of connection between them:

- the *control channel* between the supervisor and each child, a socket pair that is made before
  the fork (:mod:`~requiretls_milter.ipc.control`, :mod:`~requiretls_milter.ipc.child`);
- the *engine's unix socket*, to which workers (:mod:`~requiretls_milter.ipc.client`) and the
  command line (:mod:`~requiretls_milter.ipc.query`) connect.

This package holds what both ends of a connection need, and it imports neither the engine nor a
network library. A worker that parses a stranger's mail therefore has no DNS, TLS or HTTP library
in its memory.

========================  ==================================================================
``framing``               length-prefixed frames, for both kinds of connection
``control``, ``child``    the control channel: JSON, both ends from one program
``wire``                  the messages on the engine's socket: strict JSON with a version
``client``                a worker's connection: never blocks a callback, keeps forecasts
``query``                 one question of the command line
``unixsocket``            opens a listening unix socket, and removes a stale one first
========================  ==================================================================

Two rules hold for both. A message that does not decode exactly is an error and ends the
connection: no message is guessed at. And nothing waits without a bound: a peer that does not read
is cut off when too much is unsent, a peer that does not answer is given up at a deadline.

Exceptions say what to conclude: :class:`~requiretls_milter.ipc.framing.WireError` (this peer or
message cannot be used), :class:`~requiretls_milter.ipc.control.ControlClosed` (the other process
is gone), :class:`~requiretls_milter.ipc.query.EngineUnavailable` (do without the engine),
:class:`~requiretls_milter.ipc.unixsocket.SocketError` (this process cannot serve).
"""
