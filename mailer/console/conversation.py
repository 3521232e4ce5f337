"""The conversation at the terminal: asks, checks at once, sends, and asks again for just what was wrong.

Typed text goes into the draft before anything else happens to it, and stays there until the server has answered OK or
the person deletes it. A request has a new id when its content changes or it is to be sent anew. Called by `console`.
"""

import secrets
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mailer.console.courier import REMEMBERED, Courier, exit_code
from mailer.console.draft import Draft
from mailer.console.draft_file import read
from mailer.console.endings import end_no_more
from mailer.console.form import Form
from mailer.console.terminal import Terminal
from mailer.errors import ExitCode, Problem, TransportError, UnsentInterrupt, safe
from mailer.protocol import Reply, Request
from mailer.streams import FAINT, RED
from mailer.translation import _


def converse(
    terminal: Terminal, courier: Courier, email: str | None, message: str | None
) -> tuple[Reply | None, ExitCode]:
    """Hold the conversation; returns the last reply, if any, and how the script ends."""
    conversation = _Conversation(terminal, courier)
    try:
        conversation.begin(email, message)
        return conversation.send_until_settled()
    except (KeyboardInterrupt, EOFError, OSError):  # OSError: the terminal has gone
        if conversation.sent:
            return conversation.sent, ExitCode.DONE
        with suppress(OSError):
            conversation.part()
        return None, ExitCode.INTERRUPTED


