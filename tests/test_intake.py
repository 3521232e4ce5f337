"""One request: the order of effects, and every code."""

import email
import email.policy
import logging
import threading
import unittest
from collections.abc import Callable

from mailer.compose import Envelope
from mailer.errors import Code, DeliveryError, Outcome, StateError
from mailer.intake import Intake
from mailer.intake.answers import Answers
from mailer.intake.limits import RateLimit
from mailer.protocol import Reply, Request
from mailer.settings import Rate
from mailer.steps import WAIT, Steps, finish

HOST = "192.0.2.7"


def _nothing() -> None:
    pass


class Desk(unittest.TestCase):
    """An intake whose outbox and ticket numbers are lists; `events` has the effects in their order."""

    def setUp(self) -> None:
        self.events: list[object] = []
        self.failure: Exception | None = None
        self.now = 0.0
        self.intake = self.make()
        logging.getLogger("mailer.intake").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("mailer.intake").setLevel, logging.NOTSET)

    def make(
        self,
        *,
        token: str | None = None,
        per_client: Rate | None = None,
        per_recipient: Rate | None = None,
        hide: Callable[[str], str] = str,
    ) -> Intake:
        return Intake(
            send=self.send,
            new_ticket=self.new_ticket,
            sender="helpdesk@example.com",
            token=token,
            answers=Answers(lambda: self.now, _nothing),
            per_client=RateLimit(per_client, lambda: self.now),
            per_recipient=RateLimit(per_recipient, lambda: self.now),
            hide=hide,
        )

    def new_ticket(self) -> int:
        self.events.append("ticket")
        if isinstance(self.failure, StateError):
            raise self.failure
        return 10_000 + self.events.count("ticket") - 1

    def send(self, envelope: Envelope) -> Steps[None]:
        yield WAIT
        self.events.append(envelope)
        if self.failure:
            raise self.failure

    def ask(self, email: str = "alice@example.com", message: str = "x", key: str | None = None, **more: str) -> Reply:
        return finish(self.intake.handle(Request(email, message, key, **more), HOST))

    def envelope(self) -> Envelope:
        (found,) = (event for event in self.events if isinstance(event, Envelope))
        return found

    def codes(self, reply: Reply) -> list[str]:
        return [problem.code.value for problem in reply.problems]


class Success(Desk):
    def test_the_ticket_comes_before_the_mail_and_ok_after_it(self) -> None:
        reply = self.ask()
        self.assertEqual(reply, Reply(ticket=10_000))
        self.assertEqual([type(event) for event in self.events], [str, Envelope])

    def test_the_mail_is_what_was_validated(self) -> None:
        self.ask("Alice@bücher.example", "one\r\ntwo\rthree ")
        envelope = self.envelope()
        self.assertEqual(envelope.sender, "helpdesk@example.com")
        self.assertEqual(envelope.recipients, ("Alice@xn--bcher-kva.example", "helpdesk@example.com"))
        message = email.message_from_bytes(envelope.data, policy=email.policy.default)
        self.assertEqual(message["Subject"], "[Ticket #10000] Mailer")
        self.assertEqual(message.get_content(), "one\r\ntwo\r\nthree ")

    def test_every_mail_has_its_own_message_id(self) -> None:
        for _ in range(100):
            self.ask()
        ids = [
            email.message_from_bytes(event.data)["Message-ID"] for event in self.events if isinstance(event, Envelope)
        ]
        self.assertEqual(len(set(ids)), 100)


