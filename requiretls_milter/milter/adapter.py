"""libmilter's callbacks: one SMTP event in, one answer out.

This module and :mod:`.listener` are the only ones that know pymilter. A process
has one libmilter. The supervisor registers the callbacks and opens the socket
before it forks; each worker then answers::

    listener = adapter.listen(config.milter)    # supervisor, before the fork
    adapter.serve(WorkerContext(...))           # worker, in a thread; blocks
    listener.stop_accepting()                   # worker, from its main thread

A callback is plain Python: libmilter moves a connection between threads of its
own, on which neither thread-local state nor the GIL's C interface works as
elsewhere. No exception leaves a callback, whatever its class: it is counted and
logged (:mod:`.containing`), and the mail goes on, unless a rule demands that a message
be deferred when it cannot be judged. What callbacks know of their connection is in
:mod:`.serving`; how they come to forecasts, in :mod:`.waiting`.

Log line, with keys that stay as they are: ``event=negotiated`` (what the MTA agreed
to, once). What becomes of messages is logged by :mod:`.account`. libmilter's own messages,
which it would send to syslog(3), are dropped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import syslog
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import milter

from requiretls_milter.milter import account, serving, waiting
from requiretls_milter.milter.containing import Apart, count_failure
from requiretls_milter.milter.listener import Listener
from requiretls_milter.milter.recipient import Recipient
from requiretls_milter.milter.serving import Connection, Serving, WorkerContext
from requiretls_milter.milter.settings import Settings
from requiretls_milter.milter.transaction import SmtpClient, Transaction
from requiretls_milter.model import Action, Decision, Forecast, SmtpReply
from requiretls_milter.syntax.capability import capability, is_postfix
from requiretls_milter.syntax.text import printable
from requiretls_milter.telemetry.labels import Bound, Stage
from requiretls_milter.telemetry.log import get_logger

if TYPE_CHECKING:
    from requiretls_milter import config

NAME = "requiretls-milter"

MAX_REPLY = 980
"""Octets of one line of a reply that libmilter takes."""

NO_PRIORITY = 1 << 8
"""A mask for setlogmask(3) of none of the eight priorities; 0 would leave the mask as it is."""

ACTIONS = milter.ADDHDRS | milter.CHGHDRS | milter.SETSYMLIST
"""What this milter does to messages."""

ENVELOPE_ACTIONS = milter.CHGFROM
"""What it does besides if the configuration wants the envelope changed."""

# What we tell the MTA at the negotiation, and why.
#
# - Events to skip (P_NO*). An event costs a message on the socket and, unless
#   its reply is waived too, a round trip. HELO, DATA, the body and unknown
#   commands tell us nothing. The end of the header would be the natural moment to
#   settle what the message asks, but Postfix and Sendmail read a message to its
#   end before they tell of its header, so that the end of the message follows at
#   once, and its callback can do both.
#
# - Replies to waive (P_NR_*). We never refuse at connection, MAIL or a header
#   field, so the MTA need not wait for an answer: a message of 30 fields saves
#   30 round trips. The price: after such an event, libmilter takes TEMPFAIL as
#   "ignore the rest of the message" while the MTA waits for an answer at its end.
#   Hence _contained answers NOREPLY even when the callback failed, and _register
#   sets pymilter's own answer to exceptions, which is TEMPFAIL, to CONTINUE.
#
# - RCPT keeps its reply even if no rule can refuse. An MTA holds events without
#   a reply back until it needs one: without this reply the first we hear of a
#   message might be its end, and the assessment, which is to overlap with DATA,
#   would begin when it should be done.
#
# - Macros (SETSYMLIST). Each stage lists what its callback reads. A list replaces
#   the MTA's own for that stage, so that nothing here depends on the
#   administrator's milter_*_macros; {tls_version} is not among Postfix's for MAIL.
#
# How mail that does not come by SMTP is known: by {i} at MAIL. Postfix's smtpd has a
# queue ID only once a recipient is accepted; cleanup, which plays the client for mail
# of sendmail(1), of qmqpd and for its own bounces, has one from the beginning. The
# connection says nothing: it is 127.0.0.1 or, for qmqpd, its client. Sendmail gives
# {i} at MAIL to all mail, and asks a milter about mail by SMTP only.
#
# An MTA may offer less (an old Sendmail, a proxy). Then we take what it offers:
# events that come all the same are answered, replies that are wanted are given.
_NOT_WANTED = (
    milter.P_NOHELO | milter.P_NODATA | milter.P_NOEOH | milter.P_NOBODY | milter.P_NOUNKNOWN
)
_NO_REPLY = milter.P_NR_CONN | milter.P_NR_MAIL | milter.P_NR_HDR

WANTED = _NOT_WANTED | _NO_REPLY
"""Protocol flags: events to skip, events sent without a reply."""

_CONTINUE = int(milter.CONTINUE)
_NOREPLY = int(milter.NOREPLY)

MACROS = (
    (milter.M_CONNECT, "j v {daemon_name}"),
    (milter.M_ENVFROM, "i {auth_authen} {tls_version} {mail_addr}"),
    (milter.M_ENVRCPT, "i {rcpt_mailer} {rcpt_host} {rcpt_addr}"),
    (milter.M_EOM, "i"),
)
"""The macros that are read, by stage."""

_log = get_logger("milter.adapter")


# ---------------------------------------------------------------- the process


def listen(milter_config: config.Milter) -> Listener:
    """Register the callbacks and open the socket on which the MTA calls.

    To be called once, before any fork and before :func:`serve`.

    Raises:
        SocketError: the socket cannot be opened.
    """
    _register()
    return Listener.open(milter_config)


def serve(context: WorkerContext) -> None:
    """Answer the MTA for as long as the process lives; blocks.

    Runs in a thread of its own, for three reasons. The main thread has to hear the
    supervisor (reload, drain, stop) and to tell it that the worker lives, while
    libmilter's main loop returns only when all is over. Python runs signal handlers
    in the main thread alone, between two of its instructions: a main thread inside
    a C loop would never come to them. And libmilter's own way to stop waits up to 5 s
    for its listener and then cuts the sessions that are open; a worker ends
    by ending its process, when its sessions are over or their time is.
    """
    serving.begin(context)
    milter.settimeout(context.config.limits.mta_silence)
    milter.main()


def _register() -> None:
    # libmilter logs by syslog(3), and for a journal that hangs it would wait for ever, with a lock
    # that each of its other threads then waits for. The mask goes to all children.
    syslog.setlogmask(NO_PRIORITY)
    milter.set_flags(ACTIONS | ENVELOPE_ACTIONS)
    milter.set_connect_callback(_connect)
    milter.set_envfrom_callback(_mail)
    milter.set_envrcpt_callback(_rcpt)
    milter.set_header_callback(_header)
    milter.set_eom_callback(_eom)
    milter.set_abort_callback(_abort)
    milter.set_close_callback(_close)
    # For events that pymilter itself cannot decode, such as a field's name in 8 bits,
    # and that never reach a callback.
    milter.set_exception_policy(milter.CONTINUE)
    milter.register(NAME, negotiate=_negotiate)


# ---------------------------------------------------------------- what surrounds a callback


Callback = Callable[..., int]


def _contained(stage: Stage, no_reply: int = 0) -> Callable[[Callback], Callback]:
    """Make a callback of a function of (connection, ctx, ...) that returns an answer.

    Args:
        stage: under which its exceptions are counted.
        no_reply: the protocol flag with which the MTA waits for no answer.
    """

    def wrap(function: Callback) -> Callback:
        @functools.wraps(function)
        def callback(ctx: Any, *arguments: Any) -> int:
            try:
                connection = ctx.getpriv()
                if connection is None:
                    connection = _attach(ctx)
                connection.heard = time.monotonic()
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


def _priv(ctx: Any) -> Connection | None:
    try:
        connection: Connection | None = ctx.getpriv()
    except BaseException:  # noqa: BLE001 - asked only after something has failed already
        return None
    return connection


def _failed(stage: Stage, ctx: Any) -> int:
    """Count and log an exception; return the answer to give in place of the callback's."""
    connection = _priv(ctx)
    count_failure(stage)
    with contextlib.suppress(BaseException):
        message = connection.transaction if connection is not None else None
        if stage in (Stage.RCPT, Stage.EOM) and message is not None:
            action = message.action_in_doubt()
            if action is Action.DEFER:
                return _refuse(ctx, SmtpReply(451, "4.3.0", "REQUIRETLS cannot be judged now"))
            if action is Action.REJECT and stage is Stage.EOM:
                return _refuse(ctx, SmtpReply(550, "5.3.0", "REQUIRETLS cannot be judged"))
    return _CONTINUE


