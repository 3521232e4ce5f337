"""The person's terminal: words out, lines in, whole however long they are.

Lines are edited by readline where the platform has it (it also takes a bracketed paste of many lines as one answer).
Nothing is drawn over, nothing is measured. Called by `console` and `history`.
"""

import codecs
import io
import locale
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TextIO

from mailer.terminal_editor import PlainEditor, edited, line_editor

try:
    import termios
except ImportError:
    termios = None  # type: ignore[assignment]

RED, FAINT, BOLD = "31", "2", "1"
# More than this is not put before the person to edit in place; the editor (`~e`) is the tool for it.
_EDITABLE = 4_000
# What is left of a paste has all come when nothing comes for this long; a key that is held down ends the wait as well.
_PAUSE, _LONGEST_PASTE = 0.05, 2.0  # seconds
# Have the terminal mark what is pasted. When readline 8.2 asks for it, empty lines follow after an end of input.
_MARK_PASTES, _MARK_NO_PASTES = b"\x1b[?2004h", b"\x1b[?2004l"
# What is raised once there is no terminal any more.
_GONE = (OSError, termios.error) if termios else (OSError,)


class _ResumedError(Exception):
    """The shell had the terminal for a while, and has given it back: what was asked has to be shown again."""


class Terminal:
    """A conversation on the terminal that is standard input; `results` is standard output as it was given."""

    def __init__(self) -> None:
        self.results: TextIO | None = sys.stdout
        if not is_terminal(sys.stdout):  # `client.py --json > FILE`: prompts go where the person sees them
            if sys.stdout:
                self.results = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace")
            os.dup2(2, 1)
            sys.stdout = sys.stdout or os.fdopen(1, "w", encoding=sys.stderr.encoding, errors="replace")
        sys.stderr = sys.stderr or sys.stdout  # `input` wants both
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # bytes of another charset are a mistake to tell
        self._said = sys.stderr if is_terminal(sys.stderr) else sys.stdout
        self._readline = line_editor()
        gnu = self._readline is not None and "libedit" not in (self._readline.__doc__ or "")
        self._takes_pastes = gnu and not _is_dumb()  # whole, and edits several lines in place
        if self._readline and self._takes_pastes:
            self._readline.parse_and_bind("set enable-bracketed-paste off")
            self._readline.parse_and_bind(r'"\e[200~": bracketed-paste-begin')
        self._plain = PlainEditor()
        self._mode = termios.tcgetattr(0) if termios else []
        self._asking = False
        self.unfinished = ""

    def __enter__(self) -> "Terminal":
        """From here on every byte is handed over as it comes, between two lines too: a paste does not wait for us."""
        if termios:
            mode = termios.tcgetattr(0)
            mode[3] &= ~(termios.ICANON if self._readline else termios.ICANON | termios.ECHO)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSANOW, mode)
            if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:  # else Ctrl-Z is not to stop us
                signal.signal(signal.SIGTSTP, self._on_stop)
        if self._takes_pastes:
            os.write(1, _MARK_PASTES)
        return self

    def __exit__(self, *_: object) -> None:
        if termios:
            with suppress(*_GONE):
                try:
                    self.drop_unread()  # what is left of a paste is not for the shell to run
                finally:
                    self._hand_back()

    def say(self, text: str, style: str = "") -> None:
        """A line for the person."""
        print(paint(text, style, self._said), file=self._said, flush=True)

    def line(self, prompt: str = "", value: str = "") -> str:
        """What is typed, with `value` there to edit; several lines when they were pasted. Raises EOFError at the end.

        An interrupt leaves what was typed in `unfinished`; a terminal that goes away does so without readline alone,
        which empties its line before anybody hears of that.
        """
        try:
            return self._line(prompt, value)
        except KeyboardInterrupt:
            self.unfinished = self._so_far()
            raise

    def _line(self, prompt: str, value: str) -> str:
        while True:
            try:
                self._asking = True
                return self._edited(prompt, value) if self._readline or not termios else self._plain.line(prompt, value)
            except _ResumedError:
                value = self._so_far()
            except (EOFError, KeyboardInterrupt):
                if not sys.stdin.isatty():  # it has gone, which is no wish to send what is there so far
                    raise KeyboardInterrupt from None
                self.say("")
                raise
            finally:
                self._asking = False

    def drop_unread(self) -> None:
        """Drop what nobody asked for: the rest of a paste that is not bracketed, which must answer nothing."""
        end = time.monotonic() + _LONGEST_PASTE
        while termios and time.monotonic() < end and select.select([0], [], [], _PAUSE)[0]:
            termios.tcflush(0, termios.TCIFLUSH)

    def can_edit(self, value: str) -> bool:
        """Whether `line` can put this value before the person to edit in place."""
        if not value:
            return True
        if self._readline is None or len(value) > _EDITABLE or not value.replace("\n", "").isprintable():
            return False
        try:
            value.encode(locale.getencoding())  # as readline takes it
        except UnicodeError:
            return False
        return self._takes_pastes or "\n" not in value

    def edit(self, text: str, ended: list[int]) -> str:
        """The text after the person's editor is done with it; raises OSError when there is none, or it failed.

        `ended`: the signals that come meanwhile.
        """
        self.__exit__()
        try:
            return decode(edited(text, ended)).replace("\r\n", "\n").removesuffix("\n")
        finally:
            with suppress(*_GONE):
                self.__enter__()

    def _edited(self, prompt: str, value: str) -> str:
        editor = self._readline
        if editor and value:
            editor.set_startup_hook(lambda: editor.insert_text(value))
        try:
            return input(prompt)
        finally:
            if editor:
                editor.set_startup_hook()

    def _so_far(self) -> str:
        return str((self._readline or self._plain).get_line_buffer())

    def _on_stop(self, *_: object) -> None:
        """Ctrl-Z: the shell gets its terminal back, and we take it again when the shell goes on with us."""
        self._hand_back()
        signal.raise_signal(signal.SIGTSTP)  # returns after the SIGCONT
        self.__enter__()
        if self._asking:
            raise _ResumedError

    def _hand_back(self) -> None:
        if signal.getsignal(signal.SIGTSTP) == self._on_stop:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        if self._takes_pastes:
            os.write(1, _MARK_NO_PASTES)
        termios.tcsetattr(0, termios.TCSANOW, self._mode)