class Refusals(Desk):
    def test_what_is_refused_has_no_effect(self) -> None:
        table = (
            ("alice", "x", ["email_invalid"]),
            ("a@b.de\r\nRCPT TO:<c@d.de>", "x", ["email_invalid"]),
            ("a@b.de", " \n", ["message_empty"]),
            ("a@b.de", "x" * 100_001, ["message_too_long"]),
            ("a@b.de", "\x1b", ["message_invalid"]),
            ("a@b.de", "\ud800", ["message_invalid"]),
            ("\ud800", "\ud800", ["email_invalid", "message_invalid"]),
            ("", "", ["email_invalid", "message_empty"]),
        )
        for address, message, codes in table:
            with self.subTest(codes, address=ascii(address)):
                reply = self.ask(address, message)
                self.assertEqual((self.codes(reply), reply.retry, reply.ticket), (codes, False, None))
        self.assertEqual(self.events, [])

    def test_what_the_mail_server_says_is_passed_on(self) -> None:
        table = (
            (Code.RECIPIENT_REFUSED, Outcome.PERMANENT, False),
            (Code.RECIPIENT_REFUSED, Outcome.TEMPORARY, True),
            (Code.MAIL_REJECTED, Outcome.PERMANENT, False),
            (Code.MAIL_UNAVAILABLE, Outcome.TEMPORARY, True),
            (Code.MAIL_AUTH_FAILED, Outcome.PERMANENT, False),
            (Code.DELIVERY_UNCERTAIN, Outcome.UNCERTAIN, False),
        )
        for code, outcome, retry in table:
            with self.subTest(code, outcome=outcome):
                self.failure = DeliveryError(code, "550 the server's words", outcome)
                reply = self.ask()
                self.assertEqual((self.codes(reply), reply.retry), ([code.value], retry))
                self.assertEqual(reply.problems[0].text, "550 the server's words")

    def test_without_ticket_numbers_nothing_is_sent(self) -> None:
        self.failure = StateError("/secret/place/tickets.db: the disk is full")
        logging.getLogger("mailer.intake").setLevel(logging.NOTSET)
        with self.assertLogs("mailer.intake", logging.ERROR) as log:
            reply = self.ask()
        self.assertEqual(self.codes(reply), ["internal_error"])
        self.assertEqual(self.events, ["ticket"])
        self.assertIn("the disk is full", log.output[0])
        self.assertNotIn("/secret", reply.problems[0].text)

    def test_a_bug_is_not_taken_for_an_answer(self) -> None:
        self.failure = ZeroDivisionError()
        self.assertRaises(ZeroDivisionError, self.ask)


class Tokens(Desk):
    def test_the_right_token_opens_and_everything_else_says_no_more_than_no(self) -> None:
        self.intake = self.make(token="geheim-ключ")
        self.assertTrue(self.ask(token="geheim-ключ").ok)
        count = len(self.events)
        wrong = ("", "geheim", "geheim-ключ ", "GEHEIM-КЛЮЧ", "\ud800", "x" * 100_000)
        replies = [self.ask(), *(self.ask(token=token) for token in wrong)]
        replies.append(self.ask("not an address", "", token="wrong"))
        self.assertEqual({tuple(self.codes(reply)) for reply in replies}, {("unauthorized",)})
        self.assertEqual(len(set(replies)), 1)
        self.assertFalse(replies[0].retry)
        self.assertEqual(len(self.events), count)

    def test_where_no_token_is_set_any_is_taken(self) -> None:
        self.assertTrue(self.ask(token="anything").ok)

    def test_a_wrong_token_neither_sees_nor_spoils_the_answers_of_others(self) -> None:
        self.intake = self.make(token="right")
        self.assertTrue(self.ask(key="id", token="right").ok)
        self.assertEqual(self.codes(self.ask(key="id", token="wrong")), ["unauthorized"])
        self.assertEqual(self.codes(self.ask(key="id2", token="wrong")), ["unauthorized"])
        self.assertTrue(self.ask(key="id2", token="right").ok)

    def test_guessing_is_limited(self) -> None:
        self.intake = self.make(token="right", per_client=Rate(60, 3600, 3))
        codes = [self.codes(self.ask(token=f"guess {number}"))[0] for number in range(5)]
        self.assertEqual(codes, ["unauthorized"] * 3 + ["rate_limited"] * 2)


class TheSameRequestAgain(Desk):
    def test_one_mail_one_ticket(self) -> None:
        replies = {self.ask(key="id") for _ in range(5)}
        self.assertEqual(replies, {Reply(ticket=10_000)})
        self.envelope()

    def test_a_temporary_failure_is_tried_again(self) -> None:
        self.failure = DeliveryError(Code.MAIL_UNAVAILABLE, "later", Outcome.TEMPORARY)
        self.assertTrue(self.ask(key="id").retry)
        self.failure = None
        self.assertTrue(self.ask(key="id").ok)

    def test_an_uncertain_delivery_is_never_repeated(self) -> None:
        self.failure = DeliveryError(Code.DELIVERY_UNCERTAIN, "who knows", Outcome.UNCERTAIN)
        self.ask(key="id")
        self.failure = None
        self.assertEqual(self.codes(self.ask(key="id")), ["delivery_uncertain"])
        self.envelope()

    def test_other_content_is_a_bad_request(self) -> None:
        self.ask(key="id")
        self.assertEqual(self.codes(self.ask(message="y", key="id")), ["bad_request"])
        self.envelope()

    def test_at_the_same_time_from_many_threads_it_is_one_mail(self) -> None:
        go = threading.Barrier(8)
        replies: list[Reply] = []

        def ask() -> None:
            go.wait(10)
            replies.append(self.ask(key="id"))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        self.assertEqual(set(replies), {Reply(ticket=10_000)})
        self.assertEqual(len(replies), 8)
        self.envelope()


