"""The service: a supervisor that starts, watches, reloads and stops the engine and the workers.

Processes as Postfix has them: a master, and small servers that each do one thing. The supervisor
opens the milter's socket and forks; the workers accept from that one socket and read mail
(:mod:`requiretls_milter.milter`); the engine looks around in the network
(:mod:`requiretls_milter.engine`). What reads SMTP has no network, what uses the network sees no
mail, and the supervisor has neither.

The life of a service:

**Start.** The configuration is read and validated; a mistake ends the start with exit status 2.
A lock file beside the engine's socket keeps a second instance out. The socket is opened *before*
the forks, so that every process has the same one, with its group and mode set before any client
can connect. Each child gets the frozen configuration, its generation, and one end of a socket
pair, the control line (:mod:`requiretls_milter.ipc.control`). When engine and all workers have said
``ready``, systemd is told READY (:mod:`.sdnotify`).

**Watch.** Each child sends a heartbeat every second, with whether it is well: a worker whose
callback takes longer than the configured waits is not. systemd's watchdog is fed only while every
child is healthy. A child that is silent, stuck or never ready is killed (:class:`.spawn.Child`).

**Crash.** A child that dies, by itself or by our hand, is replaced after 0.1 to 1 s. While the
engine is gone, the workers' forecasts are ``unknown`` at once; what it had counted goes to its
successor in a snapshot. While a worker is gone, the others serve. Five deaths in ten seconds are a
crash loop (:mod:`.restarts`): the socket is closed and the supervisor exits, so that the MTA
sees "refused" and not a hang. If the supervisor itself dies, the control lines end, and with them
the children; the kernel kills a child that hangs.

**Reload** (SIGHUP). All or nothing, the engine first: :mod:`.reload`.

**Drain** (SIGTERM, SIGINT). The socket's path goes, nothing is newly accepted, open connections
may end, the engine ends last: :mod:`.drain`. A second SIGINT ends everything at once.

**Log.** No process waits for the reader of its log (:mod:`requiretls_milter.telemetry.output`).
What a child prints outside of its log, such as the traceback of a crash, reaches the log through
the supervisor (:mod:`.printed`).

Everything happens in one loop (:mod:`.supervisor`) that waits for three things: signals, which are
only noted by their handlers (:mod:`.signals`), messages of children, and time.
"""