def interactive() -> bool:
    """Whether there is a person: one who types, and who sees what is asked."""
    return is_terminal(sys.stdin) and (is_terminal(sys.stdout) or is_terminal(sys.stderr))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether it is one; a stream that was closed before the script began is None."""
    return stream is not None and stream.isatty()


def paint(text: str, style: str, stream: TextIO) -> str:
    """The text in a style, on a terminal that shows styles and for a person who wants them."""
    plain = os.environ.get("NO_COLOR") or _is_dumb()
    if os.name == "nt":
        plain = plain or "WT_SESSION" not in os.environ  # the older console shows the codes themselves
    return f"\x1b[{style}m{text}\x1b[0m" if style and not plain and stream.isatty() else text


def _is_dumb() -> bool:
    """Whether it takes no escape sequences, or, as readline sees it, nobody says what it takes; Windows never does."""
    return os.environ.get("TERM", "" if os.name == "nt" else "dumb") == "dumb"


def complain(words: str) -> None:
    """Words for the person on stderr, as far as there is one that takes them: the exit code tells it, too."""
    with suppress(OSError):
        if sys.stderr:
            sys.stderr.write(f"{words}\n")
            sys.stderr.flush()


def show_any_text() -> None:
    """Let no character that this locale lacks end the script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def decode(data: bytes) -> str:
    """A file's text: UTF-8, UTF-16 with its mark, or the locale's charset; what is none of these cannot be sent."""
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16" if utf_16 else "utf-8-sig", locale.getencoding()):
        with suppress(UnicodeError, LookupError):
            return data.decode(encoding)
    return data.decode("utf-8", "surrogateescape")
