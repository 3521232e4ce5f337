"""What the three scripts share from start to end: flags, logging, signals, the login, and the exit codes.

Called by the scripts, the sandbox, `desk` and `mailroom`.
"""

import argparse
import contextlib
import difflib
import io
import logging
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
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
_LIKENESS = 0.7  # how similar a flag must be to the typed one to be suggested: --json is not, for --version

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
    """Send diagnostics to stderr, a line each; to nowhere under Windows' pythonw, which has no stderr."""
    stream = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as we live
    diagnostics.start(stream, verbose=verbose)


class Stop:
    """A request to end the process. `set` waits for no lock: a signal handler may call it in the middle of `wait`."""

    def __init__(self) -> None:
        self._set = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Ask the process to end."""
        self._set = True
        self._bell.put(None)

    def is_set(self) -> bool:
        """Whether the process has been asked to end."""
        return self._set

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait until `set` is called, for so many seconds at most; returns whether it has been called."""
        end = time.monotonic() + seconds
        while not self._set and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._bell.get(timeout=min(left, 1.0))  # on Windows a signal does not end an unlimited wait
        return self._set


def stop_on_signals() -> Stop:
    """A `Stop` that the first SIGTERM, SIGHUP, Ctrl-C or Ctrl-Break sets; under `nohup` SIGHUP stays ignored.

    A second signal ends the process at once, unless it is SIGHUP: a terminal that is closed may send that twice.
    """
    stop = Stop()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set() and number != getattr(signal, "SIGHUP", None):
            os._exit(128 + number)  # at once: without waiting for any thread
        stop.set()

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):  # SIGBREAK exists on Windows alone
        number = getattr(signal, name, None)
        if number and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            signal.signal(number, on_signal)
    return stop


def interrupt_on_signals() -> None:
    """Have SIGTERM and SIGHUP end the process as Ctrl-C does: with it ends what it has started, such as a command."""
    if threading.current_thread() is not threading.main_thread():  # only that one is told of signals
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def require_writable(key: str, folder: Path) -> None:
    """Raise ConfigError unless the folder, or its nearest existing parent if it does not exist, can be written to."""
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
        raise ConfigError(f"{key}: {folder} cannot be written to")


def allow_open_files(number: int) -> int:
    """Raise the soft limit of open files to `number` and some to spare; returns `number`, or less if it has to be."""
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


def login(
    account: Account, ca_file: Path | None, stopping: Callable[[], bool] = lambda: False, patience: float = 30.0
) -> Login:
    """How the account logs in: by its password, or by access tokens from an endpoint that `ca_file` may vouch for.

    Getting a token takes at most `patience` seconds, and is given up when `stopping()` is true.
    """
    if account.oauth:
        from mailer.oauth import TokenSource  # here: it imports http.client, which would slow down every other start

        source = TokenSource(account.oauth, tls.token_context(ca_file), stopping, patience)
        return Login(account.login, source, oauth=True)
    return password_login(account.login, account.password)


def print_steps(steps: Iterable[str]) -> None:
    """Print each step of --check on stdout when it is done; raises StateError if stdout cannot be written to."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for letters that the locale lacks
    for step in steps:
        try:
            print(step, flush=True)  # noqa: T201 - the result of --check
        except OSError as failure:
            raise StateError(f"the result cannot be written: {failure.strerror}", passing=True) from failure


def guard(run: Callable[[], int]) -> int:
    """Run a script's body and turn an error that ends it into an exit code, with a line for each reason on stderr."""
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
    except RuntimeError as failure:
        if "new thread" not in str(failure):
            raise
        _tell(f"the system lets no more threads run ({failure})")
        return ExitCode.TEMPORARY
    except MemoryError:
        _tell("there is too little memory")
        return ExitCode.TEMPORARY
    finally:
        _let_go()


def _tell(*reasons: str) -> None:
    """Print why the script ends on stderr, after everything that was logged, if stderr can be written to."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    with contextlib.suppress(OSError):
        for reason in reasons if sys.stderr else ():
            print(reason, file=sys.stderr)  # noqa: T201 - the reason of an exit, like argparse's, needs no logging set up


def _let_go() -> None:
    for stream in (sys.stdout, sys.stderr):
        diagnostics.let_go(stream)
