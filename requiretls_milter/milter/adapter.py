"""libmilter's callbacks: the only place that knows pymilter.

One process has one libmilter, hence one context. The supervisor opens the
socket and forks; each worker serves it::

    open_socket(config.milter)          # before the fork
    serve(WorkerContext(…))             # in a thread of the worker; blocks
    stop_accepting(); stop()            # from the worker's main thread

Each callback is plain Python: libmilter moves a connection between threads of
its own, on which neither thread-local state nor the GIL's C interface works as
elsewhere. No exception leaves a callback, whatever it derives from: it is
counted and logged, and the mail goes on, unless a rule wants it deferred where
nothing can be said of it.

What is told to the MTA at the negotiation, and why:

- no HELO, DATA, body and unknown commands are wanted, nor the end of the header:
  Postfix and Sendmail read a message to its end before they tell of its header,
  and the end of the message comes at once;
- connection, MAIL and header fields get no reply, which saves a round trip
  each. RCPT gets one even where no rule could refuse: an MTA
  keeps events without a reply until it wants one, and the assessment would not
  begin before the end of the message;
- the macros that are read are asked for, stage by stage, since such a list
  replaces the MTA's own (``{tls_version}`` is not among Postfix's for MAIL).

Log lines, with keys that stay as they are: ``event=negotiated`` (what the MTA agreed
to, once), ``event=callback_failed`` (a mistake of ours, with ``stage``),
``event=listening`` (the socket). What becomes of messages is in :mod:`.account`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import milter

from requiretls_milter.milter import account
from requiretls_milter.milter.listener import (
    SocketError,
    check_address,
    clear_path,
    listening,
    set_permissions,
)
from requiretls_milter.milter.requirement import capability
from requiretls_milter.milter.transaction import Client, Recipient, Settings, Transaction
from requiretls_milter.model import (
    Action,
    Decision,
    Forecast,
    SmtpReply,
    unknown_forecast,
)
from requiretls_milter.syntax.endpoint import parse_milter_socket
from requiretls_milter.syntax.text import printable
from requiretls_milter.telemetry.labels import Bound, Stage
from requiretls_milter.telemetry.log import get_logger

if TYPE_CHECKING:
    from requiretls_milter import config
    from requiretls_milter.milter.source import ForecastSource
    from requiretls_milter.telemetry.counting import Counters

NAME = "requiretls-milter"

BACKLOG = 128
"""Connections that wait to be accepted: a burst of as many SMTP sessions."""

MAX_REPLY = 980
"""Octets of one line of a reply that libmilter takes."""

ACTIONS = milter.ADDHDRS | milter.CHGHDRS | milter.SETSYMLIST
"""What we do to messages."""

ENVELOPE_ACTIONS = milter.CHGFROM
"""What we do besides, where the configuration wants the envelope changed."""

_NOT_WANTED = (
    milter.P_NOHELO | milter.P_NODATA | milter.P_NOEOH | milter.P_NOBODY | milter.P_NOUNKNOWN
)
_NO_REPLY = milter.P_NR_CONN | milter.P_NR_MAIL | milter.P_NR_HDR

WANTED = _NOT_WANTED | _NO_REPLY
"""Events that we can do without, and those that we do not answer."""

_CONTINUE = int(milter.CONTINUE)
_NOREPLY = int(milter.NOREPLY)

MACROS = (
    (milter.M_CONNECT, "j v {daemon_name}"),
    (milter.M_ENVFROM, "i {auth_authen} {tls_version} {mail_addr}"),
    (milter.M_ENVRCPT, "i {rcpt_mailer} {rcpt_host} {rcpt_addr}"),
    (milter.M_EOM, "i"),
)
"""What is read at each stage. The list of a stage replaces the MTA's own."""

_log = get_logger("milter.adapter")


@dataclass(slots=True)
class WorkerContext:
    """What a worker serves with.

    ``config`` may be replaced at any time: connections that begin later use
    the new one.
    """

    config: config.Config
    source: ForecastSource
    counters: Counters
    host_name: str


# ---------------------------------------------------------------- the process


