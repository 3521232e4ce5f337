"""Where the settings come from: the `.env` file, the environment and the flags, as one mapping for `config`.

No other module looks for settings. Raises ConfigError for a file of which a part cannot be read: the line that would
be ignored may be the one that protects the server. Called by the scripts.
"""

import difflib
import io
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from dotenv.parser import Binding, parse_stream

from mailer.config import KEYS, PATHS
from mailer.errors import ConfigError, safe

BASE = Path(__file__).resolve().parent.parent  # the folder of the scripts
_SECRETS = ("EMAIL_PASSWORD", "SERVER_TOKEN", "OAUTH_CLIENT_SECRET", "OAUTH_REFRESH_TOKEN")
_LONGEST_ENV = 262_144  # characters
_LONGEST_SECRET = 65_536  # bytes: a longer file is no password file
# A comment that python-dotenv takes for the value (`KEY= # …`): as SERVER_TOKEN it would keep all clients out.
_COMMENT_FOR_VALUE = re.compile(r"[^=]*=[^\S\n]+#")
# A name without a value, which python-dotenv allows: a variable of another program.
_BARE_KEY = re.compile("[A-Z][A-Z0-9_]*|[a-z]+(?:_[a-z]+)+")
_LIKENESS = 0.8  # of a misspelled key to the right one; the file may hold keys of other programs, such as EMAIL_HOST

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def values(env: str | None, flags: Mapping[str, object], *, optional: bool = False) -> dict[str, str]:
    """The settings as strings: the `.env` file, over it the environment, over it the flags that were given.

    A `~` in a path is replaced; where there is no such home folder it stays, and `config` complains of it. Raises
    ConfigError when the file cannot be read; `optional`: a private one beside the scripts is left out with a warning.
    """
    found = {**_env_file(env, optional), **os.environ}
    found.update({key: str(value) for key, value in flags.items() if value is not None})
    found.update({key: _at_home(found[key].strip()) for key in PATHS & found.keys()})
    return found


def _at_home(path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        return path


def with_password(values: Mapping[str, str]) -> dict[str, str]:
    """The settings with the password read from EMAIL_PASSWORD_FILE, if it is to come from there; raises ConfigError."""
    file = values.get("EMAIL_PASSWORD_FILE", "").strip()
    wanted = file and not values.get("EMAIL_PASSWORD") and values.get("EMAIL_AUTH", "").strip().lower() != "oauth2"
    return {**values, "EMAIL_PASSWORD": _password(Path(file))} if wanted else dict(values)


def settings(read: Callable[[Mapping[str, str], Path], _T], values: Mapping[str, str]) -> _T:
    """What `read` makes of the values with their password; raises ConfigError with the problems of both together."""
    try:
        complete = with_password(values)
    except ConfigError as wrong:
        others = _problems(read, {**values, "EMAIL_PASSWORD": "that could not be read"})
        raise ConfigError(*wrong.problems, *others) from None  # no traceback shows what was in the file
    return read(complete, BASE)


def _problems(read: Callable[[Mapping[str, str], Path], object], values: Mapping[str, str]) -> tuple[str, ...]:
    try:
        read(values, BASE)
    except ConfigError as wrong:
        return wrong.problems
    return ()


def _env_file(env: str | None, optional: bool) -> dict[str, str]:
    path = Path(env) if env else BASE / ".env"
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = file.read(_LONGEST_ENV + 1)
        if len(content) > _LONGEST_ENV:
            raise ValueError("it is too long to be a settings file")
        statements = list(parse_stream(io.StringIO(content)))
        if wrong := list(filter(None, map(_complaint, statements))):
            raise ConfigError(*[f"{path}: {complaint}" for complaint in wrong])
        pairs = {statement.key: statement.value for statement in statements if statement.key}
        found = {key: value for key, value in pairs.items() if value}
        if any(map(found.get, _SECRETS)):
            _warn_of_readers(path)
        _warn_of_misspellings(path, pairs)
    except (OSError, ValueError) as failure:  # ValueError: not UTF-8, or too long
        if isinstance(failure, FileNotFoundError) and not env:
            return {}
        if isinstance(failure, PermissionError) and optional and not env:  # only the administrator may read it
            _log.warning("%s cannot be read, and is left out", path)
            return {}
        raise ConfigError(f"{path}: cannot be read ({failure})") from failure
    return found


def _complaint(statement: Binding) -> str | None:
    """What is wrong with a line of the file, if anything; without the value, which may be a secret."""
    key, text = statement.key, statement.original.string
    line = statement.original.line + text[: len(text) - len(text.lstrip())].count("\n")  # skips leading empty lines
    # A line like KEY:value, the second one of a broken token, or a setting of which the rest was forgotten.
    no_pair = key and statement.value is None and (key in KEYS or not _BARE_KEY.fullmatch(key))
    if statement.error or no_pair:
        return f"line {line} is no KEY=value, or its quotes do not match"
    if key in KEYS and _COMMENT_FOR_VALUE.match(text):
        return f"line {line} has a comment where the value of {key} belongs; one with a # goes into single quotes"
    return None


def _warn_of_readers(path: Path) -> None:
    """Warn that other users can read the file, and so the secrets in it; Windows has no such permission bits."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("%s holds a secret and can be read by others: chmod 600 %s", path, path)


def _warn_of_misspellings(path: Path, keys: Iterable[str]) -> None:
    """Warn of keys that are probably misspelled; other unknown keys belong to other programs."""
    for key in sorted(set(keys) - KEYS):
        if meant := difflib.get_close_matches(key.upper(), KEYS, 1, _LIKENESS):
            _log.warning("%s: %s is no setting and is ignored (did you mean %s?)", path, safe(key), meant[0])


def _password(path: Path) -> str:
    try:
        place = BASE / path.expanduser()
        with place.open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
        # systemd lets a service read its credentials by an access-control list, which looks like a group's permission.
        if str(place.parent) != os.environ.get("CREDENTIALS_DIRECTORY"):
            _warn_of_readers(place)
        if len(content) > _LONGEST_SECRET:
            raise ValueError("it is too long to be a password")
        password = content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
        if not password:
            raise ValueError("it is empty")
        return password
    except (OSError, ValueError, RuntimeError) as failure:  # RuntimeError: ~ stands for no home folder
        raise ConfigError(f"EMAIL_PASSWORD_FILE: {path} cannot be used ({failure})") from None
