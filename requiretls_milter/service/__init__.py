"""The service: a supervisor that starts, watches, reloads and stops the engine and the workers.

Processes as Postfix has them: a master, and small servers that each do one thing. The supervisor
opens the milter's socket and forks; the workers accept from that one socket and read mail
(:mod:`requiretls_milter.milter`); the engine asks DNS, policy hosts and mail servers
(:mod:`requiretls_milter.engine`). The workers use no network, the engine sees no mail, and the
supervisor neither uses the network nor sees mail.

The life of a service:

**Start.** The configuration is read and validated; a mistake ends the start with exit status 2. A
lock file beside the engine's socket keeps a second instance out (:mod:`.lockfile`). The socket is
opened *before* the forks, so that every process has the same one, with its group and mode set
before any client can connect. Each child gets the frozen configuration, its number (the
*generation*), and one end of a socket pair, the control channel
(:mod:`requiretls_milter.ipc.control`). When engine and all workers have said ``ready``, systemd is
told READY (:mod:`.sdnotify`).

**Watch.** Each child sends a heartbeat every second, which says whether the child is well. A
worker is not well while one of its callbacks takes longer than the configured waits. systemd's
watchdog is fed only while every child is healthy. A child that is silent, stuck or never ready is
killed (:class:`.spawn.Child`).

The files of the sockets are watched too: a cleaner may remove them (:mod:`.sockets`).

**Crash.** A child that dies, or that the supervisor killed, is replaced after 0.1 to 1 s. While
there is no engine, a question for which the worker keeps no forecast is answered ``unknown`` at
once. The engine sends the supervisor a *snapshot* of its counters now and then, and the next
engine begins with the last one. While a worker is gone, the others serve. Five deaths in ten
seconds are a crash loop (:mod:`.restarts`): the socket is closed and the supervisor exits, so that
the MTA's connections are refused and do not hang. A worker that has served and then crashes does
not count: a peer at its socket may be the cause. If the supervisor itself dies, the control
channels end, and the children end because of that; the kernel kills a child that hangs.

**Reload** (SIGHUP). All or nothing, the engine first: :mod:`.reload`.

**Drain** (SIGTERM, SIGINT). The path of the socket is removed, no new connection is accepted, open
connections may end, the engine ends last: :mod:`.drain`. A SIGINT during a drain ends everything
at once.

**Log.** No process waits for the reader of its log (:mod:`requiretls_milter.telemetry.output`).
What a child prints outside of its log, such as the traceback of a crash, reaches the log through
the supervisor (:mod:`.printed`).

**What others see.** :mod:`.title` is what ps(1) shows of each process, :mod:`.configfile` whether
the file still says what is in force, :mod:`.accounts` which users and groups of it do not exist.

The supervisor is one loop (:mod:`.supervisor`) that waits for three things: signals, which their
handlers only note (:mod:`.signals`), messages of children, and time.
"""
