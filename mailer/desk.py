"""The server put together from its settings: listener, intake, ticket numbers, outbox. Called by `server.py`."""

import contextlib
import logging
import os
import socket
import ssl
import threading
import time
from dataclasses import replace

from mailer import launch, sequence, statedir, tls
from mailer.errors import Code, ConfigError, DeliveryError, ExitCode, RequestError
from mailer.intake import Intake
from mailer.intake.answers import Answers
from mailer.intake.limits import RateLimit
from mailer.sequence import Sequence
from mailer.settings import ServerSettings, is_loopback, spelled
from mailer.smtp import Outbox
from mailer.smtp.reply import LoginDeferredError, SessionLostError
from mailer.supervisor import notify
from mailer.transport.crew import stand_aside
from mailer.transport.door import listen
from mailer.transport.listener import Listener
from mailer.validation import check_email

_GRACE = 9.0  # seconds to finish what is under way when the server is told to end; it has 10 in all
_LAST_DELIVERIES = 3.0  # in the last seconds of these no delivery begins: its end might not be awaited
_LAST_STEPS = 0.5  # in the very last ones waits are ended, and clients hear what became of their requests

_log = logging.getLogger("server")


def check(settings: ServerSettings) -> int:
    """Prove the settings without sending anything; prints a line for each mail step, and returns the exit code."""
    launch.interrupt_on_signals()
    address = _sender(settings)
    launch.require_writable("STATE_DIR", settings.state_dir)
    sequence.check(settings.state_dir)
    if settings.tls_cert:
        tls.server_context(settings.tls_cert, settings.tls_key)
    _listen(settings, 0).close()
    try:
        _listen(settings, settings.port).close()
    except ConfigError as taken:
        _log.warning("%s; fine only if it is this server that listens there", taken)
    try:
        launch.print_steps(_outbox(settings, threading.Event()).check(address, address))
    except DeliveryError as failure:
        _log.error("%s", failure)
        return _exit_code(failure)
    return ExitCode.DONE


def serve(settings: ServerSettings, stop: launch.Stop) -> int:
    """Serve until `stop` is set, finish what is under way, and return the exit code."""
    context = tls.server_context(settings.tls_cert, settings.tls_key) if settings.tls_cert else None
    files = launch.allow_open_files(settings.workers + settings.sessions)
    settings = replace(settings, workers=max(1, min(settings.workers, files - settings.sessions)))
    last_moment = threading.Event()
    outbox = _outbox(settings, last_moment)
    launch.require_writable("STATE_DIR", settings.state_dir)
    statedir.prepare(settings.state_dir)
    tickets = Sequence(
        settings.state_dir,
        start=settings.ticket_start,
        step=settings.ticket_step,
        offset=settings.ticket_offset,
        on_wait=stand_aside,
    )
    intake = _intake(settings, outbox, tickets)
    listening = _listen(settings, settings.port)
    server = Listener(
        listening,
        intake.handle,
        workers=settings.workers,
        timeout=settings.peer_timeout,
        at_once=settings.sessions,
        context=context,
    )
    _announce(listening, settings, context)  # before `start`, so that this line comes first; connections wait a moment
    server.start()
    stop.wait()
    notify("STOPPING=1")
    _end(server, outbox, last_moment)
    tickets.close()
    _log.info("ended; %s", intake.summary())
    return ExitCode.DONE


def _end(server: Listener, outbox: Outbox, last_moment: threading.Event) -> None:
    """Finish what is under way; what is left shortly before the end is cut short, and its clients hear the outcome."""

    def give_up() -> None:
        last_moment.set()
        outbox.give_up()

    timers = [
        threading.Timer(_GRACE - _LAST_DELIVERIES, outbox.begin_no_more),
        threading.Timer(_GRACE - _LAST_STEPS, give_up),
    ]
    for timer in timers:
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread is to be had: what is left at the end gets no reply
            timer.start()
    server.stop(_GRACE)
    for timer in timers:
        timer.cancel()
    outbox.close()


def _exit_code(failure: DeliveryError) -> ExitCode:
    if isinstance(failure, SessionLostError) and not isinstance(failure, LoginDeferredError):
        return ExitCode.UNAVAILABLE
    if failure.problem.code is Code.MAIL_AUTH_FAILED:
        return ExitCode.LOGIN_REFUSED
    return ExitCode.TEMPORARY if failure.retry else ExitCode.REFUSED


def _outbox(settings: ServerSettings, last_moment: threading.Event) -> Outbox:
    """Where messages go; once `last_moment` is set, getting an access token is given up, and its command killed."""
    return Outbox(
        settings.smtp,
        launch.login(settings.account, settings.ca_file, last_moment.is_set, settings.timeout),
        context=tls.mail_context(settings.smtp, settings.ca_file),
        timeout=settings.timeout,
        sessions=settings.sessions,
        on_wait=stand_aside,
    )


def _intake(settings: ServerSettings, outbox: Outbox, tickets: Sequence) -> Intake:
    return Intake(
        send=outbox.deliver,
        new_ticket=tickets.next,
        sender=_sender(settings),
        token=settings.token,
        answers=Answers(time.monotonic, stand_aside, most_waiting=max(1, settings.workers * 3 // 4)),
        per_client=RateLimit(settings.rate_per_client, time.monotonic),
        per_recipient=RateLimit(settings.rate_per_recipient, time.monotonic),
        hide=outbox.hide,
    )


def _sender(settings: ServerSettings) -> str:
    """The account's address with its domain in ASCII; unchanged where only its own mail server knows the domain."""
    try:
        return check_email(settings.account.login)
    except RequestError:
        return settings.account.login


def _listen(settings: ServerSettings, port: int) -> socket.socket:
    try:
        return listen(settings.host, port)
    except (OSError, UnicodeError) as failure:
        place = spelled(settings.host, settings.port)
        raise ConfigError(f"SERVER_HOST, SERVER_PORT: cannot listen on {place} ({_words(failure)})") from failure


def _words(failure: Exception) -> str:
    """The system's words for a failure, without what `create_server` adds to them."""
    if isinstance(failure, OSError) and failure.errno and not isinstance(failure, socket.gaierror):  # other codes
        return os.strerror(failure.errno)
    return str(failure)


def _announce(listening: socket.socket, settings: ServerSettings, context: ssl.SSLContext | None) -> None:
    place = spelled(settings.host, listening.getsockname()[1])
    if not is_loopback(settings.host):
        missing = [key for key, given in (("SERVER_TLS_CERT", context), ("SERVER_TOKEN", settings.token)) if not given]
        if missing:
            _log.warning("others can reach %s: set %s", place, " and ".join(missing))
    _log.info("listening on %s", place)
    notify("READY=1")
