"""The same request again: one answer, one mail, whether the first one is done or still under way."""

import threading
import unittest
from collections.abc import Callable

from mailer.errors import Code, Problem, RequestError
from mailer.intake.answers import _KEPT_ANSWERS, Answers
from mailer.protocol import Reply, Request
from mailer.steps import WAIT, Steps, finish
from tests.support.waiting import wait_until

HOUR = 3600.0


def _request(key: str | None = "id", message: str = "x", email: str = "a@b.de") -> Request:
    return Request(email, message, key)


def _refusal(code: Code, retry: bool) -> Reply:
    return Reply(problems=(Problem(code, "text"),), retry=retry)


def _known(answers: Answers) -> dict[str, object]:
    return {key: entry for table in answers._tables for key, entry in table.items()}


class Counting(unittest.TestCase):
    """An answerer that counts: its replies are tickets 1, 2, 3 …"""

    def setUp(self) -> None:
        self.now = 0.0
        self.waits = 0
        self.given = 0
        self.answers = Answers(lambda: self.now, self.on_wait)

    def on_wait(self) -> None:
        self.waits += 1

    def answer(self) -> Reply:
        self.given += 1
        return Reply(ticket=self.given)

    def ask(self, request: Request, answer: Callable[[], Reply] | None = None) -> Reply:
        def steps() -> Steps[Reply]:
            yield WAIT
            return (answer or self.answer)()

        return finish(self.answers.once(request, steps))[0]


class Waiting(Counting):
    def test_so_many_wait_at_once_and_one_more_hears_busy(self) -> None:
        self.answers = Answers(lambda: self.now, self.on_wait, most_waiting=2)
        go = threading.Event()
        first = threading.Thread(target=self.ask, args=(_request(), lambda: [go.wait(10), self.answer()][1]))
        first.start()
        wait_until(lambda: _known(self.answers))
        tickets: list[int | None] = []
        others = [threading.Thread(target=lambda: tickets.append(self.ask(_request()).ticket)) for _ in range(2)]
        for thread in others:
            thread.start()
        wait_until(lambda: self.waits == 2)
        with self.assertRaises(RequestError) as refused:
            self.ask(_request())
        self.assertEqual((refused.exception.problems[0].code, refused.exception.retry), (Code.BUSY, True))
        go.set()
        for thread in (first, *others):
            thread.join(10)
        self.assertEqual(tickets, [1, 1])
        self.assertEqual(self.ask(_request()).ticket, 1)


class Afterwards(Counting):
    def test_the_same_request_gets_the_first_answer(self) -> None:
        self.assertEqual([self.ask(_request()).ticket for _ in range(5)], [1] * 5)
        self.assertEqual((self.given, self.waits), (1, 0))

    def test_without_an_id_every_request_is_a_new_one(self) -> None:
        self.assertEqual([self.ask(_request(None)).ticket for _ in range(3)], [1, 2, 3])

    def test_another_id_is_another_request(self) -> None:
        self.assertEqual([self.ask(_request(key)).ticket for key in ("a", "b", "a", "A")], [1, 2, 1, 3])

    def test_the_same_id_with_other_content_is_refused(self) -> None:
        self.ask(_request())
        for other in (_request(message="y"), _request(email="c@d.de"), _request(email="a@b.d", message="ex"),
                      _request(message=""), _request(message="x "), _request(message="\ud800")):  # fmt: skip
            with self.subTest(other), self.assertRaises(RequestError) as refused:
                self.ask(other)
            self.assertEqual(refused.exception.problems[0].code, Code.BAD_REQUEST)
            self.assertFalse(refused.exception.retry)
        self.assertEqual(self.ask(_request()).ticket, 1)

    def test_a_boundary_between_address_and_message_cannot_be_moved(self) -> None:
        self.ask(Request("a@b.de", "1x", "id"))
        self.assertRaises(RequestError, self.ask, Request("a@b.de1", "x", "id"))

    def test_the_token_is_no_content(self) -> None:
        self.ask(Request("a@b.de", "x", "id", "token"))
        self.assertEqual(self.ask(_request()).ticket, 1)

    def test_it_is_remembered_for_an_hour(self) -> None:
        self.ask(_request())
        self.now = HOUR
        self.assertEqual(self.ask(_request()).ticket, 1)
        self.now = HOUR + 0.001
        self.assertEqual(self.ask(_request()).ticket, 2)
        self.now = 2 * HOUR
        self.assertEqual(self.ask(_request()).ticket, 2)

    def test_the_hour_begins_with_the_answer(self) -> None:
        def slowly() -> Reply:
            self.now += 100
            return self.answer()

        self.ask(_request(), slowly)
        self.now = HOUR + 99
        self.assertEqual(self.ask(_request()).ticket, 1)

    def test_after_the_hour_the_id_may_come_with_other_content(self) -> None:
        self.ask(_request())
        self.now = HOUR + 1
        self.assertEqual(self.ask(_request(message="y")).ticket, 2)

    def test_a_final_refusal_is_remembered_and_a_temporary_one_is_not(self) -> None:
        for code, retry in ((Code.EMAIL_INVALID, False), (Code.DELIVERY_UNCERTAIN, False), (Code.BUSY, True)):
            with self.subTest(code):
                reply = _refusal(code, retry)
                self.assertEqual(self.ask(_request(code.value), lambda reply=reply: reply), reply)  # type: ignore[misc]
                again = self.ask(_request(code.value))
                self.assertEqual(again.ok, retry)

    def test_an_error_of_the_server_is_not_remembered(self) -> None:
        self.ask(_request(), lambda: _refusal(Code.INTERNAL_ERROR, False))
        self.assertEqual(self.ask(_request()).ticket, 1)

    def test_after_an_error_it_is_tried_again(self) -> None:
        def fail() -> Reply:
            raise RuntimeError("a bug")

        self.assertRaises(RuntimeError, self.ask, _request(), fail)
        self.assertEqual(self.ask(_request()).ticket, 1)

    def test_at_most_ten_thousand_are_remembered_and_the_newest_at_that(self) -> None:
        self.assertEqual(_KEPT_ANSWERS, 10_000)
        for number in range(_KEPT_ANSWERS + 5):
            self.ask(_request(str(number)))
        self.assertEqual(len(_known(self.answers)), _KEPT_ANSWERS)
        given = self.given
        self.ask(_request("5"))
        self.assertEqual(self.given, given)
        self.ask(_request("4"))
        self.assertEqual(self.given, given + 1)

    def test_one_that_was_answered_anew_counts_as_new(self) -> None:
        self.ask(_request("old"))
        for number in range(_KEPT_ANSWERS - 1):
            self.ask(_request(str(number)))
        self.now = HOUR + 1
        self.ask(_request("old"))
        self.ask(_request("one more"))
        given = self.given
        self.ask(_request("old"))
        self.assertEqual(self.given, given)