class _Conversation:
    """One message from its first word to the server's answer."""

    def __init__(self, terminal: Terminal, courier: Courier) -> None:
        self._terminal, self._courier = terminal, courier
        self._draft = Draft()
        self._form = Form(terminal, self._draft)
        self._request = Request("", "", _new_id())
        self.sent: Reply | None = None
        self._twice = False  # it may have been sent under another id, or too long ago for the server to remember

    def begin(self, email: str | None, message: str | None) -> None:
        """Complete what the flags gave, or take up a draft."""
        if message is None:
            self._offer_drafts()
        address = self._form.email(self._request.email if email is None else email, ask=email is None)
        letter = self._letter(address)
        text = self._form.message(letter if message is None else replace(letter, message=message), ask=message is None)
        self._change(address, text)

    def send_until_settled(self) -> tuple[Reply | None, ExitCode]:
        """Send, and have the person correct what is wrong, until the message is sent or the person stops."""
        while True:
            doubtful = self._draft.doubtful  # from an earlier try, which this one may not settle
            self._keep(doubtful=True)
            self._terminal.say(_("Sending to {server} …").format(server=self._courier.server), FAINT)
            outcome: Reply | TransportError
            try:
                outcome = self._courier.deliver(self._request, self._terminal.say)
            except TransportError as failure:
                outcome = failure
            except KeyboardInterrupt as interrupt:
                self._terminal.say("")  # ends the line with the ^C
                if isinstance(interrupt, UnsentInterrupt):
                    self._keep(doubtful)
                raise
            if isinstance(outcome, Reply) and outcome.ok:
                self.sent = outcome
                end_no_more()
                self._draft.discard()
                return outcome, ExitCode.DONE
            uncertain = exit_code(outcome) is ExitCode.UNCERTAIN
            if isinstance(outcome, Reply) and not outcome.retry and not uncertain:
                # It was not sent. To the same id the server would only repeat this answer, even when the cause is gone.
                self._request = replace(self._request, id=_new_id())
                self._twice = self._twice or doubtful
            self._keep(doubtful or uncertain)
            if not self._mend(outcome):
                self.part()
                reply = outcome if isinstance(outcome, Reply) else None
                return reply, ExitCode.UNCERTAIN if self._draft.doubtful else exit_code(outcome)

    def part(self) -> None:
        """Say whether the message may have been sent, and whether its text is kept."""
        if not self._draft.written:
            self._draft.discard()
            return
        self._draft.make_sure()
        self._draft.close()
        doubtful = self._draft.may_have_been_sent
        self._terminal.say(_("It may have been sent all the same.") if doubtful else _("It was not sent."))
        if self._draft.trouble:
            self._terminal.say(_("The text could not be kept: {why}").format(why=safe(self._draft.trouble)), RED)
        else:
            self._terminal.say(_("Your text is kept: start client.py again to go on with it."))

    def _mend(self, outcome: Reply | TransportError) -> bool:
        """Have the person change what is wrong, or decide; False when they stop."""
        if isinstance(outcome, TransportError):
            self._terminal.say(self._courier.explain(outcome), RED)
            problems: tuple[Problem, ...] = ()
        else:
            problems = outcome.problems
            self._form.explain(problems, outcome.retry)
        fields = {problem.field for problem in problems}
        if not fields - {None} or (isinstance(outcome, Reply) and outcome.retry):
            fields = self._decide(outcome)
        email, message = self._request.email, self._request.message
        if "email" in fields:
            email = self._form.email(email)
        if "message" in fields:
            message = self._form.message(self._letter(email))
        self._change(email, message)
        return "nothing" not in fields

    def _decide(self, outcome: Reply | TransportError) -> set[str | None]:
        """Ask what to do after an error of no field, or one that may pass: try again (None), a field, or "nothing"."""
        again = _("Try again")
        uncertain = isinstance(outcome, Reply) and exit_code(outcome) is ExitCode.UNCERTAIN
        if uncertain or self._twice:
            again = _("Send it again, even if it should arrive twice")
        elif self._draft.doubtful:
            again = _("Ask again; within an hour the server does not send it twice, unless it has been restarted since")
        stop = _("Stop here; the text is kept for later")
        if self._draft.trouble:
            stop = _("Stop here; the text cannot be kept")
        default = 4 if isinstance(outcome, Reply) and not outcome.retry else 1
        chosen = self._form.choose(default, again, _("Change your e-mail address"), _("Change the text"), stop)
        if chosen == 1 and uncertain:
            # With the same id the server would only repeat its answer, but the person wants a second mail.
            self._request = replace(self._request, id=_new_id())
            self._twice = True
        return {(None, "email", "message", "nothing")[chosen - 1]}

    def _offer_drafts(self) -> None:
        """Offer the drafts that wait, the newest first, until one is taken up."""
        waiting = self._draft.waiting()
        for number, path in enumerate(waiting, 1):
            with suppress(OSError):  # another client was quicker
                if self._offer(path, last=number == len(waiting)):
                    return

    def _offer(self, path: Path, *, last: bool) -> bool:
        """Whether the person goes on with this draft, or wants to see no other."""
        kept, written, doubtful = read(path)
        words = _("A message to {email} that was not sent is kept, from {time:%Y-%m-%d %H:%M}:")
        if doubtful:
            words = _("A message to {email} that may have been sent is kept, from {time:%Y-%m-%d %H:%M}:")
        self._terminal.say(words.format(email=safe(kept.email) or "?", time=written))
        self._terminal.say("  " + safe(kept.message, 70))
        keep = _("Keep it for later and write another one") if last else _("Keep it for later")
        delete = _("Delete it and write another one") if last else _("Delete it")
        another = [] if last else [_("Write another one")]
        chosen = self._form.choose(1, _("Go on with it"), keep, delete, *another)
        if chosen == 1 and self._take(path, kept, doubtful):
            self._twice = doubtful and time.time() - written.timestamp() > REMEMBERED
            return True
        if chosen == 3:
            path.unlink()
        return chosen == 4

    def _take(self, path: Path, kept: Request, doubtful: bool) -> bool:
        """Whether the draft is this client's now."""
        try:
            self._draft.take(path, doubtful)
        except OSError:  # which one depends on the system
            self._terminal.say(_("Another client.py has taken it meanwhile."))
            return False
        self._request = replace(kept, id=kept.id or _new_id())
        return True

    def _letter(self, email: str) -> Request:
        """The request with this address; it keeps its id only if the address stays the same."""
        return replace(self._request, email=email, id=self._request.id if email == self._request.email else None)

    def _change(self, email: str, message: str) -> None:
        """Take the new content. If it differs it makes another request, which gets a new id and was never sent."""
        if (email, message) != (self._request.email, self._request.message):
            self._request = Request(email, message, _new_id())
            self._draft.doubtful = self._twice = False

    def _keep(self, doubtful: bool) -> None:
        self._draft.doubtful = doubtful
        self._draft.write(self._request)


def _new_id() -> str:
    return secrets.token_hex(16)