def _attach(ctx: Any) -> Connection:
    begun = serving.current()
    if begun is None:
        raise RuntimeError("libmilter calls before serve() was called")
    connection = Connection(begun)
    _agree(connection, 0)
    ctx.setpriv(connection)
    begun.connections.add(connection.number)
    return connection


def _agree(connection: Connection, protocol: int) -> None:
    """Note the protocol flags that were agreed on with the MTA."""
    connection.protocol = protocol
    connection.header_answer = _NOREPLY if protocol & milter.P_NR_HDR else _CONTINUE


# ---------------------------------------------------------------- the negotiation


def _negotiate(ctx: Any, options: list[int]) -> int:
    """Agree on actions, events and replies; ``options`` is changed in place."""
    try:
        actions, offered = options[0], options[1]
        connection = _attach(ctx)
        _agree(connection, WANTED & offered)
        if actions & milter.SETSYMLIST:
            for stage, names in MACROS:
                ctx.setsymlist(stage, names)
        wanted = _actions(connection.settings)
        options[:] = [actions & wanted, connection.protocol, 0, 0]
        _log_negotiated(connection.serving, wanted, actions, offered)
    except BaseException:  # noqa: BLE001 - pymilter would silently negotiate every callback
        count_failure(Stage.NEGOTIATE)
        begun = _priv(ctx)
        if begun is not None:
            _agree(begun, 0)
        return int(milter.ALL_OPTS)
    return _CONTINUE


