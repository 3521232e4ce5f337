"""Editors: readline, or a plain one in its place, for a line at the terminal; and the person's own for a whole text.

Called by `terminal`.
"""

import locale
import os
import select
import shlex
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from mailer.console.endings import ends

_END_OF_INPUT, _ERASE, _KILL_LINE = b"\x04", b"\x7f\b", b"\x15"


def line_editor() -> ModuleType | None:
    """Readline, where there is one; a C locale is replaced, in which it would take the bytes of UTF-8 for commands."""
    for name in ("C.UTF-8", "C.utf8", "UTF-8"):  # as Python itself does unless LC_ALL says C
        with suppress(locale.Error):
            if locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX"):
                locale.setlocale(locale.LC_CTYPE, name)
                os.environ["LANGUAGE"] = os.environ.get("LANGUAGE") or os.environ.get("LC_ALL", "")  # the same language
                os.environ["LC_ALL"] = name  # where readline looks
    try:
        import readline  # imported here, because that alone changes the terminal's settings
    except ImportError:
        return None
    return readline


def edited(text: str, ended: list[int]) -> bytes:
    """What the person's editor makes of a text; raises OSError when there is no editor, or it failed.

    If the editor is killed or, as `ended` tells, the terminal goes away, it is the newest file that the editor left.
    """
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("notepad" if os.name == "nt" else "vi")
    with tempfile.TemporaryDirectory(prefix="mailer-") as folder:
        file = Path(folder, "message.txt")
        file.write_text(text + "\n", encoding="utf-8", errors="replace")
        windows = f"{chosen} {subprocess.list2cmdline([str(file)])}"  # there each program splits its own command line
        code = subprocess.call(windows if os.name == "nt" else [*shlex.split(chosen), str(file)])
        if code < 0 or ends(ended):  # some editors then save to `message.txt.save`
            return max(Path(folder).glob("message.txt*"), key=lambda path: path.stat().st_mtime_ns).read_bytes()
        if code:
            raise OSError(f"{chosen}: exit code {code}")
        return file.read_bytes()


class PlainEditor:
    """Reads lines byte by byte: a terminal that collects lines itself loses what a line has beyond 4095 bytes."""

    def __init__(self) -> None:
        self._typed = bytearray()

    def get_line_buffer(self) -> str:
        """The line as typed so far; the name is that of readline."""
        return self._typed.decode(sys.stdin.encoding, "surrogateescape")

    def line(self, prompt: str, value: str) -> str:
        """The value with what is typed behind it; raises EOFError at the end."""
        self._typed[:] = value.encode(sys.stdin.encoding, "surrogateescape")  # first: an interrupt asks for it
        sys.stdout.write(prompt + value)
        sys.stdout.flush()
        while True:
            select.select([0], [], [])  # unlike a read, any signal ends it (`endings`)
            byte = os.read(0, 1)
            if not byte or (byte == _END_OF_INPUT and not self._typed):
                raise EOFError
            if byte == b"\n":
                os.write(1, b"\n")
                return self.get_line_buffer()
            self._take(byte)

    def _take(self, byte: bytes) -> None:
        """Take one byte from the keyboard: echo it, or erase the last character or the whole line."""
        if byte in _ERASE or byte == _KILL_LINE:
            typed = self.get_line_buffer()
            kept = "" if byte == _KILL_LINE else typed[:-1]
            os.write(1, b"\b \b" * (len(typed) - len(kept)))
            self._typed[:] = kept.encode(sys.stdin.encoding, "surrogateescape")
        elif byte != _END_OF_INPUT:
            os.write(1, byte)
            self._typed += byte