@dataclass(slots=True)
class _Server:
    """The state of this process."""

    context: WorkerContext
    settings: Settings
    negotiated: tuple[int, int] | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)
    running: dict[int, float] = field(default_factory=dict)
    """Callbacks that may wait, by number: since when, on the monotonic clock."""
    transactions: set[int] = field(default_factory=set)
    """Connections in the middle of a message."""
    connections: set[int] = field(default_factory=set)
    """Connections that are open."""

    def current(self) -> Settings:
        """The settings of the configuration that is in force now."""
        if self.settings.config is not self.context.config:
            self.settings = Settings(self.context.config)
        return self.settings


_server: _Server | None = None
_listener: int | None = None
"""File descriptor of libmilter's listening socket."""
_stopping = threading.Event()


def open_socket(milter_config: config.Milter) -> None:
    """Open the socket on which the MTA calls; before the fork.

    The socket of a unix path gets its group and mode before anybody can
    connect; a socket that a dead process left behind is removed, one on which
    somebody listens is not (libmilter would take it over in silence). TCP
    sockets get TCP_NODELAY, which accepted connections inherit: libmilter does
    not set it, and Nagle's algorithm with delayed acknowledgements costs
    40 ms for each message that is changed.

    Raises:
        SocketError: it cannot be opened.
    """
    global _listener
    where = milter_config.socket
    parsed = parse_milter_socket(where)
    if parsed.family == "unix":
        clear_path(parsed.path)
    else:
        check_address(parsed.family, parsed.host, parsed.port)
    _register()
    before = listening()
    mask = os.umask(0o177)  # until group and mode are set, nobody else gets in
    try:
        milter.setconn(where)
        milter.setbacklog(BACKLOG)
        milter.opensocket(False)
        if parsed.family == "unix":
            set_permissions(
                parsed.path,
                owner=milter_config.socket_owner,
                group=milter_config.socket_group,
                mode=int(milter_config.socket_mode, 8),
            )
    except (milter.error, OSError) as error:
        raise SocketError(f"cannot open {where}: {error}") from error
    finally:
        os.umask(mask)
    opened = listening() - before
    if len(opened) != 1:
        raise SocketError(f"cannot open {where}: libmilter opened {len(opened)} sockets")
    _listener = opened.pop()
    # Several workers wait on it: one that comes too late must not block in accept(2).
    os.set_blocking(_listener, False)
    if parsed.family != "unix":
        with socket.socket(fileno=os.dup(_listener)) as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _log.info("listening", socket=where)


def serve(context: WorkerContext) -> None:
    """Answer the MTA until :func:`stop`; blocks.

    Runs in a thread of its own, so that the main one gets the signals.
    """
    global _server
    _server = _Server(context, Settings(context.config))
    _stopping.clear()
    milter.main()


def stop() -> None:
    """End :func:`serve`: libmilter cuts what is open and takes up to 5 s."""
    _stopping.set()
    milter.stop()


def stop_accepting() -> None:
    """Take no new connection in this process; those that are open go on.

    libmilter has no call for it: its listening descriptor is replaced by one
    that nobody can reach. Within 5 s libmilter notices.
    """
    if _listener is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nobody:
        nobody.bind("")  # an abstract address that the kernel chooses, unix(7)
        nobody.listen(1)
        nobody.setblocking(False)
        os.dup2(nobody.fileno(), _listener)


def refuse_connections() -> None:
    """Have the kernel refuse new connections at once; in the supervisor.

    For when every other process has stopped accepting. libmilter there still
    waits, up to 5 s, on the socket that it had, and keeps it open. It does not
    notice this: poll(2) looks a descriptor up anew each time it is woken.
    """
    if _listener is None:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(_listener)) as listener:
        listener.shutdown(socket.SHUT_RDWR)


def transactions_in_progress() -> int:
    """How many connections are in the middle of a message."""
    return len(_server.transactions) if _server is not None else 0


def connections_open() -> int:
    """How many connections the MTA holds open.

    An event that gets no reply may still lie with the MTA, which sends it with
    the next one: of a message that an MTA is receiving we may know nothing
    until its end, but for the connection.
    """
    return len(_server.connections) if _server is not None else 0


def longest_callback() -> float:
    """Seconds since the oldest callback began that has not returned; 0.0 if there is none."""
    if _server is None or not _server.running:
        return 0.0
    started = list(_server.running.values())
    return max(0.0, time.monotonic() - min(started)) if started else 0.0