class UnderWay(Counting):
    def setUp(self) -> None:
        super().setUp()
        self.go = threading.Event()
        self.replies: list[Reply | str] = []
        self.threads: list[threading.Thread] = []
        self.addCleanup(self.finish)

    def finish(self) -> None:
        self.go.set()
        for thread in self.threads:
            thread.join(10)
            self.assertFalse(thread.is_alive())

    def start(self, request: Request, answer: Callable[[], Reply] | None = None) -> None:
        def run() -> None:
            try:
                self.replies.append(self.ask(request, answer))
            except Exception as error:
                self.replies.append(str(error))

        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()

    def when_told(self, reply: Callable[[], Reply]) -> Callable[[], Reply]:
        def answer() -> Reply:
            started.set()
            self.go.wait(10)
            return reply()

        started = threading.Event()
        self.started = started
        return answer

    def begin(self, reply: Callable[[], Reply]) -> None:
        self.start(_request(), self.when_told(reply))
        self.assertTrue(self.started.wait(10))

    def test_repetitions_wait_for_the_first_one_and_say_so(self) -> None:
        self.begin(self.answer)
        for _ in range(5):
            self.start(_request())
        wait_until(lambda: self.waits == 5)
        self.assertEqual(self.replies, [])
        self.finish()
        self.assertEqual([reply.ticket for reply in self.replies if isinstance(reply, Reply)], [1] * 6)
        self.assertEqual(self.given, 1)

    def test_repetitions_get_a_temporary_refusal_too(self) -> None:
        refusal = _refusal(Code.MAIL_UNAVAILABLE, True)
        self.begin(lambda: refusal)
        self.start(_request())
        wait_until(lambda: self.waits)
        self.finish()
        self.assertEqual(self.replies, [refusal, refusal])
        self.assertEqual(self.ask(_request()).ticket, 1)

    def test_other_content_is_refused_without_waiting(self) -> None:
        self.begin(self.answer)
        self.assertRaises(RequestError, self.ask, _request(message="y"))
        self.assertEqual(self.waits, 0)

    def test_other_requests_do_not_wait(self) -> None:
        self.begin(self.answer)
        self.assertTrue(self.ask(_request("other")).ok)
        self.assertTrue(self.ask(_request(None)).ok)

    def test_when_the_first_ends_in_an_error_the_others_hear_of_it(self) -> None:
        def fail() -> Reply:
            raise RuntimeError("a bug")

        self.begin(fail)
        self.start(_request())
        wait_until(lambda: self.waits)
        self.finish()
        self.assertEqual(sorted(map(str, self.replies)), ["The same request ended in an error in the server.", "a bug"])

    def test_what_is_under_way_is_not_forgotten_however_many_others_come(self) -> None:
        self.begin(self.answer)
        for number in range(_KEPT_ANSWERS + 10):
            self.ask(_request(str(number)))
        self.start(_request())
        wait_until(lambda: self.waits)
        self.finish()
        first, second = self.replies
        self.assertEqual(first, second)
        self.assertLessEqual(len(_known(self.answers)), _KEPT_ANSWERS)

    def test_in_the_moment_before_an_answer_is_known_to_all_it_is_not_given_anew(self) -> None:
        # Somebody holds the lock, by way of the clock, while the first one ends and repetitions queue up.
        holding, let_go = threading.Event(), threading.Event()

        def clock() -> float:
            if [threading.current_thread()] == self.threads[-1:]:
                holding.set()
                let_go.wait(10)
            return 1.0

        self.answers = Answers(clock, self.on_wait)
        self.ask(_request("holder"), lambda: Reply(ticket=99))
        self.begin(self.answer)
        repetitions = [threading.Thread(target=self.ask, args=(_request(),)) for _ in range(10)]
        self.start(_request("holder"))
        self.assertTrue(holding.wait(10))
        for thread in repetitions:
            thread.start()
        self.go.set()
        wait_until(lambda: getattr(_known(self.answers)["id"], "reply", None))
        let_go.set()
        for thread in repetitions:
            thread.join(10)
        self.assertEqual(self.given, 1)
