"""Takes typed values out of a mapping of strings, and collects all complaints. Called by `config`. Pure."""

import ipaddress
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from mailer.errors import ConfigError
from mailer.settings import Rate

_T = TypeVar("_T")

# A day: nobody means a time-out to be longer, and one of a socket overflows at some weeks.
_LONGEST_SECONDS = 86_400.0
# Characters that would control the terminal that shows them, or end a line.
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_RATE = re.compile(r"([0-9]{1,9})/(hour|minute)(?:\s+burst\s+([0-9]{1,9}))?")


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


class Reader:
    """Takes values out of the mapping and remembers every complaint, so that all are reported together.

    In place of a missing or bad value it returns a stand-in of the right type; `result` then raises ConfigError.
    """

    def __init__(self, values: Mapping[str, str], base: Path) -> None:
        self._values = values
        self._base = base
        self._problems: list[str] = []

    def complain(self, key: str, text: str) -> None:
        self._problems.append(f"{key}: {text}")

    def result(self, settings: _T) -> _T:
        if self._problems:
            raise ConfigError(*dict.fromkeys(self._problems))
        return settings

    def has(self, key: str) -> bool:
        return bool(self._values.get(key, "").strip())

    def text(self, key: str, default: str = "", *, any_letters: bool = False) -> str:
        """A value without blanks around it; `any_letters` allows blanks and joiners of any script, as in folders."""
        value = self._values.get(key, "").strip() or default
        if not value:
            self.complain(key, "is missing (see .env.example)")
        elif _CONTROL.search(value) if any_letters else not value.isprintable():
            self.complain(key, "holds a control character")
        return value

    def command(self, key: str) -> str:
        """A command line, its quotes in pairs; on Windows each program splits its own, and all are taken."""
        value = self.text(key, any_letters=True)
        try:
            if sys.platform != "win32":
                shlex.split(value)
        except ValueError:
            self.complain(key, "has a quote without its end, or a backslash at its end")
        return value

    def host(self, key: str, default: str = "") -> str:
        """A host's name, or its address, which may be in brackets as in a URL."""
        value = self.text(key, default)
        host = value[1:-1] if value[:1] == "[" and value[-1:] == "]" else value
        if (value and not host) or "/" in host or (":" in host and not _is_ipv6(host)):
            self.complain(key, f"must be the name or the address of a host, with no port, not {value!r}")
        return host

    def secret(self, key: str) -> str | None:
        """A value as it is, blanks included, but without the CR of a CRLF; no complaint ever shows it."""
        value = self._values.get(key, "").removesuffix("\r")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            self.complain(key, "holds a NUL character, or bytes that are not UTF-8")
        return value or None

    def integer(self, key: str, low: int, high: int, default: str = "") -> int:
        value = self.text(key, default)
        if value and not (re.fullmatch(r"[0-9]{1,18}", value) and low <= int(value) <= high):
            self.complain(key, f"must be a whole number from {low} to {high}, not {value!r}")
        elif value:
            return int(value)
        return low

    def seconds(self, key: str, default: str = "", longest: float = _LONGEST_SECONDS) -> float:
        value = self.text(key, default)
        try:
            number = float(value or "1")
        except ValueError:
            number = 0.0
        if not 0 < number <= longest:  # NaN and infinity fail this too
            self.complain(key, f"must be a number of seconds above 0 and up to {longest:.0f}, not {value!r}")
            return float(default or "1")
        return number

    def others_seconds(self, key: str, default: str) -> float:
        """Seconds for another script, which itself complains of a bad value; here the default replaces that."""
        return Reader(self._values, self._base).seconds(key, default)

    def choice(self, key: str, choices: Mapping[str, _T], default: str) -> _T:
        value = self.text(key, default).lower()
        if value not in choices:
            self.complain(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return choices.get(value, choices[default])

    def path(self, key: str) -> Path | None:
        return self.place(key) if self.has(key) else None

    def place(self, key: str, default: str = "") -> Path:
        text = self.text(key, default, any_letters=True)
        if text.startswith("~"):  # `environment` has replaced it wherever there is a home folder
            self.complain(key, f"there is no such home folder as in {text!r}")
        return self._base / text

    def rate(self, key: str, default: str) -> Rate | None:
        value = self.text(key, default).lower()
        found = _RATE.fullmatch(value)
        if value != "off" and not (found and int(found[1]) and int(found[3] or 1)):
            self.complain(key, f"must be N/hour or N/minute, then optionally burst N, or off, not {value!r}")
        if not found:
            return None
        count = int(found[1])
        return Rate(count, 3600 if found[2] == "hour" else 60, int(found[3] or count))