def _register() -> None:
    milter.set_flags(ACTIONS | ENVELOPE_ACTIONS)
    milter.set_connect_callback(_connect)
    milter.set_envfrom_callback(_mail)
    milter.set_envrcpt_callback(_rcpt)
    milter.set_header_callback(_header)
    milter.set_eom_callback(_eom)
    milter.set_abort_callback(_abort)
    milter.set_close_callback(_close)
    # For what pymilter itself cannot decode, such as a field's name in 8 bits, and which
    # never gets to a callback. TEMPFAIL, its default, from an event without a reply would
    # make libmilter ignore the rest of the message, and the MTA wait for its end.
    milter.set_exception_policy(milter.CONTINUE)
    milter.register(NAME, negotiate=_negotiate)


# ---------------------------------------------------------------- one connection


class _Connection:
    """What is known of a connection with the MTA; libmilter keeps it for us."""

    __slots__ = (
        "client",
        "counters",
        "header_answer",
        "mta_name",
        "number",
        "protocol",
        "sender",
        "server",
        "settings",
        "transaction",
        "trusted",
    )

    def __init__(self, server: _Server, protocol: int) -> None:
        self.server = server
        self.settings = server.current()
        self.counters = server.context.counters
        self.header_answer = _CONTINUE
        self.agree(protocol)
        self.number = next(server.numbers)
        self.mta_name = ""
        self.client: Client | None = None
        self.trusted = False
        self.sender = b""
        self.transaction: Transaction | None = None

    def agree(self, protocol: int) -> None:
        """Take what was agreed on with the MTA."""
        self.protocol = protocol
        self.header_answer = _NOREPLY if protocol & milter.P_NR_HDR else _CONTINUE

    def begin(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.server.transactions.add(self.number)

    def end(self) -> None:
        self.transaction = None
        self.server.transactions.discard(self.number)


Callback = Callable[..., int]


def _contained(stage: Stage, no_reply: int = 0) -> Callable[[Callback], Callback]:
    """Make a callback of a function of (connection, ctx, …) that returns an answer.

    Args:
        stage: the callback's name, a label of ``callback_errors_total``.
        no_reply: the protocol flag by which the MTA waits for no answer.
    """

    def wrap(function: Callback) -> Callback:
        @functools.wraps(function)
        def callback(ctx: Any, *arguments: Any) -> int:
            try:
                connection = ctx.getpriv()
                if connection is None:
                    connection = _attach(ctx, 0)
                answer = function(connection, ctx, *arguments)
            except BaseException:  # noqa: BLE001 - SystemExit would end the process
                answer = _failed(stage, ctx)
                if no_reply:
                    connection = _priv(ctx)
                    if connection is not None and connection.protocol & no_reply:
                        return _NOREPLY
                return answer
            if connection.protocol & no_reply and answer == milter.CONTINUE:
                return _NOREPLY
            return answer

        return callback

    return wrap


def _priv(ctx: Any) -> _Connection | None:
    try:
        connection: _Connection | None = ctx.getpriv()
    except BaseException:  # noqa: BLE001 - asked only after something has failed already
        return None
    return connection


def _count_failure(stage: Stage) -> None:
    """Count and log the exception that is being handled."""
    with contextlib.suppress(BaseException):
        if _server is not None:
            _server.context.counters.inc("callback_errors_total", (stage,))
    with contextlib.suppress(BaseException):
        _log.exception("callback_failed", stage=stage)


@contextlib.contextmanager
def _apart(stage: Stage) -> Iterator[None]:
    """Around a part of a callback whose failure must not change the answer."""
    try:
        yield
    except BaseException:  # noqa: BLE001 - see _contained
        _count_failure(stage)


def _failed(stage: Stage, ctx: Any) -> int:
    """Count and log an exception of ours; what is answered in its place."""
    connection = _priv(ctx)
    _count_failure(stage)
    with contextlib.suppress(BaseException):
        message = connection.transaction if connection is not None else None
        if stage in (Stage.RCPT, Stage.EOM) and message is not None and message.doubt_defers():
            ctx.setreply("451", "4.3.0", "REQUIRETLS cannot be judged now")
            return int(milter.TEMPFAIL)
    return _CONTINUE


def _attach(ctx: Any, protocol: int) -> _Connection:
    if _server is None:
        raise RuntimeError("libmilter runs without serve()")
    connection = _Connection(_server, protocol)
    ctx.setpriv(connection)
    _server.connections.add(connection.number)
    return connection


def _negotiate(ctx: Any, options: list[int]) -> int:
    """Agree on actions, events and replies; ``options`` is changed in place."""
    try:
        actions, offered = options[0], options[1]
        connection = _attach(ctx, 0)
        connection.agree(WANTED & offered)
        if actions & milter.SETSYMLIST:
            for stage, names in MACROS:
                ctx.setsymlist(stage, names)
        wanted = _actions(connection.settings)
        options[:] = [actions & wanted, connection.protocol, 0, 0]
        _tell_negotiated(connection.server, wanted, actions, offered)
    except BaseException:  # noqa: BLE001 - pymilter would turn on every callback without a word
        _count_failure(Stage.NEGOTIATE)
        begun = _priv(ctx)
        if begun is not None:
            begun.agree(0)
        return int(milter.ALL_OPTS)
    return _CONTINUE


def _actions(settings: Settings) -> int:
    """What we do to messages with this configuration."""
    options = settings.config.milter
    changes = bool(options.envid_mark) or options.headers_only_bounces
    return int(ACTIONS | (ENVELOPE_ACTIONS if changes else 0))


def _tell_negotiated(server: _Server, wanted: int, actions: int, offered: int) -> None:
    """Log what an MTA agrees to: the first time, and when it is something else."""
    agreed = (actions & wanted, WANTED & offered)
    if server.negotiated == agreed:
        return
    complete = agreed == (wanted, WANTED)
    level = _log.info if complete and server.negotiated is None else _log.warning
    level(
        "negotiated",
        actions=f"{agreed[0]:#x}",
        protocol=f"{agreed[1]:#x}",
        missing_actions=f"{wanted & ~actions:#x}",
        missing_protocol=f"{WANTED & ~offered:#x}",
    )
    server.negotiated = agreed


# ---------------------------------------------------------------- callbacks


@_contained(Stage.CONNECT, milter.P_NR_CONN)
def _connect(connection: _Connection, _ctx: Any, _name: str, family: int, address: Any) -> int:
    if isinstance(address, tuple):
        connection.trusted = connection.settings.trusts(str(address[0]).removeprefix("IPv6:"))
    else:
        # A unix socket, of this host. Without any address: nobody that we know.
        connection.trusted = family == socket.AF_UNIX
    return _CONTINUE


@_contained(Stage.MAIL, milter.P_NR_MAIL)
def _mail(connection: _Connection, ctx: Any, sender: bytes, *parameters: bytes) -> int:
    _conclude(connection, ctx)
    authenticated = bool(_macro(ctx, "{auth_authen}"))
    client = connection.client
    if client is None or client.authenticated is not authenticated:
        client = connection.client = _client(connection, ctx, authenticated)
    connection.sender = sender
    resolved = _resolved(connection, ctx, client, "{mail_addr}")
    connection.begin(Transaction(connection.settings, client, _text(sender), parameters, resolved))
    return _CONTINUE


def _client(connection: _Connection, ctx: Any, authenticated: bool) -> Client:
    # Sent with the connection, and kept: that event may not have come through.
    connection.mta_name = _macro(ctx, "j")
    version = _macro(ctx, "v")
    return Client(
        authenticated=authenticated,
        trusted=connection.trusted,
        capability=capability(connection.settings.config.mta.carries, version),
        postfix=version.startswith("Postfix "),
    )


@_contained(Stage.RCPT)
def _rcpt(connection: _Connection, ctx: Any, address: bytes, *_parameters: bytes) -> int:
    message = connection.transaction
    if message is None:
        return _CONTINUE
    recipient = message.add_recipient(
        _text(address),
        _macro(ctx, "{rcpt_mailer}"),
        _macro(ctx, "{rcpt_host}"),
        _resolved(connection, ctx, message.client, "{rcpt_addr}"),
    )
    _ask(connection, recipient, Stage.RCPT)
    if not message.can_act(recipient) or recipient.rule is None:
        return _CONTINUE
    with _waiting(connection):
        forecast = _answer(connection, recipient, recipient.rule.decide_wait, Stage.RCPT)
    decision = message.decide_at_rcpt(recipient, forecast, time.time())
    if decision.reply is None:
        return _CONTINUE
    answer = _refuse(ctx, decision.reply)
    with _apart(Stage.RCPT):
        account.count_recipient(connection.counters, message, recipient)
        _tell_recipient(connection, ctx, message, recipient)
    return answer


def _header(ctx: Any, name: str, value: bytes) -> int:
    """The event that comes most often: not by way of _contained, and the name is tested first."""
    answer = _CONTINUE
    try:
        connection: _Connection | None = ctx.getpriv()
        if connection is None:
            return answer
        answer = connection.header_answer
        settings = connection.settings
        if name[:1] not in settings.initials:
            return answer
        key = name.lower().rstrip()  # RFC 5322 section 4.5.3: blanks before the colon
        if key in settings.fields and connection.transaction is not None:
            connection.transaction.add_field(key, value)
    except BaseException:  # noqa: BLE001 - see _contained
        _count_failure(Stage.HEADER)
    return answer


@_contained(Stage.EOM)
def _eom(connection: _Connection, ctx: Any) -> int:
    message = connection.transaction
    if message is None:
        return _CONTINUE
    if message.ordinary:
        connection.end()
        account.count_ordinary(connection.counters, message)
        return _CONTINUE
    with _apart(Stage.EOH):
        for recipient in message.end_of_header():
            _ask(connection, recipient, Stage.EOH)
    with _waiting(connection):
        deadline = time.monotonic() + message.patience()
        for recipient in message.undecided():
            forecast = _answer(connection, recipient, deadline - time.monotonic(), Stage.EOM)
            message.decide(recipient, forecast, time.time())
    decision = message.decide_message()
    if decision.reply is not None:
        answer = _refuse(ctx, decision.reply)
    else:
        _write_tag(connection, ctx, message)
        _change_sender(connection, ctx, message)
        answer = _CONTINUE
    with _apart(Stage.EOM):
        _finish(connection, ctx, message, decision)
    return answer


@_contained(Stage.ABORT)
def _abort(connection: _Connection, ctx: Any) -> int:
    _conclude(connection, ctx)
    return _CONTINUE


def _close(ctx: Any) -> int:
    # Not by way of _contained: a connection that never was shall not begin here.
    try:
        connection = ctx.getpriv()
        if connection is not None:
            connection.server.connections.discard(connection.number)
            _conclude(connection, ctx)
            ctx.setpriv(None)
    except BaseException:  # noqa: BLE001 - see _contained
        _count_failure(Stage.CLOSE)
    return _CONTINUE


# ---------------------------------------------------------------- what callbacks do


def _macro(ctx: Any, name: str) -> str:
    """A macro's value; "" where the MTA did not send it, or sent bytes that are no UTF-8."""
    try:
        value = ctx.getsymval(name)
    except UnicodeDecodeError:
        return ""
    return value if value is not None else ""


def _resolved(connection: _Connection, ctx: Any, client: Client, macro: str) -> str:
    """An address as the MTA understands it, where a rule may want to know its domain.

    Of Postfix alone, which knows ``example.org!bob`` and ``bob%example.org``; a
    ruleset of Sendmail's may have made anything of an address.
    """
    if connection.settings.simple or not client.postfix:
        return ""
    address = _macro(ctx, macro)
    return address if "@" in address else ""


def _text(octets: bytes) -> str:
    """An envelope address as text without surrogates, whatever bytes it has."""
    return octets.decode("utf-8", "backslashreplace")


def _ask(connection: _Connection, recipient: Recipient, stage: Stage) -> None:
    """Start the assessment, so that it runs while the message comes in."""
    if recipient.question is None:
        return
    with _apart(stage):  # if it fails the forecast is unknown, and the rule decides
        recipient.pending = connection.server.context.source.ask(recipient.question)


def _answer(
    connection: _Connection, recipient: Recipient, patience: float, stage: Stage
) -> Forecast | None:
    """The forecast, if it comes within ``patience`` seconds; None where none is asked for."""
    if recipient.question is None:
        return None
    pending = recipient.pending
    if pending is None:
        return unknown_forecast("the assessment could not be started")
    # Each callback that waits holds a thread of libmilter's.
    limits = connection.settings.config.limits
    if len(connection.server.running) > limits.callbacks and not pending.done():
        connection.counters.inc("saturated_total", (Bound.CALLBACKS,))
        return unknown_forecast("too many callbacks wait for a forecast")
    forecast = unknown_forecast("the assessment failed")
    started = time.monotonic()
    with _apart(stage):
        try:
            forecast = pending.result(max(0.0, patience))
        except TimeoutError:
            forecast = unknown_forecast("no forecast in time")
    recipient.waited = time.monotonic() - started
    connection.counters.observe("forecast_wait_seconds", recipient.waited)
    return forecast


@contextlib.contextmanager
def _waiting(connection: _Connection) -> Iterator[None]:
    """Mark a callback that may wait, for the watchdog."""
    running = connection.server.running
    running[connection.number] = time.monotonic()
    try:
        yield
    finally:
        running.pop(connection.number, None)


def _refuse(ctx: Any, reply: SmtpReply) -> int:
    """Answer with ``reply``.

    The class of the code and of the enhanced code are one: a mismatch makes
    Postfix drop the milter for the whole SMTP session.
    """
    kind = reply.code // 100
    enhanced = reply.enhanced if reply.enhanced.startswith(f"{kind}.") else f"{kind}.7.0"
    text = printable(reply.text, MAX_REPLY // 2)
    ctx.setreply(str(reply.code), enhanced, text.replace("%", "%%"))
    return int(milter.REJECT if kind == 5 else milter.TEMPFAIL)


def _write_tag(connection: _Connection, ctx: Any, message: Transaction) -> None:
    """Remove what bears our name, then put ours at the top.

    Deletions first: until something is inserted above it, the MTA's own
    Received field is not counted. From the last copy to the first one, since
    each deletion changes the number of those that follow.
    """
    settings = connection.settings
    for number in range(message.findings.tags, 0, -1):
        ctx.chgheader(settings.header_name, number, None)
    tag = message.tag()
    if tag is not None and (settings.config.milter.tag_leaving or not message.leaves):
        by = settings.config.milter.by or connection.mta_name or connection.server.context.host_name
        ctx.addheader(settings.header_name, tag.value(by), 0)


def _change_sender(connection: _Connection, ctx: Any, message: Transaction) -> None:
    """Give the sender new ESMTP parameters, where the configuration wants that.

    pymilter takes the sender as text only. One that is no UTF-8 raises: the
    message is then treated as one that we cannot judge.
    """
    parameters = message.new_parameters()
    if parameters:
        ctx.chgfrom(connection.sender.decode("utf-8"), parameters)


def _conclude(connection: _Connection, ctx: Any) -> None:
    """A message ends before its end: aborted, or refused recipient by recipient."""
    message = connection.transaction
    if message is None:
        return
    if message.all_refused:
        decisions = [r.decision for r in message.recipients if r.decision is not None]
        permanent = all(decision.action is Action.REJECT for decision in decisions)
        action = Action.REJECT if permanent else Action.DEFER
        account.count_message(connection.counters, message, action)
        account.tell_message(_identity(connection, ctx), message, action)
    connection.end()


def _finish(connection: _Connection, ctx: Any, message: Transaction, decision: Decision) -> None:
    """The message came to its end: count and tell."""
    connection.end()
    for recipient in message.accepted:
        account.count_recipient(connection.counters, message, recipient)
    account.count_message(connection.counters, message, decision.action)
    told = 0
    for recipient in message.accepted:
        if recipient.assessed and told < account.MAX_LOGGED_RECIPIENTS:
            _tell_recipient(connection, ctx, message, recipient)
            told += 1
    account.tell_message(_identity(connection, ctx), message, decision.action)


def _tell_recipient(
    connection: _Connection, ctx: Any, message: Transaction, recipient: Recipient
) -> None:
    tls_version = _macro(ctx, "{tls_version}")
    account.tell_recipient(_identity(connection, ctx), tls_version, message, recipient)


def _identity(connection: _Connection, ctx: Any) -> dict[str, str]:
    queue_id = _macro(ctx, "i")
    if queue_id:
        return {"queue_id": queue_id}
    return {"session": f"{os.getpid():x}.{connection.number:x}"}
