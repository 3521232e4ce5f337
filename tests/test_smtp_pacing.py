"""Logins that are refused in a row: from the third one on the mail server is left alone for a while."""

import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from mailer.errors import Code, DeliveryError, LoginError, Outcome
from mailer.sasl import Login
from mailer.smtp.pacing import Pacing
from mailer.smtp.reply import LoginDeferredError, SessionLostError
from tests.support.outboxes import ADMINISTRATOR, OutboxTestCase, complaint, letter, result
from tests.support.scripted import SMTP, Conversation, ScriptedServer, Table, close, ehlo
from tests.support.waiting import wait_until

REFUSED: Table = {**SMTP, "AUTH": b"535 5.7.8 no\r\n"}
REFUSAL = DeliveryError(Code.MAIL_AUTH_FAILED, "535 no", Outcome.PERMANENT)
FAR = 10.0**9  # a deadline


class OutboxTest(OutboxTestCase):
    def logins(self, server: ScriptedServer) -> int:
        return sum(line.startswith(b"AUTH") for line in server.lines)

    def test_a_refusal_is_told_again_in_the_pause_and_the_mail_server_hears_nothing(self) -> None:
        for answer, code in ((b"535 5.7.8 no\r\n", "mail_auth_failed"), (b"454 later\r\n", "mail_unavailable retry")):
            with self.subTest(code), ScriptedServer({**SMTP, "AUTH": answer}) as server:
                box = self.outbox(server.port)
                self.assertEqual([result(box) for _ in range(20)], [code] * 20)
                self.assertEqual((len(server.conversations), self.logins(server)), (3, 3))
                self.assertIn(answer[:3].decode(), complaint(box))

    def test_many_requests_at_once_are_no_more_logins(self) -> None:
        with ScriptedServer(REFUSED) as server, ThreadPoolExecutor(30) as pool:
            box = self.outbox(server.port, sessions=16)
            self.assertEqual(set(pool.map(lambda _: result(box), range(60))), {"mail_auth_failed"})
            self.assertEqual(self.logins(server), 3)

    def test_no_token_to_be_had_is_a_refusal_unless_that_will_pass(self) -> None:
        for temporary, code, times in ((False, "mail_auth_failed", 3), (True, "mail_unavailable retry", 9)):
            asked: list[bool] = []

            def secret(fresh: bool, asked: list[bool] = asked, temporary: bool = temporary) -> str:
                asked.append(fresh)
                raise LoginError("no token", temporary=temporary)

            with self.subTest(code), ScriptedServer({**SMTP, "EHLO": ehlo("AUTH XOAUTH2")}) as server:
                box = self.outbox(server.port, login=Login(ADMINISTRATOR, secret, oauth=True))
                self.assertEqual([result(box) for _ in range(9)], [code] * 9)
                self.assertEqual(len(asked), times)

    def test_two_refusals_change_nothing(self) -> None:
        with ScriptedServer(REFUSED, REFUSED, SMTP, REFUSED, REFUSED, SMTP) as server:
            box = self.outbox(server.port)
            for _ in range(2):
                self.assertEqual([result(box) for _ in range(3)], ["mail_auth_failed", "mail_auth_failed", "sent"])
                server.cut()

    def test_failures_of_the_connection_are_not_counted(self) -> None:
        for table in ({**SMTP, "greeting": close}, {**SMTP, "EHLO": close}, {**SMTP, "AUTH": close}):
            with self.subTest(table=table), ScriptedServer(*[table] * 9, SMTP) as server:
                box = self.outbox(server.port)
                self.assertEqual([result(box) for _ in range(10)], ["mail_unavailable retry"] * 9 + ["sent"])

    def test_the_first_login_holds_up_no_others_once_it_works(self) -> None:
        together = threading.Barrier(4)  # of logins that are under way at the same time

        def wait_for_the_others(conversation: Conversation) -> None:
            together.wait(10)
            conversation.send(b"235 welcome\r\n")

        def hold(conversation: Conversation) -> None:
            together.wait(10)
            conversation.send(b"250 queued\r\n")

        held: Table = {**SMTP, "body": hold}
        with ScriptedServer(held, {**SMTP, "AUTH": wait_for_the_others}) as server, ThreadPoolExecutor(4) as pool:
            box = self.outbox(server.port, sessions=4)
            first = pool.submit(result, box)
            wait_until(lambda: any(line.startswith(b"DATA") for line in server.lines))
            others = [pool.submit(result, box, letter(str(number))) for number in range(3)]
            self.assertEqual([each.result() for each in (first, *others)], ["sent"] * 4)


class PacingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.tries = 0
        self.pacing = Pacing(lambda: None, lambda: self.now)

    def open(self, failure: Exception | None = None) -> str:
        try:
            with self.pacing.opening(FAR):
                self.tries += 1
                if failure:
                    raise failure
        except DeliveryError as refused:
            return str(refused)
        return "open"

    def is_tried(self, failure: Exception | None) -> bool:
        before = self.tries
        self.open(failure)
        return self.tries > before

    def test_each_pause_is_twice_as_long_up_to_a_minute(self) -> None:
        for _ in range(3):
            self.assertTrue(self.is_tried(REFUSAL))
        for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            with self.subTest(pause=pause):
                self.now += pause - 0.01
                self.assertFalse(self.is_tried(REFUSAL))
                self.now += 0.01
                self.assertTrue(self.is_tried(REFUSAL))

    def test_a_login_that_works_ends_it(self) -> None:
        for _ in range(5):
            self.now += 60
            self.open(REFUSAL)
        self.now += 60
        self.assertEqual(self.open(), "open")
        for _ in range(3):
            self.assertTrue(self.is_tried(REFUSAL))
        self.assertFalse(self.is_tried(REFUSAL))

    def test_the_last_refusal_is_the_one_that_is_told(self) -> None:
        for words in ("1", "2", "3"):
            self.open(LoginDeferredError(words))
        with self.assertRaises(DeliveryError) as caught, self.pacing.opening(FAR):
            self.fail("there is a pause")
        self.assertEqual((caught.exception.problem, caught.exception.retry), ((Code.MAIL_UNAVAILABLE, "3"), True))

    def test_after_a_pause_one_goes_first(self) -> None:
        for _ in range(3):
            self.open(REFUSAL)
        self.now += 1
        with self.pacing.opening(FAR):
            self.assertEqual(self.open(), "535 no")
        self.assertEqual(self.open(), "open")

    def test_one_that_goes_first_and_finds_nobody_leaves_the_next_to_another(self) -> None:
        for _ in range(3):
            self.open(REFUSAL)
        self.now += 1
        self.assertEqual(self.open(SessionLostError("nobody there")), "nobody there")
        self.assertEqual(self.open(), "open")

    def test_logins_refused_together_are_one_reason_for_a_pause(self) -> None:
        self.open()
        attempts = [self.pacing.opening(FAR) for _ in range(16)]
        for attempt in attempts:
            attempt.__enter__()
        for attempt in attempts:
            self.assertFalse(attempt.__exit__(DeliveryError, REFUSAL, None))
        self.now += 1
        self.assertEqual(self.open(), "open")

    def test_who_waited_for_a_mail_server_that_is_not_there_finds_out_at_the_same_time(self) -> None:
        waiting: list[None] = []
        self.pacing = Pacing(lambda: waiting.append(None), lambda: self.now)
        attempts = [self.pacing.opening(FAR) for _ in range(3)]
        for attempt in attempts:
            attempt.__enter__()
        together = threading.Barrier(5)

        def wait_and_fail() -> str:
            try:
                with self.pacing.opening(FAR):
                    together.wait(10)
                    raise SessionLostError("nobody there")
            except DeliveryError as failure:
                return str(failure)

        with ThreadPoolExecutor(5) as pool:
            others = [pool.submit(wait_and_fail) for _ in range(5)]
            wait_until(lambda: len(waiting) == 5)
            lost = SessionLostError("nobody there")
            self.assertFalse(attempts[0].__exit__(SessionLostError, lost, None))
            self.assertEqual([other.result(10) for other in others], ["nobody there"] * 5)

    def test_the_wait_for_others_ends_in_time(self) -> None:
        under_way = [self.pacing.opening(FAR) for _ in range(3)]
        for attempt in under_way:
            attempt.__enter__()
        with self.assertRaisesRegex(SessionLostError, "under way"), self.pacing.opening(0):
            self.fail("too many")


if __name__ == "__main__":
    unittest.main()
