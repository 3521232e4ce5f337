"""What goes over the wire to a mail server, and how its sessions are shared."""

import collections
import itertools
import random
import select
import socket
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from mailer import smtp
from mailer.errors import Code, DeliveryError
from mailer.smtp import pool, session, wire
from mailer.steps import finish
from tests.support.outboxes import ADMINISTRATOR, PERSON, OutboxTestCase, complaint, letter, result
from tests.support.scripted import (
    CAPABILITIES,
    SMTP,
    Action,
    Conversation,
    ScriptedServer,
    Table,
    bytewise,
    close,
    drip,
    ehlo,
    hang,
    reset,
    swallowing_port,
)
from tests.support.waiting import wait_until

PLAIN_SMTP: Table = {**SMTP, "EHLO": ehlo(*CAPABILITIES[1:])}  # one command at a time
ENVELOPE = [
    b"MAIL FROM:<helpdesk@example.com> SIZE=%d\r\n" % len(letter().data),
    b"RCPT TO:<alice@example.com>\r\n",
    b"RCPT TO:<helpdesk@example.com>\r\n",
    b"DATA\r\n",
]


def commands(conversation: Conversation) -> list[bytes]:
    """What was said after the login."""
    return [line for line in conversation.lines if not line.startswith((b"ehlo", b"AUTH"))]