class Rates(Desk):
    def test_the_address_is_counted_without_case_and_only_when_mail_is_about_to_go(self) -> None:
        self.intake = self.make(per_recipient=Rate(60, 3600, 2))
        self.ask("alice@example.com", "")
        self.ask("alice@example.com ")
        self.assertTrue(self.ask("alice@example.com").ok)
        self.assertTrue(self.ask("ALICE@Example.com").ok)
        refused = self.ask("Alice@example.com")
        self.assertEqual((self.codes(refused), refused.retry), (["rate_limited"], True))
        self.assertTrue(self.ask("bob@example.com").ok)

    def test_the_spelling_of_a_domain_does_not_help(self) -> None:
        self.intake = self.make(per_recipient=Rate(1, 3600, 1))
        self.assertTrue(self.ask("a@bücher.example").ok)
        self.assertEqual(self.codes(self.ask("a@XN--BCHER-KVA.example")), ["rate_limited"])

    def test_the_client_is_counted_for_every_request(self) -> None:
        self.intake = self.make(per_client=Rate(60, 3600, 3))
        self.ask("nonsense")
        self.ask(message="")
        self.assertTrue(self.ask().ok)
        refused = self.ask()
        self.assertEqual((self.codes(refused), refused.retry), (["rate_limited"], True))
        self.assertTrue(finish(self.intake.handle(Request("alice@example.com", "x"), "192.0.2.8")).ok)

    def test_an_ipv6_client_gains_nothing_by_changing_its_address(self) -> None:
        self.intake = self.make(per_client=Rate(1, 3600, 1))
        for host, ok in (
            ("2001:db8::1", True), ("2001:db8::ffff:0:0:2", False), ("2001:db8:0:1::1", True), ("fe80::1%eth0", True),
            ("fe80::2%eth0", False), ("::ffff:192.0.2.7", True), ("192.0.2.7", False), ("::ffff:192.0.2.8", True),
        ):  # fmt: skip
            with self.subTest(host):
                self.assertEqual(finish(self.intake.handle(Request("alice@example.com", "x"), host)).ok, ok)

    def test_a_repeated_id_counts_for_neither(self) -> None:
        self.intake = self.make(per_client=Rate(1, 3600, 2), per_recipient=Rate(1, 3600, 2))
        for _ in range(10):
            self.assertTrue(self.ask(key="id").ok)
        self.assertTrue(self.ask().ok)

    def test_the_text_says_when_to_try_again(self) -> None:
        self.intake = self.make(per_client=Rate(1, 3600, 1))
        self.ask()
        table = {0.0: "in 61 minutes.", 1.0: "in 60 minutes.", 3500.0: "in 101 seconds.", 3599.5: "in 1 second."}
        for now, words in table.items():
            self.now = now
            self.assertIn(words, self.ask().problems[0].text)
        self.now = 3600.0
        self.assertTrue(self.ask().ok)

    def test_one_who_is_refused_for_the_rate_may_come_again_with_the_same_id(self) -> None:
        self.intake = self.make(per_client=Rate(1, 60, 1))
        self.ask()
        self.assertEqual(self.codes(self.ask(key="id")), ["rate_limited"])
        self.now = 60.0
        self.assertTrue(self.ask(key="id").ok)


