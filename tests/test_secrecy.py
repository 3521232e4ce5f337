"""Secrets, however foreign words repeat them."""

import base64
import html
import json
import time
import unittest
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from mailer.secrecy import Secrets

PASSWORDS = (
    "S3cr3tPassw0rd", 'pa"ss\\wo rd', "pässwörd-ж", "пароль", "it's%sx'y\"z", "ab&<>c/d+e=f", "  lead  trail  ", "a +b",
    '\\\\a\\"b\\', "\\x\\", "😀 pw", "tab\tx\x1by", "1//0gREFRESH-secret_9876.54~3210",
    "correct horse  battery staple 123",
)  # fmt: skip
TOKEN = "ya29." + "aB3-_x" * 34


def repetitions(secret: str) -> Iterator[str]:
    """What servers make of a secret."""
    quoted = secret.replace("\\", "\\\\").replace('"', '\\"')
    for text in (secret, quoted):
        yield from (text, text.upper(), text.strip(), " ".join(text.split()))
        yield from (quote(text, safe=""), quote_plus(text))
        yield from (repr(text), repr(text.encode()), json.dumps(text), json.dumps(json.dumps(text)))
        yield from (text.encode().decode("ascii", "replace"), text.encode().decode("latin-1"))
        yield str([f'LOGIN "{text}"'.encode()])
        yield from (html.escape(text), html.escape(text, quote=False))
    for form in ("&#{:03};", "&#x{:X};", "&#x{:04x};"):
        yield "".join(sign if sign.isalnum() or sign in " \t\\" else form.format(ord(sign)) for sign in secret)
    yield secret.replace("&", "&amp;").replace("'", "&apos;")
    for form in ("={:02X}", "+{:02X}"):
        octets = {sign: "".join(form.format(octet) for octet in sign.encode()) for sign in secret}
        yield "".join(sign if sign.isascii() and sign.isalnum() else octets[sign] for sign in secret.strip())
    if len(secret) >= 8:
        yield "\n".join((secret[:5], secret[5:])) if not secret[4:6].count(" ") else secret
    yield secret.encode().hex()
    yield base64.b64encode(secret.encode()).decode()
    yield base64.urlsafe_b64encode(secret.encode()).decode()
    yield quote(base64.b64encode(secret.encode()))


class HiddenTest(unittest.TestCase):
    def test_a_secret_is_hidden_however_it_is_repeated(self) -> None:
        for secret in PASSWORDS:
            for repeated in repetitions(secret):
                with self.subTest(secret=secret, repeated=repeated):
                    self.assertRegex(
                        Secrets(secret).safe(f"550 you said: {repeated} twice"),
                        r"""\A550 you said: (\[b.LOGIN )?[\\"'b]*(?:%20|[ +])*…(?:%20|[ +])*[\\"']*\]? twice\Z""",
                    )

    def test_other_words_are_left(self) -> None:
        for secret in (*PASSWORDS, TOKEN, "a"):
            for words in ("550 5.7.1 no such user here", "[AUTHENTICATIONFAILED] Wrong login (Failure)", ""):
                with self.subTest(secret=secret):
                    self.assertEqual(Secrets(secret).safe(words), words)
        self.assertEqual(Secrets("can not").safe("it cannot be; information"), "it cannot be; information")
        self.assertEqual(Secrets("abcd efgh ijkl mnop").safe("no abcdefghijklmnop"), "no …")

    def test_a_phrase_is_hidden_where_its_encoded_blanks_are_broken_into_lines(self) -> None:
        for told in ("correct%20\nhorse%20battery", "correct+\nhorse+battery", "correct\n%20horse\n battery"):
            with self.subTest(told):
                self.assertEqual(Secrets("correct horse battery").safe(f"no {told}"), "no …")

    def test_a_short_secret_is_hidden_where_it_stands_alone(self) -> None:
        for secret, words, shown in (
            ("no", "nobody knows (no): bm8=", "nobody knows (…): …"),
            ("x", "max is not 'x'", "max is not '…'"),
            (".", "end. said '.'", "end. said '…'"),
            ("", "nothing is secret", "nothing is secret"),
            ("  ", "nothing is  secret", "nothing is secret"),
        ):
            with self.subTest(secret):
                self.assertEqual(Secrets(secret).safe(words), shown)

    def test_a_secret_is_hidden_wherever_it_stands_in_base64(self) -> None:
        for secret in ("s3cr3tPassw0rd", "abcdefghijklmnop", "пароль", TOKEN):
            for before in ("", "a", "ab", "org\0", "user\0", "\0a@b.example\0"):
                for behind in ("", "\1", "\1\1"):
                    told = base64.b64encode(f"{before}{secret}{behind}".encode())
                    for form in (told.decode(), told.rstrip(b"=").decode(), quote(told), told.decode().lower()):
                        with self.subTest(secret=secret[:20], before=before, behind=behind, form=form[:20]):
                            shown = Secrets(secret).safe(f"you said {form}, no")
                            self.assertRegex(shown, r"\Ayou said \S{0,20}…\S{0,9},? no\Z")

    def test_parts_of_a_long_secret_are_hidden_with_the_words_they_are_in(self) -> None:
        encoded = base64.b64encode(f"\1auth=Bearer {TOKEN}".encode()).decode()
        for words, shown in (
            (f"too long: {TOKEN[:60]}", "too long: …"),
            (f"too long: {TOKEN[:60]}\n{TOKEN[60:]}", "too long: …"),
            (f"too long: AUTH {encoded[:80]}\n{encoded[80:]}", "too long: AUTH …"),
            (f"Bearer {TOKEN}, no", "Bearer …, no"),
        ):
            with self.subTest(words):
                self.assertEqual(Secrets(TOKEN, encoded).safe(words), shown)

    def test_a_secret_is_hidden_before_words_are_cut(self) -> None:
        for start in (490, 498, 1990, 1999):
            shown = Secrets("S3cr3tPassw0rd").safe("x" * start + "S3cr3tPassw0rd")
            self.assertNotIn("S3", shown)

    def test_one_secret_may_be_a_part_of_another(self) -> None:
        self.assertEqual(Secrets("abcd", "abcd1234").safe("abcd1234 abcd"), "… …")

    def test_what_steers_a_terminal_is_not_shown(self) -> None:
        self.assertEqual(Secrets("secret").safe("\x1b[2J\r\nsecret\u202e"), "\ufffd[2J …\ufffd")

    def test_many_tokens_are_not_all_kept(self) -> None:
        secrets = Secrets("pass word")
        for number in range(1000):
            secrets.add(f"token-{number:04}")
        self.assertLess(len(vars(secrets)["_patterns"]), 10)
        self.assertEqual(secrets.safe("token-0999 token-0998"), "… …")

    def test_nothing_shows_a_secret(self) -> None:
        self.assertNotIn("S3cr3t", repr(Secrets("S3cr3tPassw0rd")))

    def test_it_takes_linear_time(self) -> None:
        phrase = " ".join(f"word{number}" for number in range(20))
        for secret in ('\\a\\"b', "éé\\", " a b ", TOKEN, phrase):
            secrets = Secrets(secret)
            secrets.safe("")
            for words in ("\\", "%5c", " ", '"', secret[:-1], "a", secret[:-1].replace(" ", "\n \n")):
                with self.subTest(secret=secret, words=words):
                    began = time.process_time()
                    secrets.safe(words * (1 << 16))
                    self.assertLess(time.process_time() - began, 5)


if __name__ == "__main__":
    unittest.main()