class TransactionTest(OutboxTestCase):
    def test_an_answer_that_cannot_be_read_for_whatever_reason_is_uncertain(self) -> None:
        real, here = socket.socket.recv, threading.get_ident()
        with ScriptedServer(SMTP) as server:

            def recv(sock: socket.socket, *arguments: int) -> bytes:
                data = real(sock, *arguments)
                if server.bodies and threading.get_ident() == here:
                    raise MemoryError
                return data

            with mock.patch.object(socket.socket, "recv", recv), self.assertLogs("mailer.smtp", "ERROR"):
                while not server.bodies:
                    outcome = result(self.outbox(server.port))
            self.assertEqual(outcome, "delivery_uncertain")
            self.assertEqual(result(self.outbox(server.port)), "sent")

    def test_the_envelope_goes_out_in_order_whether_pipelined_or_not(self) -> None:
        for table in (SMTP, PLAIN_SMTP):
            with ScriptedServer(table) as server:
                self.assertEqual(result(self.outbox(server.port)), "sent")
                self.assertEqual(commands(server.conversations[0]), ENVELOPE)
                self.assertEqual(server.bodies, [letter().data])

    def test_pipelined_commands_go_out_before_any_is_answered(self) -> None:
        def take_all(conversation: Conversation) -> None:
            conversation.lines += [conversation._file.readline() for _ in range(3)]
            conversation.send(b"250 ok\r\n250 ok\r\n250 ok\r\n")
            conversation.send(b"354 go\r\n")

        with ScriptedServer({**SMTP, "MAIL": take_all}) as server:
            self.assertEqual(result(self.outbox(server.port)), "sent")
            self.assertEqual(commands(server.conversations[0]), ENVELOPE)

    def test_one_recipient_gets_one_rcpt(self) -> None:
        with ScriptedServer(SMTP) as server:
            self.assertEqual(result(self.outbox(server.port), letter("x", ADMINISTRATOR)), "sent")
            self.assertEqual(sum(line.startswith(b"RCPT") for line in server.lines), 1)

    def test_what_a_server_does_not_offer_is_not_used(self) -> None:
        with ScriptedServer({**SMTP, "EHLO": b"500 what?\r\n", "HELO": b"250 mail.example\r\n"}) as server:
            self.assertEqual(result(self.outbox(server.port)), "sent")
            self.assertIn(b"MAIL FROM:<helpdesk@example.com>\r\n", server.lines)
            self.assertFalse([line for line in server.lines if line.startswith(b"AUTH")])

    def test_lines_that_begin_with_a_dot_arrive_as_they_are(self) -> None:
        for text in (".", "..", "a\r\n.\r\nMAIL FROM:<x@y.example>", ".a\r\n..b"):
            with self.subTest(text), ScriptedServer(SMTP) as server:
                self.assertEqual(result(self.outbox(server.port), letter(text)), "sent")
                (body,) = server.bodies
                lines = [line[1:] if line[:1] == b"." else line for line in body.splitlines(keepends=True)]
                self.assertEqual(b"".join(lines), letter(text).data)

    def test_a_large_message_goes_out_whole(self) -> None:
        with ScriptedServer(SMTP) as server:
            big = letter("0123456789" * 7 + "\r\n" + "x" * 70 * 50_000)
            self.assertEqual(result(self.outbox(server.port), big), "sent")
            self.assertEqual(server.bodies, [big.data])

    def test_a_message_that_was_not_handed_over_whole_is_not_uncertain(self) -> None:
        deaf: Table = {**SMTP, "DATA": (b"354 go\r\n", hang)}
        with ScriptedServer(deaf) as server:
            big = letter("x" * 20_000_000)  # more than the buffers between here and there hold
            self.assertEqual(result(self.outbox(server.port, timeout=0.3), big), "mail_unavailable retry")

    def test_after_a_refused_recipient_nobody_gets_the_message(self) -> None:
        taken, refused = b"250 ok\r\n", b"550 unknown\r\n"
        for first, second, code in ((refused, taken, "recipient_refused"), (taken, refused, "mail_rejected")):
            for data, cut in ((b"354 go\r\n", True), (b"554 no valid recipients\r\n", False)):
                table: Table = {**SMTP, "RCPT": [first, second, taken], "DATA": [data, b"354 go\r\n"]}
                with self.subTest(code=code, data=data), ScriptedServer(table, SMTP) as server:
                    box = self.outbox(server.port)
                    self.assertEqual(result(box), code)
                    self.assertEqual(result(box, letter("next")), "sent")
                    self.assertEqual(server.bodies, [letter("next").data])
                    self.assertEqual(len(server.conversations), 1 + cut)
                    self.assertEqual(b"RSET\r\n" in server.lines, not cut)

    def test_a_session_with_many_refusals_in_a_row_is_replaced(self) -> None:
        no, ok = b"550 unknown\r\n", b"250 ok\r\n"
        table: Table = {**PLAIN_SMTP, "RCPT": [*[no] * 4, ok, ok, *[no] * 5]}
        with ScriptedServer(table, PLAIN_SMTP) as server:
            box = self.outbox(server.port)
            outcomes = [result(box) for _ in range(11)]
            self.assertEqual(outcomes, [*["recipient_refused"] * 4, "sent", *["recipient_refused"] * 5, "sent"])
            self.assertEqual(len(server.conversations), 2)
            self.assertEqual(server.conversations[0].lines[-1], b"QUIT\r\n")

    def test_a_session_that_refuses_a_message_is_replaced_as_its_server_may_be_ill(self) -> None:
        for key, kind in itertools.product(("DATA", "body"), (SMTP, PLAIN_SMTP)):
            ill: Table = {**kind, key: b"451 4.3.2 out of order\r\n"}
            with self.subTest(key, pipelining=kind is SMTP), ScriptedServer(ill, kind) as server:
                box = self.outbox(server.port)
                self.assertEqual([result(box), result(box)], ["mail_unavailable retry", "sent"])
                self.assertEqual(server.conversations[0].lines[-1], b"QUIT\r\n")

    def test_without_pipelining_nothing_follows_a_refusal_but_rset(self) -> None:
        with ScriptedServer({**PLAIN_SMTP, "RCPT": [b"450 later\r\n", b"250 ok\r\n"]}) as server:
            box = self.outbox(server.port)
            self.assertEqual(result(box), "recipient_refused retry")
            self.assertEqual(result(box), "sent")
            self.assertEqual(commands(server.conversations[0]), [*ENVELOPE[:2], b"RSET\r\n", *ENVELOPE])

    def test_the_first_refusal_is_the_one_that_is_told(self) -> None:
        table: Table = {**SMTP, "MAIL": b"553 5.7.1 not yours\r\n", "RCPT": b"503 no\r\n", "DATA": b"503 no\r\n"}
        with ScriptedServer(table) as server:
            self.assertEqual(
                complaint(self.outbox(server.port)), "the mail server refuses helpdesk@example.com: 553 5.7.1 not yours"
            )

    def test_the_servers_words_are_made_safe(self) -> None:
        with ScriptedServer({**SMTP, "RCPT": b"550-\x1b[31mred\x07\r\n550 \xff\xe2\x80\xae\x00end\r\n"}) as server:
            text = complaint(self.outbox(server.port))
            self.assertTrue(text.isprintable(), text)
            self.assertIn("red", text)

    def test_it_introduces_itself_by_a_full_name_or_its_address(self) -> None:
        literal = b"[127.0.0.1]"
        table = {"desk.example.com": b"desk.example.com", "desk": literal, "localhost.localdomain": literal}
        for name, said in table.items():
            named = mock.patch("socket.gethostname", return_value=name)
            with self.subTest(name), ScriptedServer(SMTP) as server, named:
                self.assertEqual(result(self.outbox(server.port)), "sent")
                self.assertEqual(server.lines[0], b"ehlo %b\r\n" % said)

    def test_a_refused_introduction_is_told_whole(self) -> None:
        refusal = b"550-first line\r\n550-second\r\n550 third\r\n"
        for table in ({**SMTP, "EHLO": refusal}, {**SMTP, "EHLO": b"500 what?\r\n", "HELO": refusal}):
            with ScriptedServer(table) as server:
                told = complaint(self.outbox(server.port))
                self.assertEqual(told, "the mail server refuses EHLO: 550 first line second third")

    def test_an_answer_before_the_final_dot_is_not_taken_for_the_answer_to_it(self) -> None:
        with ScriptedServer({**SMTP, "DATA": b"354 go\r\n250 queued as if\r\n"}) as server:
            self.assertEqual(result(self.outbox(server.port)), "mail_unavailable retry")
            self.assertEqual(server.bodies, [])

    def test_garbage_that_came_together_with_a_reply_is_not_waited_upon(self) -> None:
        with ScriptedServer({**SMTP, "MAIL": (b"250 ok\r\n??\r\n", hang)}) as server:
            begun = time.monotonic()
            self.assertEqual(result(self.outbox(server.port, timeout=20)), "mail_unavailable retry")
            self.assertLess(time.monotonic() - begun, 10)


    def test_an_answer_that_is_there_counts_however_late_it_is_looked_at(self) -> None:
        real, here = socket.socket.recv, threading.get_ident()
        late: Table = {**SMTP, "body": bytewise(b"250 queued\r\n", 0.01)}
        with ScriptedServer(late) as server:

            def recv(sock: socket.socket, *arguments: int) -> bytes:
                data = real(sock, *arguments)
                if server.bodies and data.endswith(b"\n") and threading.get_ident() == here:
                    time.sleep(0.7)  # as in a machine that was frozen
                return data

            with mock.patch.object(socket.socket, "recv", recv):
                self.assertEqual(result(self.outbox(server.port, timeout=0.6)), "sent")

    def test_what_is_said_in_a_session_at_rest_is_no_answer_to_the_next_message(self) -> None:
        said: Table = {**SMTP, "body": (b"250 queued\r\n", lambda _: time.sleep(0.1), b"554 5.3.2 shutting down\r\n")}
        for rested in (pool._RESTED, 60.0):  # the session is looked at, or is not
            with ScriptedServer(said, SMTP) as server, mock.patch.object(pool, "_RESTED", rested):
                box = self.outbox(server.port)
                self.assertEqual(result(box), "sent")
                waiting = box._pool._free[0].connected()
                wait_until(lambda waiting=waiting: select.select([waiting], [], [], 0)[0])  # type: ignore[misc]  # bound
                self.assertEqual(result(box), "sent")
                self.assertEqual(len(server.conversations), 2)

    def test_a_session_that_cannot_take_its_leave_for_want_of_memory_gives_up_its_place(self) -> None:
        with ScriptedServer(SMTP) as server:
            box = self.outbox(server.port, sessions=1)
            for _ in range(3):
                self.assertEqual(result(box), "sent")
                with (
                    mock.patch.object(pool, "_LONGEST_IDLE", -1.0),
                    mock.patch.object(session.Session, "leave", side_effect=MemoryError),
                ):
                    self.assertEqual(result(box), "sent")
            self.assertGreater(len(server.conversations), 2)