def _actions(settings: Settings) -> int:
    """The milter actions that this configuration needs."""
    options = settings.config.milter
    changes = bool(options.envid_mark) or options.headers_only_bounces
    return int(ACTIONS | (ENVELOPE_ACTIONS if changes else 0))


def _log_negotiated(begun: Serving, wanted: int, actions: int, offered: int) -> None:
    """Log what an MTA agrees to, once and whenever it changes; at level warning if it lacks any."""
    agreed = (actions & wanted, WANTED & offered)
    if begun.negotiated == agreed:
        return
    complete = agreed == (wanted, WANTED)
    level = _log.info if complete and begun.negotiated is None else _log.warning
    level(
        "negotiated",
        actions=f"{agreed[0]:#x}",
        protocol=f"{agreed[1]:#x}",
        missing_actions=f"{wanted & ~actions:#x}",
        missing_protocol=f"{WANTED & ~offered:#x}",
    )
    begun.negotiated = agreed


# ---------------------------------------------------------------- callbacks


@_contained(Stage.CONNECT, milter.P_NR_CONN)
def _connect(connection: Connection, _ctx: Any, _name: str, family: int, address: Any) -> int:
    if isinstance(address, tuple):
        connection.address = str(address[0]).removeprefix("IPv6:")
        connection.trusted = connection.settings.trusts(connection.address)
    else:
        # A unix socket belongs to this host. A client without any address is not trusted.
        connection.trusted = family == socket.AF_UNIX
    return _CONTINUE


@_contained(Stage.MAIL, milter.P_NR_MAIL)
def _mail(connection: Connection, ctx: Any, sender: bytes, *parameters: bytes) -> int:
    _conclude(connection, ctx)
    authenticated = bool(_macro(ctx, "{auth_authen}"))
    client = connection.client
    if client is None or client.authenticated is not authenticated:
        client = connection.client = _client(connection, ctx, authenticated)
    connection.sender = sender
    resolved = _resolved(connection, ctx, client, "{mail_addr}")
    by_smtp = not (client.postfix and _macro(ctx, "i"))
    connection.begin(
        Transaction(connection.settings, client, _text(sender), parameters, resolved, by_smtp)
    )
    return _CONTINUE


def _client(connection: Connection, ctx: Any, authenticated: bool) -> SmtpClient:
    # Sent with the connection and kept by libmilter; the connect callback may have failed.
    connection.mta_name = _macro(ctx, "j")
    version = _macro(ctx, "v")
    connection.serving.context.mta_version = version
    return SmtpClient(
        authenticated=authenticated,
        trusted=connection.trusted,
        capability=capability(connection.settings.config.mta.carries, version),
        postfix=is_postfix(version),
    )


