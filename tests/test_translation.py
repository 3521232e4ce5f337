"""Every word a person sees is in the catalogue, the catalogue is what is in use, and the locale chooses it."""

import ast
import gettext
import io
import os
import re
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mailer import translation
from mailer.errors import Code, Problem, RequestError
from mailer.validation import check

ROOT = Path(__file__).parents[1]
CATALOGUE = ROOT / "mailer/locale/ru/LC_MESSAGES"
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")


def marked(path: Path) -> Iterator[str]:
    """The texts in `_()` of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield str(argument.value)


def entries(path: Path) -> dict[str, str]:
    """The texts of a .po file; its first entry, the header, has an empty key."""
    found = re.findall(r'^msgid ((?:".*"\s)+)msgstr ((?:".*"\s)+)', path.read_text(encoding="utf-8"), re.MULTILINE)
    return {text(key): text(value) for key, value in found}


def text(literals: str) -> str:
    return "".join(ast.literal_eval(line) for line in literals.splitlines())


def speaking(**variables: str) -> Any:
    translation._catalogue.cache_clear()
    others = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    return mock.patch.dict(os.environ, {**others, **variables}, clear=True)


class CatalogueTest(unittest.TestCase):
    def setUp(self) -> None:
        self.texts = entries(CATALOGUE / "mailer.po")
        del self.texts[""]

    def test_it_has_every_text_of_the_code_and_no_other(self) -> None:
        used = {text for path in (ROOT / "mailer").rglob("*.py") for text in marked(path)} | translation.KNOWN
        self.assertGreater(len(used), 50)
        self.assertEqual(set(self.texts), used)

    def test_every_text_is_translated_with_the_same_places_to_fill(self) -> None:
        for key, value in self.texts.items():
            with self.subTest(key):
                self.assertTrue(value)
                self.assertEqual(*(sorted(re.findall(r"\{(\w*)", words)) for words in (key, value)))

    def test_the_compiled_catalogue_is_of_these_texts(self) -> None:
        with (CATALOGUE / "mailer.mo").open("rb") as file:
            compiled = gettext.GNUTranslations(file)
        self.assertEqual({key: compiled.gettext(key) for key in self.texts}, self.texts)
        self.assertEqual(len(compiled._catalog) - 1, len(self.texts))  # type: ignore[attr-defined]

    def test_every_code_is_explained_in_either_language(self) -> None:
        for language, letters in (("en", r"[A-Z]"), ("ru", r"[А-Я]")):
            with speaking(LANGUAGE=language):
                for code in Code:
                    with self.subTest(language=language, code=code):
                        self.assertRegex(translation.explain(Problem(code, "")), rf"\A{letters}.*\.\Z")

    def test_a_servers_words_with_braces_in_them_are_shown_as_they_are(self) -> None:
        for words in ("The address is longer than {} bytes.", "{0.__class__}", "{", "{} {}"):
            with self.subTest(words):
                self.assertIn(words, translation.explain(Problem(Code.EMAIL_INVALID, words)))

    def test_what_the_rules_say_is_translated(self) -> None:
        bad = [
            ("", "x"), ("@", "x"), ("<a@b.de>", "x"), ("a b@example.com", "x"), ("a@b", "x"),
            ("a@" + "b" * 300 + ".cc", "x"), ("a" * 65 + "@example.com", "x"),
            ("a" * 60 + "@" + ".".join(["b" * 49] * 4) + ".cc", "x"),
            ("alice@example.com", " "), ("alice@example.com", "x" * 100_001), ("alice@example.com", "\n\0"),
            ("alice@example.com", "\n\udce9"), ("a@b@example.com", "x"),
        ]  # fmt: skip
        with speaking(LANGUAGE="ru"):
            for email, message in bad:
                with self.subTest(email=email, message=message[:9]), self.assertRaises(RequestError) as wrong:
                    check(email, message)
                for problem in wrong.exception.problems:
                    explained = translation.explain(problem)
                    self.assertRegex(explained, "[а-я]")
                    for number in re.findall(r"U\+\w+|[0-9,]{2,}", problem.text):
                        self.assertIn(number, explained)


class ChoiceTest(unittest.TestCase):
    def test_the_locale_chooses_the_language(self) -> None:
        cases: list[tuple[dict[str, str], bool]] = [
            ({}, False), ({"LANG": "ru_RU.UTF-8"}, True), ({"LC_MESSAGES": "ru_RU"}, True), ({"LC_ALL": "ru"}, True),
            ({"LANG": "ru_RU.UTF-8", "LC_ALL": "C"}, False), ({"LANG": "C", "LANGUAGE": "ru"}, True),
            ({"LANGUAGE": "de:ru", "LANG": "de_DE"}, True), ({"LANGUAGE": "en_GB:ru"}, False),
            ({"LANGUAGE": "", "LANG": "ru_UA.KOI8-U"}, True), ({"LANG": "de_DE.UTF-8"}, False),
            ({"LANG": "../../ru"}, False),
        ]  # fmt: skip
        for variables, russian in cases:
            with self.subTest(variables), speaking(**variables):
                self.assertEqual(translation._("Try again") != "Try again", russian)


    def test_where_its_letters_cannot_be_shown_it_is_english(self) -> None:
        for encoding, russian in (("ascii", False), ("iso-8859-1", False), ("koi8-r", True), ("utf-8", True)):
            for name in ("stdout", "stderr"):
                stream = io.TextIOWrapper(io.BytesIO(), encoding)
                with self.subTest(encoding, stream=name), speaking(LANGUAGE="ru"), mock.patch(f"sys.{name}", stream):
                    self.assertEqual(translation._("Try again") != "Try again", russian)


class ExplanationTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(speaking())

    def test_foreign_words_are_shown_where_they_tell_more_and_made_safe(self) -> None:
        cases = [
            (Problem(Code.MAIL_REJECTED, "the mail server refuses it: 5\x1b No\nsuch {0}"), "message: 5", "such {0}"),
            (Problem(Code.EMAIL_INVALID, "An e-mail address has the form name@example.com."), "An e-mail", ".com."),
            (Problem(Code.UNAUTHORIZED, "No."), "SERVER_TOKEN", "wrong."),
            (Problem(Code.MAIL_REJECTED, ""), "refused", "message."),
        ]
        for problem, start, end in cases:
            with self.subTest(problem):
                explained = translation.explain(problem)
                self.assertIn(start, explained)
                self.assertTrue(explained.endswith(end), explained)
                self.assertTrue(explained.isprintable())


def tearDownModule() -> None:
    translation._catalogue.cache_clear()


if __name__ == "__main__":
    unittest.main()