EVIL = (
    "a@b.example>\r\nRSET", "a@b.example> SIZE=1", "a b@c.example", "a@b.example\0", "<a@b.example", "a@b.example\x85",
    "a@b\u2028.example", "a@\udcff.example", "a\t@b.example", "a@b.example\n.\nMAIL FROM:<x@y.example>",
)


class AddressTest(OutboxTestCase):
    def test_nothing_in_an_address_adds_to_its_command(self) -> None:
        with ScriptedServer(SMTP) as server:
            box = self.outbox(server.port)
            for evil in EVIL:
                with self.subTest(evil):
                    self.assertEqual(result(box, letter("x", evil, ADMINISTRATOR)), "email_invalid")
                    self.assertEqual(result(box, letter("x", sender=evil)), "email_invalid")
            self.assertEqual(result(box), "sent")
            self.assertEqual(commands(server.conversations[0]), ENVELOPE)

    def test_letters_beyond_ascii_need_a_server_that_takes_them(self) -> None:
        envelope = letter("x", "пошта@приклад.example", ADMINISTRATOR)
        with ScriptedServer(SMTP) as server:
            self.assertEqual(result(self.outbox(server.port), envelope), "sent")
            self.assertIn("RCPT TO:<пошта@приклад.example>\r\n".encode(), server.lines)
            mail = next(line for line in server.lines if line.startswith(b"MAIL"))
            self.assertTrue(mail.endswith(b" BODY=8BITMIME SMTPUTF8\r\n"), mail)
        with ScriptedServer({**SMTP, "EHLO": ehlo("PIPELINING")}) as server:
            box = self.outbox(server.port)
            with self.assertRaises(DeliveryError) as caught:
                finish(box.deliver(envelope))
            self.assertEqual(caught.exception.problem.code, Code.EMAIL_INVALID)
            self.assertIn("SMTPUTF8", str(caught.exception))
            self.assertEqual(result(box), "sent")
            self.assertEqual(len(server.conversations), 1)


    def test_letters_beyond_ascii_in_the_senders_address_are_not_the_persons_mistake(self) -> None:
        with ScriptedServer({**SMTP, "EHLO": ehlo("PIPELINING")}) as server:
            box = self.outbox(server.port)
            for person in (PERSON, "пошта@приклад.example"):
                with self.assertRaises(DeliveryError) as caught:
                    finish(box.deliver(letter("x", person, sender="помощь@example.com")))
                self.assertEqual(caught.exception.problem.code, Code.MAIL_REJECTED)
                self.assertIn("does not send from помощь@example.com", str(caught.exception))
                self.assertIn("SMTPUTF8", str(caught.exception))


    @unittest.skipUnless(sys.platform == "linux", "needs a backlog that leaves connections without an answer")
    def test_an_address_that_answers_is_found_behind_others_that_do_not(self) -> None:
        no_login: Table = {**SMTP, "EHLO": ehlo("PIPELINING")}
        with ScriptedServer(no_login) as server, swallowing_port() as hole:
            for holes, most in ((3, None), (1, 0.2)):  # all share the time, and none has more than is sensible
                places = [hole] * holes + [("127.0.0.1", server.port)]
                found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", place) for place in places]
                with (
                    self.subTest(holes),
                    mock.patch("socket.getaddrinfo", return_value=found),
                    mock.patch.object(wire, "_ONE_OF_MANY", most or 60.0),
                ):
                    began = time.monotonic()
                    self.assertEqual(result(self.outbox(server.port, host="many.example", timeout=2.0)), "sent")
                    self.assertLess(time.monotonic() - began, 1.9 if most is None else 0.9)


