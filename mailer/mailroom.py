"""The collector put together from its settings: mailbox, logs, position, and the loop. Called by `collector.py`."""

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from mailer import disk, launch, record, statedir, tls
from mailer.collect import PASSING, Collector, polling
from mailer.collect.meter import Meter
from mailer.errors import ConfigError, ExitCode, MailboxError, safe
from mailer.heap import give_back_large_blocks
from mailer.imap import Mailbox
from mailer.journal import Journal, keep
from mailer.journal.lock import only_writer
from mailer.position import ADVICE, DATABASE, Position
from mailer.reading import read
from mailer.settings import CollectorSettings
from mailer.streams import is_dumb
from mailer.supervisor import notify

_LONGEST_FILE = 64 * 1024 * 1024  # bytes of a file that --read looks at

_TRIES_OVER_A_MAIL = 6
_UNTIL_TRIED = 8.0  # seconds to the next pass at most, while a mail that the server refused waits for another try

_log = logging.getLogger("collector")


def read_files(names: Iterable[str]) -> int:
    """Print the record of each raw mail as JSON Lines; return the exit code."""
    code = ExitCode.DONE
    for name in names:
        try:
            with Path(name).open("rb") as file:
                raw = file.read(_LONGEST_FILE)
                complete = not file.read(1)
        except OSError as failure:
            _log.error("%s: %s", safe(name), failure.strerror)
            code = ExitCode.NO_INPUT
            continue
        line = record.line(read(raw, complete=complete), time=datetime.now(UTC), file=name)
        try:
            if not sys.stdout:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except OSError as failure:  # a full disk, or a reader that closed the pipe
            _log.error("the record of %s cannot be written: %s", safe(name), failure.strerror)
            return ExitCode.TEMPORARY
    return code


def check(settings: CollectorSettings) -> int:
    """Prove the settings without changing anything; print a line for each step, and return the exit code."""
    launch.interrupt_on_signals()
    _require_state(settings)
    _require_logs(settings)
    mailbox = _mailbox(settings, launch.Stop())
    try:
        launch.print_steps(mailbox.check())
    except MailboxError as failure:
        return _ended_by(failure)
    finally:
        mailbox.close()
    return ExitCode.DONE


def collect(settings: CollectorSettings, stop: launch.Stop, *, once: bool = False) -> int:
    """Collect until `stop` is set, or make one pass when `once`; return the exit code."""
    give_back_large_blocks()
    _require_state(settings)
    _require_logs(settings)
    statedir.prepare(settings.state_dir)
    # Take the locks before any work: no other collector may touch this state or these logs.
    login, host, folder = settings.account.login, settings.imap.host.lower(), settings.folder
    name = f"{login.lower()}@{host}/{'INBOX' if folder.upper() == 'INBOX' else folder}"
    with contextlib.ExitStack() as held:
        position = held.enter_context(contextlib.closing(Position(settings.state_dir, name)))
        for log in (settings.success_log, settings.error_log):
            held.enter_context(only_writer(log))
        if others := position.others():
            words = "%s is new here, where %s is known: if it is the same mailbox, what was read meanwhile is missed"
            _log.warning(words, name, ", ".join(others))
        return _collect(settings, position, stop, once)


def _collect(settings: CollectorSettings, position: Position, stop: launch.Stop, once: bool) -> int:
    imap, period = settings.imap, settings.period
    mailbox = _mailbox(settings, stop)
    meter = Meter(sys.stderr or io.StringIO(), rewrite=not is_dumb())

    def progress(done: int, total: int) -> None:
        _alive()
        meter.told(done, total)

    def run_pass() -> tuple[int, int]:
        try:
            return collector.run_pass()
        finally:
            meter.end()

    try:
        collector = _collector(settings, mailbox, position, stop, progress)
        if once:
            polling.report(*_once(run_pass, collector, stop))
            if collector.refused:
                _log.warning("mails that the server refuses, to be tried again by a later run: %d", collector.refused)
            if stop.is_set():
                return ExitCode.INTERRUPTED
        else:
            _log.info("watching %s at %s:%d every %g s", settings.folder, imap.host, imap.port, period)
            notify("READY=1")
            polling.keep_going(
                run_pass, period=lambda: min(period, _UNTIL_TRIED) if collector.refused else period,
                pause=stop.wait, alive=_alive, place=collector.place,
            )  # fmt: skip
            notify("STOPPING=1")
    except MailboxError as failure:
        if stop.is_set():
            return ExitCode.INTERRUPTED if once else ExitCode.DONE
        return _ended_by(failure)
    finally:
        mailbox.close()
    return ExitCode.DONE


def _collector(
    settings: CollectorSettings, mailbox: Mailbox, position: Position, stop: launch.Stop,
    progress: Callable[[int, int], object],
) -> Collector:
    return Collector(
        mailbox, Journal(settings.success_log), Journal(settings.error_log), position,
        keep=lambda name, raw: keep(settings.state_dir / "unreadable" / name, raw),
        stopping=stop.is_set, progress=progress,
    )


def _once(run_pass: Callable[[], tuple[int, int]], collector: Collector, stop: launch.Stop) -> tuple[int, int]:
    """Make one pass, with more tries as long as it fails over mails, as those would make every run fail."""
    failures = 0  # in a row, without getting any further
    while True:
        before = collector.place()
        try:
            return run_pass()
        except MailboxError as failure:
            failures = failures + 1 if collector.place() == before else 1
            passing = failure.exit_code in PASSING and collector.over_a_mail and not stop.is_set()
            if not passing or failures > _TRIES_OVER_A_MAIL:
                raise


def _require_state(settings: CollectorSettings) -> None:
    """Raise ConfigError for a state folder that cannot be written to, StateError if its database cannot be used."""
    launch.require_writable("STATE_DIR", settings.state_dir)
    disk.check_database(settings.state_dir / DATABASE, ADVICE)


def _require_logs(settings: CollectorSettings) -> None:
    """Raise ConfigError for a log that could not be written even if the disk had room."""
    for key, path in (("SUCCESS_LOG", settings.success_log), ("ERROR_LOG", settings.error_log)):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # the log will be made, or its folder is missing (see below)
        except OSError as failure:  # such as a loop of symbolic links, or a folder that may not be entered
            raise ConfigError(f"{key}: {path}: {failure.strerror}") from None
        if not path.parent.is_dir():
            raise ConfigError(f"{key}: {path} is in a folder that does not exist")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{key}: {path} is no ordinary file")
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise ConfigError(f"{key}: {path} cannot be written to")
        launch.require_writable(key, path.parent)
    success, error = settings.success_log, settings.error_log
    if success.resolve() == error.resolve() or (success.exists() and error.exists() and success.samefile(error)):
        raise ConfigError("ERROR_LOG: is the same file as SUCCESS_LOG, by another name")


def _mailbox(settings: CollectorSettings, stop: launch.Stop) -> Mailbox:
    return Mailbox(
        settings.imap, launch.login(settings.account, settings.ca_file, stop.is_set, settings.timeout), settings.folder,
        context=tls.mail_context(settings.imap, settings.ca_file), timeout=settings.timeout,
        mark_seen=settings.mark_seen, stopping=stop.is_set, alive=_alive,
    )


def _ended_by(failure: MailboxError) -> int:
    _log.error("%s", failure)
    return failure.exit_code


def _alive() -> None:
    notify("WATCHDOG=1")
