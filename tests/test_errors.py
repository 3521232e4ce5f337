"""The codes and exit codes that others hold on to, and foreign words made safe to show."""

import unicodedata
import unittest

from mailer.errors import (
    Code,
    ConfigError,
    DeliveryError,
    ExitCode,
    LoginError,
    MailboxError,
    MailerError,
    Outcome,
    Problem,
    RequestError,
    StateError,
    TransportError,
    safe,
)


class TheWordsOfTheWire(unittest.TestCase):
    def test_every_code_keeps_its_word_and_its_field(self) -> None:
        table = {
            "bad_request": None, "frame_too_large": None, "email_invalid": "email", "message_empty": "message",
            "message_too_long": "message", "message_invalid": "message", "unauthorized": None, "rate_limited": None,
            "busy": None, "recipient_refused": "email", "mail_rejected": None, "mail_unavailable": None,
            "mail_auth_failed": None, "delivery_uncertain": None, "internal_error": None,
        }  # fmt: skip
        self.assertEqual({code.value: Problem(code, "").field for code in Code}, table)

    def test_every_exit_code_keeps_its_number(self) -> None:
        numbers = {
            "DONE": 0, "REFUSED": 1, "USAGE": 64, "NO_INPUT": 66, "UNAVAILABLE": 69, "UNCERTAIN": 74, "TEMPORARY": 75,
            "LOGIN_REFUSED": 77, "CONFIG": 78, "INTERRUPTED": 130,
        }  # fmt: skip
        self.assertEqual({code.name: code.value for code in ExitCode}, numbers)


class TheFamily(unittest.TestCase):
    def test_every_error_is_a_mailer_error_and_says_its_text(self) -> None:
        table: dict[MailerError, str] = {
            RequestError(Problem(Code.BUSY, "one"), Problem(Code.EMAIL_INVALID, "two")): "one; two",
            DeliveryError(Code.MAIL_REJECTED, "no", Outcome.PERMANENT): "no",
            LoginError("no token"): "no token",
            ConfigError("A: is missing", "B: is missing"): "A: is missing\nB: is missing",
            StateError("the folder"): "the folder",
            TransportError("nobody answers", sent=False): "nobody answers",
            MailboxError("no such folder"): "no such folder",
        }
        for error, text in table.items():
            with self.subTest(type(error).__name__):
                self.assertIsInstance(error, MailerError)
                self.assertEqual(str(error), text)

    def test_only_a_temporary_failure_is_worth_trying_again(self) -> None:
        for outcome in Outcome:
            with self.subTest(outcome):
                error = DeliveryError(Code.MAIL_UNAVAILABLE, "later", outcome)
                self.assertEqual(error.retry, outcome is Outcome.TEMPORARY)
                self.assertEqual(error.problem, Problem(Code.MAIL_UNAVAILABLE, "later"))

    def test_problems_compare_by_what_they_say(self) -> None:
        problem = Problem(Code.BUSY, "wait")
        self.assertEqual(problem, Problem(Code.BUSY, "wait"))
        self.assertEqual(len({problem, Problem(Code.BUSY, "wait"), Problem(Code.BUSY, "more")}), 2)
        self.assertNotEqual(problem, "wait")


class ForeignWords(unittest.TestCase):
    def test_safe(self) -> None:
        table = {
            "plain": ("550 no such user", "550 no such user"),
            "empty": ("", ""),
            "lines become one": ("a\r\nb\n\n c\tc\x0bd\x85e\u2028f\u2029g", "a b c c d e f g"),
            "outer blanks": ("  a \n", "a"),
            "terminal escapes": ("\x1b[2J\x1b]0;title\x07x\x9b1m", "\ufffd[2J\ufffd]0;title\ufffdx\ufffd1m"),
            "NUL and DEL": ("a\0b\x7fc", "a\ufffdb\ufffdc"),
            "text that turns round": ("a\u202eb\u2066c\u200fd", "a\ufffdb\ufffdc\ufffdd"),
            "lone surrogates": ("a\ud800b\udcffc", "a\ufffdb\ufffdc"),
            "other languages": ("Ответ: 回复 é", "Ответ: 回复 é"),
            "an emoji of several parts": ("\U0001f468\u200d\U0001f467", "\U0001f468\u200d\U0001f467"),
        }
        for name, (text, shown) in table.items():
            with self.subTest(name):
                self.assertEqual(safe(text), shown)

    def test_safe_cuts_to_its_limit(self) -> None:
        for length in (499, 500, 501, 10_000_000):
            with self.subTest(length):
                shown = safe("x" * length)
                self.assertEqual(shown, "x" * length if length <= 500 else "x" * 499 + "…")
        self.assertEqual(safe("abcdef", 3), "ab…")
        self.assertEqual(safe("a" + " " * 2500 + "b"), "a…")

    def test_whatever_the_character_the_result_can_be_encoded_and_steers_nothing(self) -> None:
        for number in (*range(0x3100), *range(0xD7F0, 0x10000), *range(0xE0000, 0xE0200), 0x10FFFF):
            shown = safe(f"a{chr(number)}b")
            shown.encode()
            categories = {unicodedata.category(character) for character in shown if character not in "\u200c\u200d"}
            self.assertFalse(categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}, f"U+{number:04X} shows as {shown!r}")
