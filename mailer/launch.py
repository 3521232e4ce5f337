"""What the three scripts share to get started: flags, logging, signals, the login, and the way out.

Called by the scripts, and by what they put together (`desk`, `mailroom`).
"""

import argparse
import contextlib
import difflib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

from mailer import diagnostics, tls
from mailer.errors import ConfigError, ExitCode, StateError
from mailer.sasl import Login, password_login
from mailer.settings import Account

_SPARE_FILES = 64  # for the state, the log, the listening socket, and connections that are being turned away
_LIKENESS = 0.7  # of a flag to the one that was meant: nobody who types --version means --json

_log = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors end with 64 and name the flag that was probably meant."""

    def parse_args(self, args: list[str] | None = None, namespace: None = None) -> argparse.Namespace:  # type: ignore[override]  # one of the overloads is all we use
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            meant = difflib.get_close_matches(unknown[0].partition("=")[0], flags, 1, _LIKENESS)
            self.error(f"unknown: {' '.join(unknown)}" + (f" (did you mean {meant[0]}?)" if meant else ""))
        return known

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        try:
            super().exit(status, message)
        finally:
            _let_go()


def start_logging(verbose: bool) -> None:
    """Diagnostics go to stderr, a line each; nowhere under Windows' pythonw, which has none."""
    diagnostics.start(sys.stderr or io.StringIO(), verbose=verbose)


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM, Ctrl-C or Ctrl-Break sets, or the end of the terminal, unless `nohup` says
    otherwise; the second one ends the process at once.
    """
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(128 + number)  # at once means without waiting for any thread
        stop.set()

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):  # SIGBREAK exists on Windows alone
        number = getattr(signal, name, None)
        if number and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            signal.signal(number, on_signal)
    return stop


def require_writable(key: str, folder: Path) -> None:
    """Raise ConfigError unless files can be made in the folder, or it in the nearest one above that is there."""
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {folder} cannot be written to")


def allow_open_files(number: int) -> int:
    """Raise the soft limit of open files to this number and some to spare; how many there may be of these."""
    if resource is None:
        return number
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            _log.warning("only %d files may be open, not %d: set a smaller SERVER_WORKERS", hard, wanted)
            wanted = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted - _SPARE_FILES


def wait_for(stop: threading.Event) -> None:
    """Wait until the event is set. In steps, because on Windows a signal does not end an unlimited wait."""
    while not stop.wait(1.0):
        pass


def login(
    account: Account, ca_file: Path | None, stopping: Callable[[], bool] = lambda: False, patience: float = 30.0
) -> Login:
    """How the account logs in: its password, or access tokens; their endpoint may have a certificate of `ca_file`.

    Nobody waits for a token longer than `patience` seconds, or once `stopping()` says so.
    """
    if account.oauth:
        from mailer.oauth import TokenSource  # here, because http.client behind it would make every other start slower

        context = tls.client_context(None)  # the provider's, who may be another one than that of the mail servers
        if ca_file:
            context.load_verify_locations(ca_file)
        return Login(account.login, TokenSource(account.oauth, context, stopping, patience), oauth=True)
    return password_login(account.login, account.password)


def guard(run: Callable[[], int]) -> int:
    """Run a script's body and turn what ends it into its exit code, with a line for each reason on stderr."""
    try:
        return run()
    except ConfigError as wrong:
        _tell(*wrong.problems)
        return ExitCode.CONFIG
    except StateError as failure:
        _tell(str(failure))
        return ExitCode.TEMPORARY if failure.passing else ExitCode.CONFIG
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    finally:
        _let_go()


def _tell(*reasons: str) -> None:
    """Why the script ends, on stderr after all that was logged, if that can be written."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    with contextlib.suppress(OSError):
        for reason in reasons if sys.stderr else ():
            print(reason, file=sys.stderr)  # noqa: T201 - the reason of an exit, like argparse's, needs no logging set up


def _let_go() -> None:
    for stream in (sys.stdout, sys.stderr):
        diagnostics.let_go(stream)
