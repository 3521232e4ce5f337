"""The person's terminal: shows text and reads lines, whole however long they are.

Lines are edited by readline where the platform has it (it also takes a bracketed paste of many lines as one answer).
Output is never redrawn or measured. Called by `console`, `conversation` and `form`.
"""

import io
import locale
import os
import select
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TextIO

from mailer.console.editor import PlainEditor, edited, line_editor
from mailer.console.endings import endings_noticed
from mailer.streams import decode, is_dumb, is_terminal, paint

try:
    import termios
except ImportError:
    termios = None  # type: ignore[assignment]

# A text of more characters is not offered for editing in place; the editor (`~e`) is the tool for it.
_EDITABLE = 4_000
# The rest of a paste has arrived when nothing comes for _PAUSE. The second limit is for a key that is held down.
_PAUSE, _LONGEST_PASTE = 0.05, 2.0  # seconds
# Bracketed paste, on and off. Mailer switches it: when readline 8.2 does so, empty lines follow an end of input.
_MARK_PASTES, _MARK_NO_PASTES = b"\x1b[?2004h", b"\x1b[?2004l"
# What is raised once there is no terminal any more.
_GONE = (OSError, termios.error) if termios else (OSError,)


class _ResumedError(Exception):
    """The client was stopped by Ctrl-Z and has been resumed: the question has to be shown again."""


class Terminal:
    """A conversation on the terminal that is standard input; `results` is standard output as it was given."""

    def __init__(self) -> None:
        self.results: TextIO | None = sys.stdout
        if not is_terminal(sys.stdout):  # `client.py --json > FILE`: prompts go where the person sees them
            if sys.stdout:
                self.results = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="replace")
            os.dup2(2, 1)
            sys.stdout = sys.stdout or os.fdopen(1, "w", encoding=sys.stderr.encoding, errors="replace")
        sys.stderr = sys.stderr or sys.stdout  # `input` needs both
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # `check_message` reports undecodable bytes
        self._said = sys.stderr if is_terminal(sys.stderr) else sys.stdout
        self._readline = line_editor()
        gnu = self._readline is not None and "libedit" not in (self._readline.__doc__ or "")
        self._takes_pastes = gnu and not is_dumb()  # takes a paste whole, and edits several lines in place
        if self._readline and self._takes_pastes:
            self._readline.parse_and_bind("set enable-bracketed-paste off")
            self._readline.parse_and_bind(r'"\e[200~": bracketed-paste-begin')
        if self._readline and not gnu:
            self._readline.parse_and_bind("setty -d +noflsh")  # libedit would take it away while it edits
        self._plain = PlainEditor()
        self._mode = termios.tcgetattr(0) if termios else []
        self._asking = False
        self.unfinished = ""

    def __enter__(self) -> "Terminal":
        try:
            self._take()
        except KeyboardInterrupt:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _take(self) -> None:
        """Have the terminal hand over each byte at once from here on, also between two lines: no paste has to wait."""
        if termios:
            mode = termios.tcgetattr(0)
            mode[3] &= ~(termios.ICANON if self._readline else termios.ICANON | termios.ECHO)
            # Ctrl-C does not take away a letter that came just before: readline would wait for it, deaf to signals.
            mode[3] |= termios.NOFLSH
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSANOW, mode)
            if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:  # otherwise Ctrl-Z is ignored and stays so
                signal.signal(signal.SIGTSTP, self._on_stop)
        if self._takes_pastes:
            os.write(1, _MARK_PASTES)

    def _leave(self) -> None:
        """Leave the terminal to others, as it was before."""
        if termios:
            with suppress(*_GONE):
                try:
                    self.drop_unread()  # the shell must not run the rest of a paste
                finally:
                    self._hand_back()

    def say(self, text: str, style: str = "") -> None:
        """Show the person a line."""
        print(paint(text, style, self._said), file=self._said, flush=True)

    def line(self, prompt: str = "", value: str = "") -> str:
        """What is typed, with `value` there to edit; several lines when they were pasted. Raises EOFError at the end.

        An interrupt leaves the typed text in `unfinished`. So does a terminal that goes away, but not with readline,
        which empties its line before it reports that.
        """
        try:
            with endings_noticed():
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
                if not sys.stdin.isatty():  # the terminal has gone: no wish to send the text so far
                    raise KeyboardInterrupt from None
                self.say("")
                raise
            finally:
                self._asking = False

    def drop_unread(self) -> None:
        """Drop unread input: the rest of a paste that is not bracketed must not answer the next question."""
        end = time.monotonic() + _LONGEST_PASTE
        with suppress(*_GONE):
            while termios and time.monotonic() < end and select.select([0], [], [], _PAUSE)[0]:
                termios.tcflush(0, termios.TCIFLUSH)

    def can_edit(self, value: str) -> bool:
        """Whether `line` can put this value before the person to edit in place."""
        if not value:
            return True
        if self._readline is None or len(value) > _EDITABLE or not value.replace("\n", "").isprintable():
            return False
        try:
            value.encode(locale.getencoding())  # readline takes this charset
        except UnicodeError:
            return False
        return self._takes_pastes or "\n" not in value

    def edit(self, text: str, ended: list[int]) -> str:
        """The text as the person's editor leaves it; raises OSError when there is no editor, or it failed.

        `ended` lists the signals that have come meanwhile.
        """
        self._leave()
        try:
            return decode(edited(text, ended)).replace("\r\n", "\n").removesuffix("\n")
        finally:
            with suppress(*_GONE):
                self._take()

    def _edited(self, prompt: str, value: str) -> str:
        editor = self._readline
        if editor and value:
            # No function in Python: an interrupt that one raises is dropped by readline.
            editor.set_startup_hook(partial(editor.insert_text, value))
        try:
            return input(prompt)
        finally:
            if editor:
                editor.set_startup_hook()

    def _so_far(self) -> str:
        return str((self._readline or self._plain).get_line_buffer())

    def _on_stop(self, *_: object) -> None:
        """Ctrl-Z: give the terminal back to the shell, and take it again when the shell resumes the client."""
        termios.tcflush(0, termios.TCIFLUSH)  # as the system does without NOFLSH: the shell must not run it
        self._hand_back()
        signal.raise_signal(signal.SIGTSTP)  # returns after the SIGCONT
        self._take()
        if self._asking:
            raise _ResumedError

    def _hand_back(self) -> None:
        if signal.getsignal(signal.SIGTSTP) == self._on_stop:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        if self._takes_pastes:
            os.write(1, _MARK_NO_PASTES)
        termios.tcsetattr(0, termios.TCSANOW, self._mode)