class TheLog(Desk):
    def lines(self, level: int, request: Request) -> str:
        with self.assertLogs("mailer.intake", level) as log:
            finish(self.intake.handle(request, HOST))
        return "\n".join(log.output)

    def test_an_address_is_shown_only_when_all_is(self) -> None:
        request = Request("alice@example.com", "my message", "my-id", "my-token")
        self.assertIn("ticket 10000, to example.com, ", self.lines(logging.INFO, request))
        self.assertNotIn("alice", self.lines(logging.INFO, Request("alice@example.com", "x")))
        self.assertIn("alice@example.com", self.lines(logging.DEBUG, Request("alice@example.com", "x")))
        whole = self.lines(logging.DEBUG, Request("b@b.de", "my message", "i", "my-token"))
        self.assertNotRegex(whole, "message|token")

    def test_of_what_is_no_address_nothing_is_shown(self) -> None:
        addresses = ("alice(at)example.com", "alice\uff20example.com", "+49 170 1", "example.com@alice", "a b@c.de")
        for address in addresses:
            line = self.lines(logging.INFO, Request(address, "x"))
            self.assertIn("email_invalid, to ?, ", line, address)
            self.assertIn(ascii(address)[1:-1], self.lines(logging.DEBUG, Request(address, "x")))

    def test_a_line_that_waits_holds_little(self) -> None:
        with self.assertLogs("mailer.intake", logging.INFO) as log:
            finish(self.intake.handle(Request("a" * 1_000_000 + "@example.com", "x"), HOST))
        (line,) = log.records[0].args or ()
        self.assertEqual(vars(type(line))["_address"].__get__(line), "?")

    def test_a_repetition_does_not_fill_the_log(self) -> None:
        first = Request("alice@example.com", "x", "id")
        self.assertIn("ticket 10000", self.lines(logging.INFO, first))
        for repeated in (first, Request("alice@example.com", "other", "id")):
            with self.assertNoLogs("mailer.intake", logging.INFO):
                finish(self.intake.handle(repeated, HOST))
            self.assertTrue(self.lines(logging.DEBUG, repeated))
        self.assertIn("ticket 10001", self.lines(logging.INFO, Request("alice@example.com", "other", "id 2")))

    def test_a_request_adds_one_line_and_no_escape(self) -> None:
        for address in ("a@b\r\nINFO ticket 1", "a@\x1b[2Jb", "a@\u2028b", "\ud800", "x" * 100_000, "a@b%s%d%n"):
            with self.subTest(ascii(address[:20])):
                line = self.lines(logging.DEBUG, Request(address, "x"))
                self.assertTrue(line.isascii() and line.isprintable(), line)
                self.assertLess(len(line), 1500)

    def test_what_is_for_the_administrator_to_mend_is_told_with_its_reason(self) -> None:
        self.failure = DeliveryError(Code.MAIL_AUTH_FAILED, "535 wrong\x1b[2J password", Outcome.PERMANENT)
        line = self.lines(logging.INFO, Request("alice@example.com", "x"))
        self.assertRegex(line, r"^ERROR:.*mail_auth_failed \(535 wrong\ufffd\[2J password\)")
        self.failure = None
        self.assertRegex(self.lines(logging.INFO, Request("no address", "x")), "^INFO:.*email_invalid, ")

    def test_a_secret_that_the_client_is_told_is_not_logged(self) -> None:
        self.intake = self.make(hide=lambda words: words.replace("winter2024", "…"))
        self.failure = DeliveryError(Code.MAIL_REJECTED, "554 spam: winter2024.example", Outcome.PERMANENT)
        request = Request("alice@example.com", "look at winter2024.example")
        for level in (logging.INFO, logging.DEBUG):
            self.assertRegex(self.lines(level, request), r"^WARNING:.*mail_rejected \(554 spam: …\.example\)")
        self.assertEqual(self.ask(message=request.message).problems[0].text, "554 spam: winter2024.example")
        for before in range(480, 500):  # the line is cut here
            self.failure = DeliveryError(Code.MAIL_REJECTED, "x" * before + "winter2024", Outcome.PERMANENT)
            self.assertNotIn("xw", self.lines(logging.INFO, request))

    def test_a_refused_recipient_is_told_with_the_words_and_without_the_address(self) -> None:
        cases = {
            "alice@example.com: 554 5.7.1 <alice@example.com>: Relay denied": "…: 554 5.7.1 …: Relay denied",
            "alice@example.com: 550 User ALICE unknown (bob@b.example)": "…: 550 User … unknown …",
            "alice@example.com: 450 rcpt=alice%40example.com, malice": "…: 450 rcpt=…%40example.com, malice",
        }
        request = Request("alice@example.com", "x")
        for words, shown in cases.items():
            said = f"the mail server refuses {words}"
            self.failure = DeliveryError(Code.RECIPIENT_REFUSED, said, Outcome.PERMANENT)
            with self.subTest(words):
                line = self.lines(logging.INFO, request)
                self.assertIn(f"INFO:mailer.intake:recipient_refused (the mail server refuses {shown}), to ex", line)
                self.assertIn(f"({said})", self.lines(logging.DEBUG, request))

    def test_the_summary_counts_the_outcomes(self) -> None:
        self.assertEqual(self.intake.summary(), "0 requests answered")
        self.ask()
        self.assertEqual(self.intake.summary(), "1 request answered: 1 OK")
        self.ask()
        self.ask("nonsense")
        self.assertEqual(self.intake.summary(), "3 requests answered: 2 OK, 1 email_invalid")
