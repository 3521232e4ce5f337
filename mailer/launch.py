"""What the three scripts share to get started: where the settings come from, logging, signals, and the way out.

Reads `.env`, the environment and the flags into one mapping for `config`; nothing else in Mailer looks at any of them.
"""

import argparse
import contextlib
import difflib
import io
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import dotenv

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

from mailer import diagnostics, tls
from mailer.config import KEYS
from mailer.errors import ConfigError, ExitCode, StateError, safe
from mailer.sasl import Login, password_login
from mailer.settings import Account

BASE = Path(__file__).resolve().parent.parent  # the folder of the scripts
_SECRETS = ("EMAIL_PASSWORD", "SERVER_TOKEN", "OAUTH_CLIENT_SECRET", "OAUTH_REFRESH_TOKEN")
_SPARE_FILES = 64  # for the state, the log, the listening socket, and connections that are being turned away
_LONGEST_ENV = 262_144  # characters
_LONGEST_SECRET = 65_536  # bytes: a password file that is longer is some other file
_LIKENESS = 0.7  # of a flag to the one that was meant: nobody who types --version means --json
_LIKENESS_OF_KEYS = 0.8  # greater, as others' keys may be in the same file: EMAIL_HOST is not IMAP_HOST

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


def values(env: str | None, flags: Mapping[str, object]) -> dict[str, str]:
    """The settings as strings: the `.env` file, over it the environment, over it the flags that were given.

    Raises ConfigError when a file that was named cannot be read.
    """
    found = {**_env_file(env), **os.environ}
    found.update({key: str(value) for key, value in flags.items() if value is not None})
    return found


def with_password(values: Mapping[str, str]) -> dict[str, str]:
    """The settings with the password out of EMAIL_PASSWORD_FILE, if it is to come from there; raises ConfigError."""
    file = values.get("EMAIL_PASSWORD_FILE", "").strip()
    wanted = file and not values.get("EMAIL_PASSWORD") and values.get("EMAIL_AUTH", "").strip().lower() != "oauth2"
    return {**values, "EMAIL_PASSWORD": _password(Path(file))} if wanted else dict(values)


def start_logging(verbose: bool) -> None:
    """Diagnostics go to stderr, a line each; nowhere under Windows' pythonw, which has none."""
    diagnostics.start(sys.stderr or io.StringIO(), verbose=verbose)


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM, Ctrl-C or Ctrl-Break sets; the second one ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _frame: object) -> None:
        if stop.is_set():
            os._exit(128 + number)  # at once means without waiting for any thread
        stop.set()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):  # SIGBREAK exists on Windows alone
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    return stop


def require_writable(key: str, folder: Path) -> None:
    """Raise ConfigError unless files can be made in the folder, or it in the nearest one above that is there."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {folder} cannot be written to")


def allow_open_files(number: int) -> None:
    """Raise the soft limit of open files to this number and some to spare, as far as the hard limit lets it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            _log.warning("only %d files may be open, not %d: set a smaller SERVER_WORKERS", hard, wanted)
            wanted = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
    """Why the script ends, on stderr, if that can be written."""
    with contextlib.suppress(OSError):
        for reason in reasons if sys.stderr else ():
            print(reason, file=sys.stderr)  # noqa: T201 - the reason of an exit, like argparse's, needs no logging set up


def _let_go() -> None:
    for stream in (sys.stdout, sys.stderr):
        diagnostics.let_go(stream)


def _env_file(env: str | None) -> dict[str, str]:
    path = Path(env) if env else BASE / ".env"
    if not env and not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = file.read(_LONGEST_ENV + 1)
        if len(content) > _LONGEST_ENV:
            raise ValueError("it is too long to be a settings file")
        pairs = dotenv.dotenv_values(stream=io.StringIO(content), interpolate=False)
        found = {key: value for key, value in pairs.items() if value}
        if any(map(found.get, _SECRETS)):
            _warn_of_readers(path)
        _warn_of_misspellings(path, pairs)
    except (OSError, ValueError) as failure:  # ValueError: not UTF-8
        raise ConfigError(f"{path}: cannot be read ({failure})") from failure
    return found


def _warn_of_readers(path: Path) -> None:
    """Others who can read the file can read the secrets in it; Windows has no such bits."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("%s holds a secret and can be read by others: chmod 600 %s", path, path)


def _warn_of_misspellings(path: Path, keys: Iterable[str]) -> None:
    """Name the keys that are probably meant to be others; whatever else is in the file is somebody else's."""
    for key in sorted(set(keys) - KEYS):
        if meant := difflib.get_close_matches(key.upper(), KEYS, 1, _LIKENESS_OF_KEYS):
            _log.warning("%s: %s is no setting and is ignored (did you mean %s?)", path, safe(key), meant[0])


def _password(path: Path) -> str:
    try:
        place = BASE / path.expanduser()
        with place.open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
        # What systemd hands over is the service's by an access list, which shows as the rights of a group.
        if str(place.parent) != os.environ.get("CREDENTIALS_DIRECTORY"):
            _warn_of_readers(place)
        if len(content) > _LONGEST_SECRET:
            raise ValueError("it is too long to be a password")
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError, RuntimeError) as failure:  # RuntimeError: ~ stands for no home folder
        raise ConfigError(f"EMAIL_PASSWORD_FILE: {path} cannot be used ({failure})") from None