@_contained(Stage.RCPT)
def _rcpt(connection: Connection, ctx: Any, address: bytes, *_parameters: bytes) -> int:
    message = connection.transaction
    if message is None:
        return _CONTINUE
    recipient = message.add_recipient(
        _text(address),
        _macro(ctx, "{rcpt_mailer}"),
        _macro(ctx, "{rcpt_host}"),
        _resolved(connection, ctx, message.client, "{rcpt_addr}"),
    )
    if message.parts(recipient) and _may_put_off(connection, ctx, message, recipient):
        return _put_off(connection, ctx, message, recipient)
    waiting.ask(connection, recipient, Stage.RCPT)
    waiting.foresee(connection, message, recipient)
    spent = 0.0
    if message.settles_at_rcpt(recipient):
        with waiting.Waiting(connection):
            spent = waiting.settle(
                connection, message, recipient, message.patience_for_expansion(), Stage.RCPT
            )
    if not message.decides_at_rcpt(recipient):
        return _CONTINUE
    forecast: Forecast | None = waiting.known(connection, recipient)
    if forecast is None:
        with waiting.Waiting(connection):
            patience = message.patience_at_rcpt(recipient) - spent
            forecast = waiting.answer(connection, message, recipient, patience, Stage.RCPT)
    decision = message.decide_at_rcpt(recipient, forecast, time.time())
    if decision.reply is None:
        return _CONTINUE
    answer = _refuse(ctx, decision.reply)
    with Apart(Stage.RCPT):
        account.count_recipient(connection.counters, message, recipient)
        tls_version = _macro(ctx, "{tls_version}")
        identity = _identity(connection, ctx)
        account.log_recipients(identity, tls_version, message, [recipient])
        account.log_expansions(identity, tls_version, message, [recipient])
    return answer


def _header(ctx: Any, name: str, value: bytes) -> int:
    """Take a header field.

    The most frequent event: it is not wrapped in _contained, and tests the name first.
    """
    answer = _CONTINUE
    try:
        connection: Connection | None = ctx.getpriv()
        if connection is None:
            return answer
        answer = connection.header_answer
        settings = connection.settings
        if connection.looks_for_utf8 and not value.isascii() and connection.transaction is not None:
            connection.transaction.findings.non_ascii = True
        if name[:1] not in settings.initials:
            return answer
        key = name.lower().rstrip()  # RFC 5322 section 4.5.3: blanks before the colon
        if key in settings.fields and connection.transaction is not None:
            connection.transaction.add_field(key, value)
    except BaseException:  # noqa: BLE001 - see _contained
        count_failure(Stage.HEADER)
    return answer


@_contained(Stage.EOM)
def _eom(connection: Connection, ctx: Any) -> int:
    message = connection.transaction
    if message is None:
        return _CONTINUE
    if message.ordinary:
        connection.end()
        account.count_ordinary(connection.counters, message)
        return _CONTINUE
    decision = message.refuse_if_flooded()
    if decision is not None and decision.reply is not None:
        answer = _refuse(ctx, decision.reply)
        with Apart(Stage.EOM):
            connection.counters.inc("saturated_total", (Bound.TAGS,))
            _finish(connection, ctx, message, decision)
        return answer
    now = time.time()
    with Apart(Stage.EOH):
        for recipient in (*message.end_of_header(), *message.outdated(now)):
            waiting.ask(connection, recipient, Stage.EOH)
    spent = waiting.settle_all(connection, message)
    undecided = message.undecided()
    for recipient in undecided:
        known = waiting.known(connection, recipient)
        if known is not None:
            message.decide(recipient, known, now)
    if any(recipient.decision is None for recipient in undecided):
        waiting.wait_and_decide(connection, message, spent)
    decision = message.decide_message()
    if decision.reply is not None:
        if not message.by_smtp:
            with Apart(Stage.EOM):  # the MTA makes a bounce of it at once
                _change_sender(connection, ctx, message)
        answer = _refuse(ctx, decision.reply)
    else:
        _write_tag(connection, ctx, message)
        _change_sender(connection, ctx, message)
        answer = _CONTINUE
    with Apart(Stage.EOM):
        _finish(connection, ctx, message, decision)
    return answer


@_contained(Stage.ABORT)
def _abort(connection: Connection, ctx: Any) -> int:
    _conclude(connection, ctx)
    return _CONTINUE


def _close(ctx: Any) -> int:
    # Not wrapped in _contained, which would create a connection that never began.
    try:
        connection = ctx.getpriv()
        if connection is not None:
            connection.serving.connections.discard(connection.number)
            if time.monotonic() - connection.heard >= connection.settings.config.limits.mta_silence:
                connection.counters.inc("saturated_total", (Bound.MTA_SILENCE,))
            _conclude(connection, ctx)
            ctx.setpriv(None)
    except BaseException:  # noqa: BLE001 - see _contained
        count_failure(Stage.CLOSE)
    return _CONTINUE


# ---------------------------------------------------------------- what callbacks do


def _macro(ctx: Any, name: str) -> str:
    """A macro's value; "" if the MTA did not send it, or sent bytes that are not UTF-8."""
    try:
        value = ctx.getsymval(name)
    except UnicodeDecodeError:
        return ""
    return value if value is not None else ""


