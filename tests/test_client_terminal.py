"""`client.py` and a person at a terminal: what is asked, what is shown, what arrives, what is kept."""

import contextlib
import errno
import json
import locale
import os
import re
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

if os.name != "posix":
    raise unittest.SkipTest("there are no pseudo-terminals here")

import termios

from mailer.console import draft_file
from mailer.console.draft import Draft
from mailer.console.draft_file import read
from mailer.console.endings import endings_noticed
from mailer.console.terminal import Terminal
from mailer.protocol import Request
from tests.sandbox.certificates import LOOPBACK
from tests.support.client import ROOT, ClientTestCase
from tests.support.fakeserver import OK, FakeServer, error, silence
from tests.support.person import CTRL_BACKSLASH, CTRL_C, CTRL_D, CTRL_Z, Person
from tests.support.waiting import wait_until

try:
    import readline

    GNU_READLINE = "libedit" not in (readline.__doc__ or "")
except ImportError:
    GNU_READLINE = False

ADDRESS = ("--email", "alice@example.com")
WITHOUT_READLINE = (
    f"import sys; sys.modules['readline'] = None; sys.path.insert(0, {str(ROOT)!r}); import client; "
    "sys.exit(client.main(sys.argv[1:]))"
)
# Has another thread take a signal, so that it ends no wait: as if it had come the moment before.
ENDED_UNNOTICED = """
import signal, sys, threading, time
{without}
def end():
    while "half" not in terminals[0]._so_far():
        time.sleep(0.05)
    signal.pthread_kill(threading.get_ident(), {number})
    time.sleep(60)
sys.path.insert(0, {root!r})
import client
from mailer.console.terminal import Terminal
terminals, take = [], Terminal.__enter__
def enter(self):
    terminals.append(self)
    threading.Thread(target=end, daemon=True).start()
    return take(self)
Terminal.__enter__ = enter
sys.exit(client.main(sys.argv[1:]))
"""
# Is told its end in the moment when it has changed the terminal.
TAKEN = """
import os, signal, sys, termios
sys.path.insert(0, {root!r})
import client
from mailer.console import terminal
change = termios.tcsetattr
def changes(*how):
    change(*how)
    termios.tcsetattr = change
    os.kill(os.getpid(), {number})
termios.tcsetattr = changes
sys.exit(client.main(sys.argv[1:]))
"""
LONG_LINE = "".join(f"ж{number} " for number in range(4000))


class TerminalTestCase(ClientTestCase):
    def person(self, port: int, *flags: str, stdout: int | None = None) -> Person:
        return Person(self.command(port, *flags), self.env, stdout)

    def without_readline(self, port: int, *flags: str) -> Person:
        return Person(self.command_without_readline(port, *flags), self.env)

    def command_without_readline(self, port: int, *flags: str) -> list[str]:
        return self.command_by(WITHOUT_READLINE, port, *flags)

    def command_by(self, code: str, port: int, *flags: str) -> list[str]:
        """The command with code in place of the script."""
        script, *rest = self.command(port, *flags)[1:]
        self.assertTrue(script.endswith("client.py"))
        return [sys.executable, "-c", code, *rest]

    def shown(self, person: Person) -> list[str]:
        """The lines on the screen, without their styles and the blanks around them."""
        plain = re.sub(r"\x1b\[[?0-9]*[a-z]|\r", "", person.screen)
        return [line.strip() for line in plain.split("\n")]

    def kept(self) -> list[str]:
        """The texts of the drafts."""
        return [file.read_text(encoding="utf-8").partition("\n")[2] for file in self.drafts.glob("draft-*")]


