"""The questions of the conversation: each is asked until the answer is valid, with the earlier answer ready to edit.

Every line of a message is in the draft before the next one is asked for. Called by `conversation`.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace

from mailer.console.draft import Draft
from mailer.console.endings import endings_noted
from mailer.console.terminal import Terminal
from mailer.errors import Problem, RequestError, safe
from mailer.protocol import Request
from mailer.streams import RED
from mailer.translation import _, explain_all
from mailer.validation import check_email, check_message

# One blank: without a prompt readline 8.2 shows no new line after an empty one (its patch 7 mends that).
_PROMPT = " "
# A dot, or the command for the editor, alone on the last line of what was typed or pasted at once.
_COMMAND = re.compile(r"(?:^|\n)(\.|~e)\n*\Z")


class Form:
    """Asks for each input, and explains why an answer is not valid."""

    def __init__(self, terminal: Terminal, draft: Draft) -> None:
        self._terminal = terminal
        self._draft = draft

    def explain(self, problems: Sequence[Problem], retry: bool = False) -> None:
        """Say what is wrong, and drop the rest of a paste, which must answer nothing; `retry`: it may succeed later."""
        self._terminal.drop_unread()
        for words in explain_all(problems, ":\n", retry=retry):
            self._terminal.say(words, RED)

    def choose(self, default: int, *options: str) -> int:
        """The number of the option that the person chooses."""
        self._terminal.drop_unread()
        for number, option in enumerate(options, 1):
            self._terminal.say(f"  {number}  {option}")
        while True:
            typed = self._terminal.line(_("Number (Enter means {default}): ").format(default=default)).strip()
            if typed in map(str, range(1, len(options) + 1)) or not typed:
                return int(typed or default)
            self._terminal.say(_("The numbers are 1 to {most}.").format(most=len(options)), RED)

    def email(self, value: str, ask: bool = True) -> str:
        """A valid address: the one that is given, or what the person makes of it."""
        while True:
            if ask and self._terminal.can_edit(value):
                self._say_how_to_edit(value)
                value = self._terminal.line(_("Your e-mail address: "), value).strip()
            elif ask:
                prompt = _("Your e-mail address (Enter keeps {email}): ").format(email=safe(value))
                value = self._terminal.line(prompt).strip() or value
            try:
                check_email(value)
                return value
            except RequestError as wrong:
                self.explain(wrong.problems)
                ask = True

    def message(self, request: Request, ask: bool = True) -> str:
        """A valid message: the request's, or what the person makes of it."""
        while True:
            if ask:
                request = replace(request, message=self._typed(request))
            try:
                check_message(request.message)
                return request.message
            except RequestError as wrong:
                self.explain(wrong.problems)
                ask = True

    def _typed(self, request: Request) -> str:
        """The text typed up to a dot or the end of input; the request's text can be edited in place, or kept."""
        text = request.message if request.message.strip() else ""
        kept, value = ("", text) if self._terminal.can_edit(text) else (text, "")
        self._introduce(kept, value)
        below = "\n" if value and self._terminal.can_edit(value + "\n") else ""  # an empty line for the dot
        lines: list[str] = []
        try:
            while True:
                typed = self._terminal.line(_PROMPT, value + below).removesuffix(below)
                if kept and not typed:
                    return kept
                command = _COMMAND.search(typed)
                if command is None or command.start() > 0:
                    self._add(typed[: command.start()] if command else typed, lines, request)
                if command and command[1] == ".":
                    return "\n".join(lines) or kept
                if command:
                    self._edit(lines, kept, request)
                kept = value = below = ""
        except EOFError:
            return "\n".join(lines) or kept
        except KeyboardInterrupt:
            if self._terminal.unfinished and not kept:  # an unfinished line replaces no kept text
                self._add(self._terminal.unfinished.removesuffix(below), lines, request)
            raise

    def _introduce(self, kept: str, value: str) -> None:
        """Say how to type a message, and what can be done with an earlier one: `kept`, or `value` to edit in place."""
        keys = _("Ctrl-Z and Enter") if os.name == "nt" else _("Ctrl-D")
        words = _("Your message; end it with a line holding a single dot, or {keys} (~e: editor):")
        self._terminal.say(words.format(keys=keys))
        self._say_how_to_edit(value)
        if kept and _can_be_sent(kept):
            self._terminal.say(_("Enter keeps the text as it is, ~e edits it, anything else replaces it."))
        elif kept:
            self._terminal.say(_("~e edits the text, anything else replaces it."))

    def _say_how_to_edit(self, value: str) -> None:
        if value:
            self._terminal.say(_("Edit what is there, or press Ctrl-U to start over:"))

    def _add(self, typed: str, lines: list[str], request: Request) -> None:
        if lines:
            self._draft.add("\n" + typed)
        else:
            # With another text it is another request, which was never sent: it has no id yet.
            self._draft.write(replace(request, message=typed, id=request.id if typed == request.message else None))
        lines.append(typed)

    def _edit(self, lines: list[str], kept: str, request: Request) -> None:
        """Open the text so far, or the kept one, in the person's editor; the result becomes the first of the lines."""
        text = "\n".join(lines) or kept
        with endings_noted() as ended:  # until the text is in the draft; a window that closes may send several
            try:
                text = self._terminal.edit(text, ended)
            except (OSError, ValueError) as failure:  # ValueError: an open quote in its command
                self._terminal.say(_("The editor cannot be used: {why}").format(why=safe(str(failure))), RED)
            lines.clear()
            if text:
                self._add(text, lines, request)
        words = _("Lines so far: {lines}, characters: {characters}. Go on, or end the text.")
        self._terminal.say(words.format(lines=len(text.split("\n")), characters=len(text)))


def _can_be_sent(message: str) -> bool:
    try:
        check_message(message)
    except RequestError:
        return False
    return True