class SessionsTest(OutboxTestCase):
    def test_one_session_serves_many_deliveries(self) -> None:
        with ScriptedServer(SMTP) as server:
            box = self.outbox(server.port, sessions=16)
            for _ in range(20):
                self.assertEqual(result(box), "sent")
            self.assertEqual(len(server.conversations), 1)

    def test_there_are_never_more_sessions_than_allowed(self) -> None:
        slow: Table = {**SMTP, "body": bytewise(b"250 queued\r\n", 0.002)}
        with ScriptedServer(slow) as server, ThreadPoolExecutor(20) as threads:
            box = self.outbox(server.port, sessions=3)
            results = list(threads.map(lambda index: result(box, letter(f"{index:03}.")), range(60)))
            self.assertEqual(results, ["sent"] * 60)
            self.assertEqual(sorted(server.bodies), [letter(f"{index:03}.").data for index in range(60)])
            self.assertEqual(len(server.conversations), 3)

    def test_sessions_beyond_what_the_server_allows_are_no_error(self) -> None:
        slow: Table = {**SMTP, "body": bytewise(b"250 queued\r\n", 0.002)}
        for refusal in (b"421 too many connections\r\n", b"554 too many connections\r\n"):
            busy: Table = {**SMTP, "greeting": refusal}
            with ScriptedServer(slow, slow, busy) as server, ThreadPoolExecutor(12) as threads:
                box = self.outbox(server.port, sessions=8)
                self.assertEqual(result(box), "sent")
                self.assertEqual(list(threads.map(result, [box] * 48)), ["sent"] * 48)
                self.assertLess(len(server.conversations), 10)  # nor does it go on asking

    def test_when_no_session_lives_the_refusal_is_told_at_once(self) -> None:
        with ScriptedServer({**SMTP, "greeting": b"421 closing down\r\n"}) as server, ThreadPoolExecutor(8) as threads:
            box = self.outbox(server.port, sessions=2)
            self.assertEqual(set(threads.map(lambda _: result(box), range(16))), {"mail_unavailable retry"})

    def test_waiting_for_a_session_ends_in_time(self) -> None:
        stuck: Table = {**SMTP, "body": hang}
        with ScriptedServer(stuck) as server:
            box = self.outbox(server.port, sessions=1, timeout=1)
            first = threading.Thread(target=result, args=(box,))
            first.start()
            wait_until(lambda: server.bodies)
            with mock.patch.object(smtp, "_OPERATIONS", 0.5):
                begun = time.monotonic()
                self.assertEqual(result(box), "mail_unavailable retry")
                self.assertLess(time.monotonic() - begun, 1)
            self.assertEqual(len(server.conversations), 1)
            first.join()

    def test_nothing_is_handed_over_when_there_is_no_time_left_for_the_answer(self) -> None:
        slow: Table = {**SMTP, "body": bytewise(b"250 queued\r\n", 0.07)}
        with ScriptedServer(slow) as server, ThreadPoolExecutor(6) as threads:
            box = self.outbox(server.port, sessions=1, timeout=1)
            results = list(threads.map(result, [box] * 6))
            self.assertEqual(set(results), {"sent", "mail_unavailable retry"})
            self.assertEqual(results.count("sent"), len(server.bodies))

    def test_a_stale_session_is_replaced_also_while_the_server_is_spared_attempts(self) -> None:
        once: Table = {**SMTP, "body": (b"250 queued\r\n", close)}
        with ScriptedServer({**SMTP, "body": hang}, once, SMTP) as server:
            box = self.outbox(server.port, sessions=3)
            first = threading.Thread(target=result, args=(box,))
            first.start()
            wait_until(lambda: server.bodies)
            self.assertEqual(result(box), "sent")
            box._pool._spared_until = time.monotonic() + 60
            begun = time.monotonic()
            self.assertEqual(result(box), "sent")
            self.assertLess(time.monotonic() - begun, 3)
            server.cut()
            first.join()

    def test_a_session_that_was_closed_while_idle_is_replaced(self) -> None:
        for rested in (0.0, 2.0):  # used at once, and asked first whether it is there
            with ScriptedServer(SMTP) as server, mock.patch.object(pool, "_RESTED", 1.0 - rested):
                box = self.outbox(server.port)
                self.assertEqual(result(box), "sent")
                server.cut()
                self.assertEqual(result(box), "sent")
                self.assertEqual(len(server.bodies), 2)

    def test_a_session_that_said_something_unasked_while_idle_is_replaced(self) -> None:
        with ScriptedServer(SMTP) as server, mock.patch.object(pool, "_RESTED", -1.0):
            box = self.outbox(server.port)
            self.assertEqual(result(box), "sent")
            server.conversations[0].send(b"250 by the way\r\n")
            self.assertEqual(result(box), "sent")
            self.assertEqual(len(server.conversations), 2)

    def test_a_session_that_rested_and_is_there_is_used_again(self) -> None:
        with ScriptedServer(SMTP) as server, mock.patch.object(pool, "_RESTED", -1.0):
            box = self.outbox(server.port)
            self.assertEqual([result(box) for _ in range(3)], ["sent"] * 3)
            self.assertEqual(len(server.conversations), 1)

    def test_so_is_one_in_which_the_reply_to_rset_is_still_to_be_read(self) -> None:
        table: Table = {**PLAIN_SMTP, "RCPT": [b"550 no\r\n", b"250 ok\r\n"]}
        with ScriptedServer(table) as server, mock.patch.object(pool, "_RESTED", -1.0):
            box = self.outbox(server.port)
            self.assertEqual([result(box) for _ in range(2)], ["recipient_refused", "sent"])
            self.assertEqual(len(server.conversations), 1)

    def test_a_session_that_rested_too_long_is_closed(self) -> None:
        with ScriptedServer(SMTP) as server, mock.patch.multiple(pool, _RESTED=-1.0, _LONGEST_IDLE=-1.0):
            box = self.outbox(server.port)
            self.assertEqual([result(box) for _ in range(3)], ["sent"] * 3)
            self.assertEqual(len(server.conversations), 3)
            wait_until(lambda: server.lines.count(b"QUIT\r\n") == 3)

    def test_a_server_that_limits_the_messages_of_a_session_gets_another_session(self) -> None:
        for refusal in (b"421 enough\r\n", b"452 enough\r\n"):
            with self.subTest(refusal), ScriptedServer({**SMTP, "MAIL": [b"250 ok\r\n", refusal]}) as server:
                box = self.outbox(server.port)
                self.assertEqual([result(box) for _ in range(5)], ["sent"] * 5)
                self.assertEqual(len(server.bodies), 5)

    def test_a_reply_too_many_and_one_too_few_do_not_make_up_for_each_other(self) -> None:
        table: Table = {**PLAIN_SMTP, "MAIL": b"250 ok\r\n250 ok\r\n", "RCPT": [b"250 ok\r\n", b""]}
        with ScriptedServer(table) as server:
            self.assertEqual(result(self.outbox(server.port, timeout=0.5)), "mail_unavailable retry")
            self.assertEqual(server.bodies, [])

    def test_faults_of_rset_and_quit_spoil_nothing(self) -> None:
        for fault in (hang, drip(b"2"), b"babble\r\n", b"421 no\r\n", b"550 no\r\n", b"", lambda _: socket.close(-1)):
            table: Table = {**PLAIN_SMTP, "RCPT": [b"550 no\r\n", b"250 ok\r\n"], "RSET": fault, "QUIT": fault}
            with ScriptedServer(table, {**PLAIN_SMTP, "QUIT": fault}) as server:
                box = self.outbox(server.port, timeout=0.5)
                begun = time.monotonic()
                self.assertEqual(result(box), "recipient_refused")
                self.assertLess(time.monotonic() - begun, 0.4)  # nobody waits for RSET
                self.assertEqual(result(box), "sent")
                begun = time.monotonic()
                box.close()
                self.assertLess(time.monotonic() - begun, 0.4)  # nor for QUIT
                self.assertEqual(len(server.bodies), 1)

    def test_a_delivery_as_a_whole_ends_in_three_time_outs(self) -> None:
        slow = {key: bytewise(SMTP[key], 0.03) for key in ("greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "body")}  # type: ignore[arg-type]
        with ScriptedServer({**SMTP, **slow}) as server:
            begun = time.monotonic()
            self.assertEqual(result(self.outbox(server.port, timeout=0.4)), "mail_unavailable retry")
            self.assertLess(time.monotonic() - begun, 2)

    def test_who_waits_says_so_before(self) -> None:
        said: list[bool] = []
        late: Table = {**SMTP, "body": bytewise(b"250 queued\r\n", 0.01)}
        with ScriptedServer(late) as server:
            box = self.outbox(server.port, on_wait=lambda: said.append(bool(server.lines)))
            self.assertEqual(result(box), "sent")
            self.assertIn(True, said)

    def test_closing_takes_leave(self) -> None:
        with ScriptedServer(SMTP) as server:
            box = self.outbox(server.port)
            self.assertEqual(result(box), "sent")
            box.close()
            wait_until(lambda: b"QUIT\r\n" in server.lines)


class StormTest(OutboxTestCase):
    def test_in_a_storm_of_faults_every_outcome_is_the_truth_and_no_session_is_lost_track_of(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)

        def stormy(answer: bytes) -> Action:
            def act(conversation: Conversation) -> None:
                fault = chance.choice((close, reset, b"421 bye\r\n", b"451 later\r\n", b"550 no\r\n", b"??\r\n"))
                conversation._act(fault if chance.random() < 0.04 else answer)

            return act

        table = {key: stormy(answer) if isinstance(answer, bytes) else answer for key, answer in SMTP.items()}
        with ScriptedServer(table) as server, ThreadPoolExecutor(12) as threads:
            box = self.outbox(server.port, sessions=4)
            letters = [letter(f"letter {index:03}.") for index in range(400)]
            results = list(threads.map(lambda envelope: result(box, envelope), letters))
            bodies = collections.Counter(server.bodies)
            for envelope, outcome in zip(letters, results, strict=True):
                with self.subTest(seed=seed, outcome=outcome):
                    times = bodies[envelope.data]
                    self.assertLessEqual(times, 1)
                    if outcome in ("sent", "delivery_uncertain"):
                        self.assertEqual(times, 1)
            self.assertGreater(results.count("sent"), 100)
            # What is free is all there is: nothing is still counted that is gone.
            kept = box._pool
            self.assertEqual((kept._living, kept._opening, len(kept._queue)), (len(kept._free), 0, 0))
            self.assertLessEqual(len(kept._free), 4)


class CheckTest(OutboxTestCase):
    def test_it_proves_every_step_and_sends_nothing(self) -> None:
        with ScriptedServer(SMTP) as server:
            steps = list(self.outbox(server.port).check(ADMINISTRATOR, PERSON))
            self.assertEqual(
                steps,
                [
                    f"connected to 127.0.0.1:{server.port}",
                    "without TLS",
                    "logged in as helpdesk@example.com (PLAIN)",
                    "mail from helpdesk@example.com for alice@example.com is taken",
                ],
            )
            wait_until(lambda: server.lines[-2:] == [b"RSET\r\n", b"QUIT\r\n"])
            self.assertNotIn(b"DATA\r\n", server.lines)

    def test_it_ends_where_it_fails(self) -> None:
        with ScriptedServer({**SMTP, "AUTH": b"535 wrong\r\n"}) as server:
            steps = self.outbox(server.port).check(ADMINISTRATOR, PERSON)
            self.assertEqual(next(steps).partition(" ")[0], "connected")
            self.assertEqual(next(steps), "without TLS")
            with self.assertRaises(DeliveryError) as caught:
                next(steps)
            self.assertEqual(caught.exception.problem.code, Code.MAIL_AUTH_FAILED)


if __name__ == "__main__":
    unittest.main()