class AskingTest(TerminalTestCase):
    def test_asks_for_address_and_text_and_tells_the_ticket(self) -> None:
        for end in (".\r", CTRL_D):
            with self.subTest(end), FakeServer() as server, self.person(server.port) as person:
                person.answers("e-mail address: ", "alice@example.com\r")
                person.answers("single dot, or Ctrl-D", "The printer\r\r  is on fire 🙂\r" + end)
                person.sees("12345")
                self.assertEqual(person.ends(), 0)
                self.assertEqual(server.requests[0]["message"], "The printer\n\n  is on fire 🙂")
                self.assertEqual(self.kept(), [])

    @unittest.skipUnless(GNU_READLINE, "nothing tells here when a line may be typed")
    def test_an_empty_line_is_shown(self) -> None:
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            for line in ("one\r", "\r", "two\r", ".\r"):
                person.answers("\n ", line)
            self.assertEqual(person.ends(), 0)
            self.assertEqual(self.shown(person)[1:5], ["one", "", "two", "."])

    @unittest.skipUnless(GNU_READLINE, "nothing tells here when a line may be typed")
    def test_after_an_end_of_input_lines_follow_each_other(self) -> None:
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            for line in (CTRL_D, "one\r", "two\r", CTRL_D):
                person.answers("\n ", line)
            self.assertEqual(person.ends(), 0)
            shown = self.shown(person)
            self.assertEqual(shown[1:3], ["", "The message is empty."])
            self.assertEqual(shown[4:7], ["one", "two", ""])
            self.assertEqual(server.requests[0]["message"], "one\ntwo")

    def test_a_wrong_address_is_caught_before_the_text_is_typed(self) -> None:
        with FakeServer() as server, self.person(server.port) as person:
            person.answers("e-mail address: ", "alice\r")
            person.sees("name@example.com")
            if GNU_READLINE:
                person.sees("Ctrl-U to start over")
            person.answers("e-mail address: ", "@example.com\r" if GNU_READLINE else "alice@example.com\r")
            person.answers("Your message", "x\r.\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0]["email"], "alice@example.com")

    def test_an_empty_text_is_asked_for_again(self) -> None:
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", " \r.\r")
            person.sees("The message is empty")
            person.answers("Your message", "x\r.\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0]["message"], "x")
            self.assertNotIn("Ctrl-U", person.screen)

    def test_bytes_that_are_no_text_are_told_and_asked_for_again(self) -> None:
        self.env["PYTHONIOENCODING"] = "utf-8:strict"  # as it is in every locale that has a language
        with FakeServer() as server, self.person(server.port) as person:
            person.answers("e-mail address: ", b"caf\xe9\r")
            person.sees("name@example.com")
            person.answers("e-mail address", "\x15alice@example.com\r")
            person.answers("Your message", b"one\rcaf\xe9\r.\r")
            person.sees("bytes that are not UTF-8, on line 2")
            person.answers("Your message", "x\r.\r")
            self.assertEqual(person.ends(), 0)

    def test_a_terminal_of_which_nothing_is_known_gets_no_escape_sequences(self) -> None:
        del self.env["TERM"]
        with FakeServer() as server, self.person(server.port) as person:
            person.answers("e-mail address: ", "alice\r")
            person.answers("name@example.com", "@example.com\r")
            person.answers("Your message", "x\r.\r")
            self.assertEqual(person.ends(), 0)
            self.assertNotIn("\x1b", person.screen)
            self.assertEqual(server.requests[0]["message"], "x")

    def test_what_a_flag_gives_is_not_asked(self) -> None:
        with FakeServer() as server, self.person(server.port, "--message", "x") as person:
            person.answers("e-mail address: ", "alice@example.com\r")
            self.assertEqual(person.ends(), 0)
            self.assertNotIn("Your message", person.screen)

    def test_the_result_alone_goes_to_a_redirected_standard_output(self) -> None:
        reading, writing = os.pipe()
        with FakeServer() as server, self.person(server.port, "--json", stdout=writing) as person:
            os.close(writing)
            person.answers("e-mail address: ", "alice@example.com\r")
            person.answers("Your message", "x\r.\r")
            self.assertEqual(person.ends(), 0)
        with os.fdopen(reading) as results:
            self.assertEqual(json.loads(results.read()), OK)

    def test_the_editor_gets_the_text_so_far(self) -> None:
        editor = self.home / "editor"
        editor.write_text("#!/bin/sh\ntr a-z A-Z <\"$2\" >\"$2.new\" && mv \"$2.new\" \"$2\"\n")
        editor.chmod(0o700)
        for chosen in ({"EDITOR": f"'{editor}' -x"}, {"VISUAL": f"'{editor}' -x", "EDITOR": "false"}):
            self.env |= chosen
            with self.subTest(chosen), FakeServer() as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\r\r~e\r")
                person.answers("Lines so far: 2", "three\r.\r")
                self.assertEqual(person.ends(), 0)
                self.assertEqual(server.requests[0]["message"], "ONE\n\nthree")

    def test_an_editor_that_is_not_there_or_fails_costs_nothing(self) -> None:
        for self.env["EDITOR"] in ("/nowhere/editor", "false"):
            with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\r~e\r")
                person.answers("cannot be used", "two\r.\r")
                self.assertEqual(person.ends(), 0)
                self.assertEqual(server.requests[0]["message"], "one\ntwo")


class PasteTest(TerminalTestCase):
    def arrives(self, person: Person, server: FakeServer, typed: str, text: str) -> None:
        person.sees("Your message")
        person.types(typed)
        self.assertEqual(person.ends(60), 0)
        self.assertEqual(server.requests[0]["message"], text)

    def test_lines_longer_than_a_terminal_collects_arrive_whole(self) -> None:
        text = f"{LONG_LINE}\n\n{LONG_LINE}"
        for start in (self.person, self.without_readline):
            with self.subTest(start.__name__), FakeServer() as server, start(server.port, *ADDRESS) as person:
                self.arrives(person, server, text.replace("\n", "\r") + "\r.\r", text)

    @unittest.skipUnless(GNU_READLINE, "the line editor here knows no bracketed paste")
    def test_a_bracketed_paste_arrives_whole_with_its_dots(self) -> None:
        text = "\n".join([LONG_LINE, "", ".", "~e", *(f"line {number}" for number in range(2000))])
        for end in ("\r.\r", "\n.\r"):  # after the paste, and as its last line
            with self.subTest(end), FakeServer() as server, self.person(server.port, *ADDRESS) as person:
                pasted = f"\x1b[200~{text}\x1b[201~\r.\r" if end[0] == "\r" else f"\x1b[200~{text}\n.\x1b[201~\r"
                self.arrives(person, server, pasted, text)
                self.assertIn("\x1b[?2004h", person.screen)  # what asks the terminal to bracket a paste

    def test_what_is_pasted_after_the_end_does_not_reach_the_shell(self) -> None:
        self.env["TERM"] = "dumb"  # which has no bracketed paste
        rest = 'stty -icanon min 0 time 5; printf "left: [%s]" "$(dd bs=1 count=1)"; exit $code'
        for start in (self.command, self.command_without_readline):
            with self.subTest(start.__name__), FakeServer() as server:
                command = ["sh", "-c", f'"$@"; code=$?; {rest}', "sh", *start(server.port, *ADDRESS)]
                with Person(command, self.env) as person:
                    person.answers("Your message", "x\r.\r" + "echo pasted\r" * 200)
                    person.sees("left: []")
                    self.assertEqual(person.ends(), 0)

    def test_a_second_mail_is_not_denied_where_it_would_go_under_another_id(self) -> None:
        answers = (None, None, error("mail_rejected"), OK)  # lost twice, and refused, as by another server
        with FakeServer(*answers) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.answers("Ask again; within an hour", "1\r")
            person.answers("Send it again, even if it should arrive twice", "1\r")
            self.assertEqual(person.ends(), 0)
            self.assertNotEqual(server.requests[-1]["id"], server.requests[0]["id"])

    def test_what_is_pasted_after_the_end_chooses_nothing(self) -> None:
        self.env["TERM"] = "dumb"
        with FakeServer(error("delivery_uncertain"), OK) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r1\r1\r")
            person.answers("Number (Enter means 4)", "\r")
            self.assertEqual(person.ends(), 74)
            self.assertEqual(len(server.requests), 1)

    def test_what_is_pasted_after_the_end_answers_no_complaint(self) -> None:
        self.env["TERM"] = "dumb"
        for start in (self.person, self.without_readline):
            answers = error("recipient_refused", "550 no such person"), OK
            with self.subTest(start.__name__), FakeServer(*answers) as server, start(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\r.\rbob@example.com\rtwo\r.\r")
                person.sees("e-mail address")
                person.types(CTRL_C)
                self.assertEqual((person.ends(), len(server.requests)), (130, 1))
            for file in self.drafts.iterdir():
                file.unlink()

    @unittest.skipUnless(os.environ.get("MAILER_LONG"), "a megabyte takes its time")
    def test_a_megabyte_is_taken_in(self) -> None:
        text = "x" * 1_000_000
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            person.sees("Your message")
            person.types(f"\x1b[200~{text}\x1b[201~\r.\r")
            person.sees("1,000,000", 60)

    def test_without_readline_keys_still_erase(self) -> None:
        with FakeServer() as server, self.without_readline(server.port) as person:
            person.answers("e-mail address: ", "bob\x15alicia\x7f\x7fe@example.com\r")
            person.answers("Your message", "пр\x7fхвост\r" + CTRL_D)
            self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0]["email"], "alice@example.com")
            self.assertEqual(server.requests[0]["message"], "пхвост")


class MendingTest(TerminalTestCase):
    def test_only_the_field_that_is_wrong_is_asked_again(self) -> None:
        refused = error("recipient_refused", "550 No such user \x1b[31m")
        with FakeServer(refused, OK) as server, self.person(server.port) as person:
            person.answers("e-mail address: ", "alice@example.com\r")
            person.answers("Your message", "x\r.\r")
            person.sees("550 No such user")
            person.answers("e-mail address: ", ".au\r" if GNU_READLINE else "alice@example.com.au\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual(person.screen.count("Your message"), 1)
            first, second = server.requests
            self.assertEqual(second["email"], "alice@example.com.au")
            self.assertNotEqual(first["id"], second["id"])
            self.assertNotIn("user \x1b[31m", person.screen)

    @unittest.skipUnless(GNU_READLINE, "several lines cannot be edited in place here")
    def test_the_text_is_there_to_edit(self) -> None:
        with FakeServer(error("message_invalid"), OK) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "one\rtwo\r.\r")
            person.answers("Your message", "\b and a half\r.\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[1]["message"], "one\ntwo and a half")

    @unittest.skipUnless(GNU_READLINE, "several lines cannot be edited in place here")
    def test_a_dot_below_the_text_ends_it_unchanged(self) -> None:
        for keys in (".\r", "\r.\r"):
            with FakeServer(error("message_invalid"), OK) as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\rtwo\r.\r")
                person.answers("Your message", keys)
                self.assertEqual(person.ends(), 0)
                self.assertEqual(server.requests[1]["message"], "one\ntwo")

    def test_what_cannot_be_edited_in_place_is_kept_by_enter(self) -> None:
        for start, text in ((self.person, "y" * 5000), (self.without_readline, "y")):
            with self.subTest(start.__name__), FakeServer(error("message_invalid"), OK) as server:
                with start(server.port, *ADDRESS, "--message", text[1:]) as person:
                    self.assertEqual(person.ends(), 1)  # nothing is asked when everything was given
                server.requests.clear()
                server.answers = [error("message_invalid"), OK]
                with start(server.port, *ADDRESS) as person:
                    person.answers("Your message", f"{text}\r.\r")
                    person.answers("Enter keeps", "\r")
                    self.assertEqual(person.ends(), 0)
                    self.assertEqual(server.requests[0] | {"id": ""}, server.requests[1] | {"id": ""})

    def test_what_cannot_be_sent_is_not_offered_to_be_kept(self) -> None:
        self.drafts.mkdir()
        (self.drafts / "draft-999999999").write_text('{"email": "", "id": "1"}\n' + "x" * 100_001)
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Number", "1\r")
            for loses_nothing in ("\r", ".\r"):
                person.answers("~e edits the text, anything else replaces it", loses_nothing)
                person.sees("100,001 characters")
            person.answers("~e edits the text, anything else replaces it", "short\r.\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0]["message"], "short")
            self.assertNotIn("Enter keeps", person.screen)

    def test_a_passing_trouble_is_tried_again_as_the_same_request(self) -> None:
        trouble = error("mail_unavailable", "timed out", retry=True)
        with FakeServer(trouble, OK) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.sees("timed out")
            person.sees("Change your e-mail address")
            person.answers("Number", "\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0], server.requests[1])

    def test_an_address_that_is_not_taken_just_now_can_be_tried_again(self) -> None:
        greylisted = error("recipient_refused", "450 Greylisted", retry=True)
        with FakeServer(greylisted, OK) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.sees("for this address just now")
            person.sees("450 Greylisted")
            person.answers("Number (Enter means 1)", "\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0], server.requests[1])

    def test_stopping_keeps_the_text_and_tells_why_by_the_exit_code(self) -> None:
        for answer, code in (
            (error("mail_rejected"), 1), (error("busy", retry=True), 75), (error("delivery_uncertain"), 74), (None, 74),
        ):  # fmt: skip
            with self.subTest(answer), FakeServer(answer) as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.answers("Number", "4\r")
                person.sees("Your text is kept")
                self.assertEqual(person.ends(), code)
                self.assertEqual(self.kept(), ["x"])
            for file in self.drafts.iterdir():
                file.unlink()

    def test_what_was_refused_for_good_is_another_request_when_it_is_tried_again(self) -> None:
        refusals = (error("mail_auth_failed"), "1\r"), (error("recipient_refused", "550 no"), "\r")
        for refusal, answer in refusals:
            with self.subTest(refusal), FakeServer(refusal, OK) as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.answers("Number" if answer == "1\r" else "Your e-mail address", answer)
                self.assertEqual(person.ends(), 0)
                first, second = server.requests
                self.assertNotEqual(first["id"], second["id"])  # the server would answer the same request as before
                self.assertEqual(first["message"], second["message"])

    def test_an_uncertain_delivery_is_sent_again_only_when_the_person_says_so(self) -> None:
        with FakeServer(error("delivery_uncertain"), OK) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.sees("Nobody can tell")
            person.answers("Number (Enter means 4)", "1\r")
            self.assertEqual(person.ends(), 0)
            first, second = server.requests
            self.assertNotEqual(first["id"], second["id"])  # the server would answer the same request as before

    def test_what_may_have_been_sent_under_another_id_may_arrive_twice(self) -> None:
        answers = (error("delivery_uncertain"), error("mail_unavailable", retry=True), OK)
        with FakeServer(*answers) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            for _ in range(2):
                person.answers("Send it again, even if it should arrive twice", "1\r")
            self.assertEqual(person.ends(), 0)
            self.assertNotIn("does not send it twice", person.screen)

    def test_a_lost_answer_is_asked_for_again_as_the_same_request(self) -> None:
        with FakeServer(None, None, OK) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.sees("asking for it once more")
            person.answers("does not send it twice", "1\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual([request["id"] for request in server.requests], [server.requests[0]["id"]] * 3)

    def test_a_server_that_is_not_there_can_be_tried_again(self) -> None:
        with self.person(1, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.sees("127.0.0.1:1")
            person.answers("Number", "\r")
            person.sees("127.0.0.1:1")
            person.answers("Number", "4\r")
            self.assertEqual(person.ends(), 69)

    def test_the_other_choices_change_address_and_text(self) -> None:
        with FakeServer(error("mail_rejected"), OK) as server, self.without_readline(server.port) as person:
            person.answers("e-mail address: ", "alice@example.com\r")
            person.answers("Your message", "x\r.\r")
            person.answers("Number", "9\r")
            person.sees("The numbers are 1 to 4.")
            person.answers("Number", "2\r")
            person.answers("Enter keeps alice@example.com", "bob@example.com\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual((server.requests[1]["email"], server.requests[1]["message"]), ("bob@example.com", "x"))


class WaitingTest(TerminalTestCase):
    def test_a_long_wait_is_explained_and_ctrl_c_ends_it(self) -> None:
        with FakeServer(silence) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.sees("Sending to")
            person.sees("120 seconds at most")
            person.types(CTRL_C)
            person.sees("\r\nIt may have been sent")
            self.assertEqual(person.ends(), 130)
            self.assertEqual(self.kept(), ["x"])


    @unittest.skipUnless(sys.platform.startswith("linux"), "others may refuse what they have no room for")
    def test_ctrl_c_before_there_is_a_connection_leaves_no_doubt(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as crowd:
            for _ in range(3):  # as many as are let in without anybody accepting them, and more
                waiting = crowd.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            with self.person(full.getsockname()[1], *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.sees("120 seconds at most")
                person.types(CTRL_C)
                person.sees("\r\nIt was not sent.")
                self.assertEqual(person.ends(), 130)
        with FakeServer() as server, self.person(server.port) as person:
            person.sees("that was not sent is kept")

    def test_ctrl_c_while_it_connects_once_more_does(self) -> None:
        self.env["SERVER_TLS_CA"] = str(LOOPBACK)
        connections: list[socket.socket] = []

        def serve(listening: socket.socket) -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(LOOPBACK)
            with context.wrap_socket(listening.accept()[0], server_side=True) as first:
                first.recv(1000)
            connections.append(listening.accept()[0])

        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=serve, args=(listening,), daemon=True).start()
            with self.person(listening.getsockname()[1], *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.sees("asking for it once more")
                wait_until(lambda: connections)
                person.sees("at most")
                person.types(CTRL_C)
                person.sees("\r\nIt may have been sent")
                self.assertEqual(person.ends(), 130)
        connections[0].close()


class StoppingTest(TerminalTestCase):
    def test_after_ctrl_z_and_fg_the_question_is_there_with_what_was_typed(self) -> None:
        shell = ["sh", "-mc", '"$@"; echo "the shell: $?"; fg; exit $?', "sh"]
        for start in (self.command, self.command_without_readline):
            with self.subTest(start.__name__), FakeServer() as server:
                with Person([*shell, *start(server.port, *ADDRESS)], self.env) as person:
                    person.answers("Your message", "one\rtxo\x7f\x7f")
                    person.sees(" one")
                    person.answers(" t", CTRL_Z)
                    person.answers("the shell: ", "")
                    person.answers(" t", "wo\r.\r")
                    self.assertEqual(person.ends(), 0)
                    self.assertEqual(server.requests[0]["message"], "one\ntwo")
                    self.assertIn("\n two\r\n", re.sub(r"\x1b\[[?0-9]*[a-z]", "", person.screen))

    def test_what_is_typed_before_ctrl_z_is_not_for_the_shell(self) -> None:
        reads = "stty -icanon min 0 time 5; dd bs=99 count=1 of=$1.typed 2>/dev/null; stty icanon; fg; exit $?"
        typed = self.home / "typed"
        shell = ["sh", "-mc", f'"$@"; {reads.replace("$1.typed", str(typed))}', "sh"]
        go_on = threading.Event()
        with FakeServer(lambda _request: go_on.wait(30) and OK) as server:
            with Person([*shell, *self.command(server.port, *ADDRESS)], self.env) as person:
                person.answers("Your message", "x\r.\r")
                wait_until(lambda: server.requests)
                person.types(f"rm -rf it\r{CTRL_Z}")
                wait_until(typed.exists)
                go_on.set()
                person.sees("12345")
                self.assertEqual((person.ends(), typed.read_text()), (0, ""))

    def test_ctrl_z_while_it_is_sending_stops_it_and_nothing_is_lost(self) -> None:
        shell = ["sh", "-mc", '"$@"; echo "the shell: $?"; fg; exit $?', "sh"]
        go_on = threading.Event()
        with FakeServer(lambda _request: go_on.wait(30) and OK) as server:
            with Person([*shell, *self.command(server.port, *ADDRESS)], self.env) as person:
                person.answers("Your message", "x\r.\r")
                wait_until(lambda: server.requests)
                person.types(CTRL_Z)
                person.sees("the shell: ")
                go_on.set()
                person.sees("12345")
                self.assertEqual(person.ends(), 0)


class DraftTest(TerminalTestCase):
    def at_home(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.drafts.parent), "LOCALAPPDATA": str(self.drafts.parent)}

    def test_an_interrupted_text_is_kept_private_and_offered(self) -> None:
        with FakeServer() as server:
            with self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\r\rthr")
                person.sees("thr")
                person.types(CTRL_C)
                person.sees("Your text is kept")
                self.assertEqual(person.ends(), 130)
            self.assertEqual(self.kept(), ["one\n\nthr"])
            [file] = self.drafts.iterdir()
            self.assertEqual((file.stat().st_mode & 0o777, self.drafts.stat().st_mode & 0o777), (0o600, 0o700))
            with self.person(server.port) as person:
                person.sees("alice@example.com")
                person.answers("Number", "1\r")
                person.answers("e-mail address", "\r")
                person.answers("Your message", "\r.\r")
                self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0]["message"], "one\n\nthr")
            self.assertEqual(list(self.drafts.iterdir()), [])

    def test_whatever_ends_the_client_the_text_is_kept_and_not_sent(self) -> None:
        ends = {
            "kill": lambda person: person.kill(signal.SIGKILL),
            "terminate": lambda person: person.kill(signal.SIGTERM),
            "quit": lambda person: person.types(CTRL_BACKSLASH),
            "window closed": Person.hangs_up,
        }
        for name, end in ends.items():
            with self.subTest(name), FakeServer() as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\rtwo\r")
                wait_until(lambda: self.kept() == ["one\ntwo"])
                end(person)
                self.assertIn(person.ends(), (130, -signal.SIGKILL))
                self.assertEqual((self.kept(), server.requests), (["one\ntwo"], []))
            for file in self.drafts.iterdir():
                file.unlink()

    def test_an_end_in_the_moment_before_the_wait_for_a_key_is_noticed(self) -> None:
        for without in ("", "sys.modules['readline'] = None"):
            for number in (signal.SIGINT, signal.SIGTERM):
                code = ENDED_UNNOTICED.format(without=without, number=int(number), root=str(ROOT))
                with self.subTest(number, without=without), FakeServer() as server:
                    shutil.rmtree(self.drafts, ignore_errors=True)
                    with Person(self.command_by(code, server.port, *ADDRESS), self.env) as person:
                        person.answers("Your message", "half")
                        self.assertEqual(person.ends(), 130)
                    self.assertEqual(self.kept(), ["half"])

    def test_what_is_typed_while_ctrl_s_stops_the_screen_is_shown_behind_it(self) -> None:
        for start in (self.person, self.without_readline):
            with self.subTest(start.__name__), FakeServer() as server, start(server.port, *ADDRESS) as person:
                person.answers("Your message", "before")
                person.sees("before")
                person.types("\x13stopped")
                time.sleep(1.2)  # two interruptions of the wait for a key
                person.types("\x11")
                person.sees("stopped")

    def test_an_end_behind_a_key_at_once_is_noticed(self) -> None:
        """Ctrl-C makes the system drop the key, unless told not to, and readline waits for it."""
        for start in (self.person, self.without_readline):
            shutil.rmtree(self.drafts, ignore_errors=True)
            with self.subTest(start.__name__), FakeServer() as server, start(server.port, *ADDRESS) as person:
                person.answers("Your message", "h")
                person.sees("h")
                self.assertTrue(person.mode()[3] & termios.NOFLSH)
                person.types("i")
                person.types(CTRL_C)
                self.assertEqual(person.ends(), 130)

    def test_an_end_while_the_terminal_is_taken_leaves_it_as_it_was(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            code = TAKEN.format(number=int(number), root=str(ROOT))
            shell = ["sh", "-c", 'stty -a; "$@"; echo "its end: $?"; stty -a', "sh"]
            with self.subTest(number), FakeServer() as server:
                with Person([*shell, *self.command_by(code, server.port, *ADDRESS)], self.env) as person:
                    self.assertEqual(person.ends(), 0)
                before, _, after = re.sub(r"\x1b\[[?0-9]*[a-z]", "", person.screen).partition("its end: 130\r\n")
                self.assertEqual(before, after)

    def test_the_timer_of_whoever_started_it_is_left_alone(self) -> None:
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, lambda *_: None))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 3600)
        with endings_noticed():
            self.assertGreater(signal.getitimer(signal.ITIMER_REAL)[0], 1800)
        self.assertGreater(signal.getitimer(signal.ITIMER_REAL)[0], 1800)

    def test_the_line_that_was_being_typed_when_the_shell_told_its_end_is_kept_too(self) -> None:
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "one\rhal")
            person.sees("hal")
            for _ in range(3):
                person.kill(signal.SIGHUP)
            self.assertEqual(person.ends(), 130)
            self.assertEqual((self.kept(), server.requests), (["one\nhal"], []))

    def test_what_an_editor_has_left_when_the_window_is_closed_is_kept(self) -> None:
        sleeps = "touch ready; while true; do sleep 0.1; done"
        editors = {
            "saved": f"printf more >>$1; {sleeps}",
            "saved at its end": f"trap 'printf more >>$1; exit 1' HUP; {sleeps}",
            "saved by another name": f"trap 'cp $1 $1.save; printf more >>$1.save; exit 0' HUP; {sleeps}",
        }
        ready = self.home / "ready"
        self.env["EDITOR"] = str(self.home / "editor")
        for name, script in editors.items():
            Path(self.env["EDITOR"]).write_text(f"#!/bin/sh\n{script}\n".replace("ready", str(ready)))
            Path(self.env["EDITOR"]).chmod(0o700)
            with self.subTest(name), FakeServer() as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\r~e\r")
                wait_until(ready.exists)
                person.logs_out()
                self.assertEqual(person.ends(), 130)
                self.assertEqual((self.kept(), server.requests), (["one\nmore"], []))
            ready.unlink()
            for file in self.drafts.iterdir():
                file.unlink()

    def test_the_end_is_heard_behind_the_editor(self) -> None:
        """A text may be sent after Ctrl-C, a key of editors, but not after what ends the client."""
        ready, go = self.home / "ready", self.home / "go"
        self.env["EDITOR"] = str(self.home / "editor")
        script = f"#!/bin/sh\nprintf more >>$1; touch {ready}; until [ -e {go} ]; do sleep 0.05; done\n"
        Path(self.env["EDITOR"]).write_text(script)
        Path(self.env["EDITOR"]).chmod(0o700)
        for number, code in ((signal.SIGTERM, 130), (signal.SIGHUP, 130), (signal.SIGINT, 0)):
            with self.subTest(number), FakeServer(OK) as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "one\r~e\r")
                wait_until(ready.exists)
                person.kill(number)
                go.touch()
                if code == 0:
                    person.answers("Lines so far", "\r.\r")
                self.assertEqual(person.ends(), code)
                self.assertEqual((self.kept(), len(server.requests)), (["one\nmore"], 0) if code else ([], 1))
            for file in (ready, go, *self.drafts.iterdir()):
                file.unlink()

    def test_a_kept_text_is_not_replaced_by_what_was_typed_before_an_interrupt(self) -> None:
        ways = {"Ctrl-C": lambda person: person.types(CTRL_C), "end": lambda person: person.kill(signal.SIGTERM)}
        for name, way in ways.items():
            for start, text in ((self.person, "y" * 5000), (self.without_readline, "a\nb")):
                with self.subTest(name, start=start.__name__), FakeServer() as server:
                    shutil.rmtree(self.drafts, ignore_errors=True)
                    self.drafts.mkdir()
                    (self.drafts / "draft-999999999").write_text('{"email": "a@example.com", "id": "1"}\n' + text)
                    with start(server.port, *ADDRESS) as person:
                        person.answers("Number", "1\r")
                        person.answers("anything else replaces it", "~")
                        person.sees("~")
                        way(person)
                        self.assertEqual(person.ends(), 130)
                    self.assertEqual((self.kept(), server.requests), ([text], []))

    def test_another_text_has_neither_the_id_nor_the_doubt_of_the_first_one(self) -> None:
        first = ("--email", "first@example.com")
        for address, typed, same in ((ADDRESS, "\x15another", False), (ADDRESS, "", True), (first, "", False)):
            with self.subTest(typed=typed, address=address), FakeServer(None, None, OK) as server:
                with self.person(server.port, *ADDRESS) as person:
                    person.answers("Your message", "text\r.\r")
                    person.answers("Number", "4\r")
                    self.assertEqual(person.ends(), 74)
                with self.person(server.port, *address) as person:
                    person.answers("Number", "1\r")
                    person.sees("Edit what is there")
                    person.sees("text")
                    person.types(typed)
                    person.sees(typed[1:])
                    person.types(CTRL_C)
                    self.assertEqual(person.ends(), 130)
                with self.person(server.port, *address) as person:
                    person.sees("that may have been sent is kept" if same else "that was not sent is kept")
                    person.answers("Number", "1\r")
                    person.sees("Edit what is there")
                    person.types("\r.\r")
                    self.assertEqual(person.ends(), 0)
                ids = [request["id"] for request in server.requests]
                self.assertEqual((ids[0] == ids[1], ids[1] == ids[2]), (True, same))

    def test_the_farewell_is_about_the_text_that_is_kept(self) -> None:
        with FakeServer(None, None) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "text\r.\r")
            person.answers("Number", "3\r")
            person.answers("Edit what is there", "\x15another\r")
            wait_until(lambda: self.kept() == ["another"])
            person.types(CTRL_C)
            person.sees("It was not sent.")
            self.assertEqual(person.ends(), 130)

    def test_a_request_that_is_taken_up_unchanged_keeps_its_id(self) -> None:
        with FakeServer(error("busy", retry=True), OK) as server:
            with self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.answers("Number", "4\r")
                person.ends()
            with self.person(server.port) as person:
                person.answers("Number", "1\r")
                person.answers("e-mail address", "\r")
                person.answers("Your message", "\r.\r")
                self.assertEqual(person.ends(), 0)
            self.assertEqual(server.requests[0], server.requests[1])

    def test_a_text_that_may_have_been_sent_is_not_called_unsent(self) -> None:
        busy = error("busy", retry=True)
        for answers, doubtful in (([busy], False), ([None], True), ([error("delivery_uncertain")], True)):
            with self.subTest(answers), FakeServer(*answers) as server:
                with self.person(server.port, *ADDRESS) as person:
                    person.answers("Your message", "x\r.\r")
                    person.answers("Number", "4\r")
                    person.sees("may have been sent" if doubtful else "It was not sent")
                    person.ends()
                with self.person(server.port, *ADDRESS) as person:
                    person.sees("that may have been sent is kept" if doubtful else "that was not sent is kept")
                    person.answers("Number", "3\r")
                    person.sees("Your message")
        with FakeServer(silence) as server:
            with self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                wait_until(lambda: server.requests)
                person.kill(signal.SIGKILL)
                person.ends()
            with self.person(server.port) as person:
                person.sees("that may have been sent is kept")

    def test_once_it_is_sent_no_interrupt_says_otherwise(self) -> None:
        for end in (lambda person: person.types(CTRL_C), lambda person: person.kill(signal.SIGHUP)):
            with FakeServer(OK) as server, self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.sees("Sending to")
                person.sees("ticket")
                end(person)
                self.assertEqual((person.ends(), len(server.requests)), (0, 1))

    def test_a_draft_is_tried_again_when_a_disk_was_full(self) -> None:
        real = Draft._rename
        failures = iter([OSError(errno.ENOSPC, "No space left on device")])

        def rename(draft: Draft, *arguments: Any) -> None:
            nonlocal failures
            for failure in failures:
                raise failure
            real(draft, *arguments)

        with mock.patch.dict(os.environ, self.at_home()), mock.patch.object(Draft, "_rename", rename):
            draft = Draft()
            draft.write(Request("bob@example.com", "text", "id"))
            self.assertIn("No space", draft.trouble)
            draft.write(Request("bob@example.com", "text and more", "id"))
            self.assertEqual((draft.trouble, self.kept()), ("", ["text and more"]))
            failures = iter([OSError(errno.ENOSPC, "No space left on device")])
            draft.write(Request("bob@example.com", "one", "id"))
            self.assertEqual(self.kept(), ["text and more"])
            draft.add("\ntwo")
            draft.add("\nthree")
            self.assertEqual((draft.trouble, self.kept()), ("", ["one\ntwo\nthree"]))
            failures = iter([OSError(errno.ENOSPC, "No space left on device")] * 3)
            for text in ("\nfour", "\nfive"):
                draft.trouble = "No space left on device"  # as of a line that was not taken whole
                draft.add(text)
            draft.make_sure()
            self.assertIn("No space", draft.trouble)
            draft.make_sure()
            self.assertEqual((draft.trouble, self.kept()), ("", ["one\ntwo\nthree\nfour\nfive"]))
            draft.discard()

    def test_a_terminal_that_has_gone_has_nothing_to_drop(self) -> None:
        gone = termios.error(errno.EIO, "Input/output error")
        with mock.patch("select.select", return_value=([0], [], [])), mock.patch("termios.tcflush", side_effect=gone):
            Terminal.__new__(Terminal).drop_unread()

    def test_what_would_steer_the_terminal_is_not_edited_in_place(self) -> None:
        terminal = Terminal.__new__(Terminal)
        terminal._readline, terminal._takes_pastes = mock.sentinel.readline, True
        for text in ("a\x1b[2J", "a\u202eb", "a\rb", "a\x9bb"):
            self.assertFalse(terminal.can_edit(text), text)

    def test_what_the_locale_cannot_show_is_not_edited_in_place(self) -> None:
        terminal = Terminal.__new__(Terminal)
        terminal._readline, terminal._takes_pastes = mock.sentinel.readline, True
        with mock.patch.object(locale, "getencoding", return_value="iso-8859-1"):
            self.assertEqual([terminal.can_edit(text) for text in ("café", "дом")], [True, False])

    def test_a_doubt_that_is_older_than_the_servers_memory_is_said_to_be_one(self) -> None:
        self.drafts.mkdir()
        draft = self.drafts / "draft-999999999"
        for age, words in ((1800, "does not send it twice"), (7200, "even if it should arrive twice")):
            draft.write_text('{"email": "bob@example.com", "id": "1", "doubtful": true}\nold')
            os.utime(draft, (time.time() - age,) * 2)
            with self.subTest(age), FakeServer(None, None, OK) as server, self.person(server.port) as person:
                person.answers("Number", "1\r")
                person.answers("e-mail address", "\r")
                person.answers("Your message", "\r.\r" if GNU_READLINE else "\r")
                person.answers(words, "1\r")
                self.assertEqual(person.ends(), 0)
                self.assertEqual([request["id"] for request in server.requests], ["1"] * 3)

    def test_a_doubt_stays_until_the_text_is_another(self) -> None:
        with FakeServer(None, None, error("busy", retry=True)) as server:
            with self.person(server.port, *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.answers("Number", "1\r")
                person.sees("busy")
                person.answers("Number", "4\r")
                person.sees("may have been sent")
                self.assertEqual(person.ends(), 74)
            with self.person(server.port, *ADDRESS) as person:
                person.answers("Number", "1\r")
                person.answers("Your message", "yz\r.\r")
                person.sees("busy")
                person.answers("Number", "4\r")
                person.sees("It was not sent")
                self.assertEqual(person.ends(), 75)

    def test_a_draft_can_be_kept_for_later_or_deleted(self) -> None:
        self.drafts.mkdir()
        draft = self.drafts / "draft-999999999"
        for choice, left in (("2", 1), ("3", 0)):
            draft.write_text('{"email": "bob@example.com", "id": "1"}\nold')
            with self.subTest(choice), FakeServer() as server, self.person(server.port) as person:
                person.sees("bob@example.com")
                person.answers("Number", choice + "\r")
                person.answers("e-mail address", "alice@example.com\r")
                person.answers("Your message", "new\r.\r")
                self.assertEqual(person.ends(), 0)
                self.assertEqual(server.requests[0]["message"], "new")
                self.assertEqual(len(self.kept()), left)

    def test_of_several_drafts_each_can_be_taken_up(self) -> None:
        self.drafts.mkdir()
        for age in (1, 2, 3):
            draft = self.drafts / f"draft-{age}"
            draft.write_text(f'{{"email": "bob@example.com", "id": "{age}"}}\ntext {age}')
            os.utime(draft, (time.time() - 60 * age,) * 2)
        with FakeServer() as server, self.person(server.port) as person:
            for text, choice in (("text 1", "2"), ("text 2", "3"), ("text 3", "1")):
                person.sees(text)
                person.sees("and write another one" if text == "text 3" else "4  Write another one\r\n")
                person.answers("Number", choice + "\r")
            person.answers("e-mail address", "\r")
            person.answers("Your message", "\r.\r" if GNU_READLINE else "\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual((server.requests[0]["message"], self.kept()), ("text 3", ["text 1"]))

    def test_one_need_not_go_through_all_drafts(self) -> None:
        self.drafts.mkdir()
        for number in range(3):
            (self.drafts / f"draft-{number}").write_text('{"email": "bob@example.com", "id": "1"}\nold')
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Number", "4\r")
            person.answers("Your message", "new\r.\r")
            self.assertEqual(person.ends(), 0)
            self.assertEqual((server.requests[0]["message"], self.kept()), ("new", ["old"] * 3))

    def test_drafts_of_one_process_id_are_not_written_over(self) -> None:
        with mock.patch.dict(os.environ, self.at_home()):
            earlier, later = Draft(), Draft()  # as of two clients that were process 1 of a container each
            for draft in (earlier, later):
                draft.write(Request("bob@example.com", "text", "id"))
                draft.close()
            self.assertEqual(later.waiting(), [earlier.path])
            self.assertEqual(earlier.waiting(), [later.path])
        self.assertEqual(self.kept(), ["text", "text"])

    def test_a_draft_waits_whatever_process_has_the_number_of_its_client_now(self) -> None:
        self.drafts.mkdir()
        kept = [self.drafts / f"draft-{number}-{'0' * 8}" for number in (1, os.getppid(), os.getpid())]
        for path in kept:
            path.write_text('{"email": "bob@example.com", "id": "1"}\nold')
        with mock.patch.dict(os.environ, self.at_home()):
            one, other = Draft(), Draft()
            self.assertEqual(set(one.waiting()), set(kept))
            one.take(kept[0], doubtful=False)
            self.assertEqual(set(other.waiting()), set(kept[1:]))
            self.assertRaises(OSError, other.take, kept[0], doubtful=False)
            for draft in (one, other):
                draft.discard()
        self.assertEqual(len(self.kept()), 2)

    def test_a_draft_that_could_not_be_written_on_is_gone_once_it_was_sent(self) -> None:
        with mock.patch.dict(os.environ, self.at_home()):
            draft = Draft()
            draft.write(Request("bob@example.com", "text", "id"))
            draft.trouble = "No space left on device"
            draft.discard()
            self.assertFalse(draft.written)
        self.assertEqual(self.kept(), [])

    def test_on_a_full_disk_the_former_draft_says_at_least_that_it_may_have_been_sent(self) -> None:
        with mock.patch.dict(os.environ, self.at_home()):
            draft = Draft()
            draft.write(Request("bob@example.com", "text", "id"))
            draft.doubtful = True
            with mock.patch("os.open", side_effect=OSError(errno.ENOSPC, "No space left on device")):
                draft.write(Request("bob@example.com", "text", "other id"))
            self.assertIn("No space", draft.trouble)
            assert draft.path
            kept, _, doubtful = read(draft.path)
            self.assertEqual((kept.message, kept.email, doubtful), ("text", "bob@example.com", True))
            draft.close()

    def test_a_draft_that_cannot_be_deleted_takes_no_ticket_away(self) -> None:
        with mock.patch.dict(os.environ, self.at_home()):
            draft = Draft()
            draft.path = self.drafts / "a folder"
            draft.path.mkdir()
            draft.discard()
        self.assertFalse(draft.written)

    def test_nothing_that_comes_after_the_answer_takes_the_ticket_away(self) -> None:
        for what in ("signal.raise_signal(signal.SIGINT)", "exec('raise PermissionError')"):
            program = (f"import signal, sys; sys.path.insert(0, {str(ROOT)!r}); import client; "
                       f"from mailer.console import draft; draft.Draft.discard = lambda _: {what}; "
                       "sys.exit(client.main(sys.argv[1:]))")  # fmt: skip
            with self.subTest(what), FakeServer() as server:
                command = [sys.executable, "-c", program, *self.command(server.port, *ADDRESS)[2:]]
                with Person(command, self.env) as person:
                    person.answers("Your message", "x\r.\r")
                    person.sees("OK: your ticket is 12345")
                    self.assertEqual(person.ends(), 0)
                    self.assertNotIn("not sent", person.screen)
            for file in self.drafts.iterdir():
                file.unlink()

    def test_a_draft_that_another_client_takes_meanwhile_is_said_to_be_taken(self) -> None:
        self.drafts.mkdir()
        (self.drafts / "draft-999999999").write_text('{"email": "bob@example.com", "id": "1"}\nold')
        with FakeServer(OK) as server, self.person(server.port, *ADDRESS) as late, self.person(server.port) as quick:
            late.sees("Number")
            quick.answers("Number", "1\r")
            quick.sees("Your e-mail address")
            late.types("1\r")
            late.sees("Another client.py has taken it")
            late.answers("Your message", "new\r.\r")
            self.assertEqual(late.ends(), 0)
            self.assertEqual([request["message"] for request in server.requests], ["new"])

    def test_a_draft_that_is_taken_during_the_search_hides_no_other(self) -> None:
        self.drafts.mkdir()
        paths = [self.drafts / f"draft-{number}-a" for number in range(3)]
        for path in paths:
            path.write_text('{"email": "bob@example.com", "id": "1"}\nold')

        def is_waiting(path: Path) -> bool:
            found = draft_file.is_waiting(path)
            paths[1].unlink(missing_ok=True)
            return found

        with mock.patch.dict(os.environ, self.at_home()), mock.patch("mailer.console.draft.is_waiting", is_waiting):
            self.assertEqual({*Draft().waiting()}, {paths[0], paths[2]})

    def test_the_draft_of_a_client_that_runs_is_not_offered(self) -> None:
        with FakeServer() as server, self.person(server.port, *ADDRESS) as first:
            first.answers("Your message", "one\r")
            wait_until(lambda: self.kept() == ["one"])
            with self.person(server.port) as second:
                second.answers("e-mail address", "bob@example.com\r")
                second.answers("Your message", "two\r.\r")
                self.assertEqual(second.ends(), 0)
            self.assertEqual(self.kept(), ["one"])

    def test_without_a_place_for_drafts_the_message_is_sent_all_the_same(self) -> None:
        self.drafts.write_text("not a folder")
        with FakeServer(error("busy", retry=True), OK) as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "x\r.\r")
            person.sees("Stop here; the text cannot be kept")
            person.answers("Number", "1\r")
            self.assertEqual(person.ends(), 0)
        with FakeServer() as server, self.person(server.port, *ADDRESS) as person:
            person.answers("Your message", "one\r")
            person.sees("one\r\n ")  # with the prompt for the next line
            person.types(CTRL_C)
            person.sees("It was not sent")
            person.sees("could not be kept")
            self.assertEqual(person.ends(), 130)


class InterruptedDraftTest(TerminalTestCase):
    def test_an_interrupt_while_the_draft_is_made_costs_no_text(self) -> None:
        program = (f"import pathlib, signal, sys; sys.path.insert(0, {str(ROOT)!r}); import client\n"
                   "real = pathlib.Path.replace\n"
                   "def replace(path, target):\n"
                   "    pathlib.Path.replace = real\n"
                   "    signal.raise_signal(signal.SIGINT)\n"
                   "pathlib.Path.replace = replace; sys.exit(client.main(sys.argv[1:]))")  # fmt: skip
        with FakeServer() as server:
            command = [sys.executable, "-c", program, *self.command(server.port, *ADDRESS)[2:]]
            with Person(command, self.env) as person:
                person.answers("Your message", "all of it\r.\r")
                person.sees("Your text is kept")
                self.assertEqual(person.ends(), 130)
        self.assertEqual([path.name[:6] for path in self.drafts.iterdir()], ["draft-"])
        self.assertIn("all of it", self.kept()[0])


class ClosedTest(TerminalTestCase):
    def test_one_closed_stream_is_made_up_for_by_the_other(self) -> None:
        for closed in (">&-", "2>&-"):
            with self.subTest(closed), FakeServer() as server:
                command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *self.command(server.port, *ADDRESS)]
                with Person(command, self.env) as person:
                    person.answers("Your message", "x\r.\r")
                    person.sees("your ticket is 12345")
                    self.assertEqual(person.ends(), 0)


class LookTest(TerminalTestCase):
    def test_colour_is_for_terminals_and_people_who_want_it(self) -> None:
        for settings, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "", "TERM": "dumb"}, False)):
            self.env |= settings
            with self.subTest(settings), self.person(1, *ADDRESS) as person:
                person.answers("Your message", "x\r.\r")
                person.answers("Number", "4\r")
                person.ends()
                self.assertEqual("\x1b[31m" in person.screen, coloured)
            for file in self.drafts.iterdir():
                file.unlink()

    def test_russian_is_spoken_and_read_in_any_locale(self) -> None:
        # The last one is a locale that no system has.
        for settings in ({"LANGUAGE": "ru"}, {"LC_ALL": "C"}, {"LC_ALL": "ru_XX.UTF-8", "LANGUAGE": ""}):
            self.env |= settings
            with self.subTest(settings), FakeServer() as server, self.person(server.port) as person:
                person.answers("Ваш адрес", "alice@example\r")
                person.sees("не доменное имя")
                person.answers("Ваш адрес", ".com\r" if GNU_READLINE else "alice@example.com\r")
                person.answers("Сообщение", "Принтеръ\x7f горит\r.\r")
                person.sees("ваша заявка 12345")
                self.assertEqual(person.ends(), 0)
                self.assertEqual(server.requests[0]["message"], "Принтер горит")


@unittest.skipUnless(Path("/dev/full").exists(), "needs a file that is always full")
class FullDiskTest(TerminalTestCase):
    def test_the_ticket_is_told_at_the_terminal_when_its_file_cannot_be_written(self) -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        self.addCleanup(os.close, full)
        with FakeServer() as server, self.person(server.port, "--email", "alice@example.com", stdout=full) as person:
            person.sees("Ctrl-D")
            person.types("Fire\n.\n")
            person.sees("cannot be written to standard output (No space left on device): OK: your ticket is 12345")
            self.assertEqual(person.ends(), 0)
            self.assertNotIn("Exception", person.screen)


if __name__ == "__main__":
    unittest.main()