def _resolved(connection: Connection, ctx: Any, client: SmtpClient, macro: str) -> str:
    """An envelope address as the MTA understands it; "" if no rule needs its domain.

    Only Postfix is asked, which rewrites ``example.org!bob`` and ``bob%example.org``
    to standard form; Sendmail's rulesets may turn an address into anything.
    """
    if connection.settings.simple or not client.postfix:
        return ""
    address = _macro(ctx, macro)
    return address if "@" in address else ""


def _text(octets: bytes) -> str:
    """An envelope address as text without surrogates, whatever its bytes."""
    return octets.decode("utf-8", "backslashreplace")


def _may_put_off(
    connection: Connection, ctx: Any, message: Transaction, recipient: Recipient
) -> bool:
    """Whether the client is to bring a recipient in another transaction (RFC 5321 4.5.3.1.10)."""
    first = message.accepted[0].address
    put_off = connection.serving.put_off.once_more(
        connection.address, message.sender, *message.parameters, first, recipient.address
    )
    if not put_off:
        account.log_not_split(_identity(connection, ctx), connection.address, message, recipient)
    return put_off


def _put_off(connection: Connection, ctx: Any, message: Transaction, recipient: Recipient) -> int:
    """Put a recipient off whose route is another one than that of its message."""
    reply = message.put_off(recipient)
    answer = _refuse(ctx, reply)
    with Apart(Stage.RCPT):
        account.count_recipient(connection.counters, message, recipient)
        account.log_put_off(_identity(connection, ctx), message, recipient, reply)
    return answer


def _refuse(ctx: Any, reply: SmtpReply) -> int:
    """Answer with ``reply``, as printable ASCII of bounded length (R62).

    Code and enhanced code have the same class: a mismatch makes Postfix drop the
    milter for the whole SMTP session.
    """
    kind = reply.code // 100
    enhanced = reply.enhanced if reply.enhanced.startswith(f"{kind}.") else f"{kind}.7.0"
    text = printable(reply.text, MAX_REPLY // 2)
    ctx.setreply(str(reply.code), enhanced, text.replace("%", "%%"))
    return int(milter.REJECT if kind == 5 else milter.TEMPFAIL)


def _write_tag(connection: Connection, ctx: Any, message: Transaction) -> None:
    """Remove incoming copies of our own header field, then add ours at the top (R63).

    Deletions come first: until something is inserted above it, the MTA's own
    Received field is not counted. They go from the last copy to the first, since
    each deletion changes the numbers of the copies that follow it. For each one
    the MTA reads the header from its top: ``limits.tags`` bounds how many there are.
    """
    settings = connection.settings
    for number in range(message.findings.tags, 0, -1):
        ctx.chgheader(settings.header_name, number, None)
    tag = message.written_tag()
    if tag is not None:
        own_name = connection.serving.context.host_name
        by = settings.config.milter.by or connection.mta_name or own_name
        ctx.addheader(settings.header_name, tag.value(by), 0)


def _change_sender(connection: Connection, ctx: Any, message: Transaction) -> None:
    """Give the sender new ESMTP parameters if the configuration asks for it (R14).

    pymilter takes the sender as text only. A sender that is not UTF-8 raises: the
    message is then treated as one that cannot be judged.
    """
    parameters = message.new_parameters()
    if parameters:
        ctx.chgfrom(connection.sender.decode("utf-8"), parameters)


def _conclude(connection: Connection, ctx: Any) -> None:
    """Close a message that did not reach its end: aborted, or refused at every recipient."""
    message = connection.transaction
    if message is None:
        return
    if message.all_refused:
        decisions = [r.decision for r in message.recipients if r.decision is not None]
        permanent = all(decision.action is Action.REJECT for decision in decisions)
        action = Action.REJECT if permanent else Action.DEFER
        account.count_message(connection.counters, message, action)
        account.log_message(_identity(connection, ctx), message, action)
    connection.end()


def _finish(connection: Connection, ctx: Any, message: Transaction, decision: Decision) -> None:
    """Count and log a message that reached its end."""
    connection.end()
    account.count_ended(connection.counters, message, decision.action)
    assessed = [recipient for recipient in message.accepted if recipient.assessed]
    identity = _identity(connection, ctx)
    if assessed:
        logged = assessed[: account.MAX_LOGGED_RECIPIENTS]
        tls_version = _macro(ctx, "{tls_version}")
        account.log_recipients(identity, tls_version, message, logged)
        account.log_expansions(identity, tls_version, message, logged)
    account.log_message(identity, message, decision.action)


def _identity(connection: Connection, ctx: Any) -> dict[str, str]:
    queue_id = _macro(ctx, "i")
    if queue_id:
        return {"queue_id": queue_id}
    return {"session": f"{os.getpid():x}.{connection.number:x}"}
