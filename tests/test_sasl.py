"""The mechanism that is chosen and the first words it says, byte for byte."""

import unittest

from mailer.sasl import Login, choose, initial_response


def _login(oauth: bool = False) -> Login:
    return Login("anna@example.com", lambda _fresh: "top secret", oauth)


class TheChoice(unittest.TestCase):
    def test_one_mechanism_is_chosen_of_those_offered(self) -> None:
        table = (
            (("PLAIN", "LOGIN"), False, "PLAIN"),
            (("LOGIN", "PLAIN"), False, "PLAIN"),
            (("login",), False, "LOGIN"),
            (("plain", "XOAUTH2"), False, "PLAIN"),
            (("CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-256", "NTLM", "GSSAPI"), False, None),
            (("CRAM-MD5", "LOGIN"), False, "LOGIN"),
            (("XOAUTH2", "OAUTHBEARER"), False, None),
            ((), False, None),
            (("PLAIN", "XOAUTH2"), True, "XOAUTH2"),
            (("XOAUTH2", "OAUTHBEARER"), True, "OAUTHBEARER"),
            (("oauthbearer",), True, "OAUTHBEARER"),
            (("PLAIN", "LOGIN"), True, None),  # an access token is no password
        )
        for offered, oauth, mechanism in table:
            with self.subTest(offered=offered, oauth=oauth):
                self.assertEqual(choose(offered, _login(oauth)), mechanism)


class TheFirstWords(unittest.TestCase):
    def test_initial_response(self) -> None:
        table = (
            ("PLAIN", "tim", "tanstaaftanstaaf", b"\0tim\0tanstaaftanstaaf"),  # RFC 4616, section 4
            ("PLAIN", "jörg", "пароль", b"\0j\xc3\xb6rg\0\xd0\xbf\xd0\xb0\xd1\x80\xd0\xbe\xd0\xbb\xd1\x8c"),
            ("PLAIN", "a", " blanks kept ", b"\0a\0 blanks kept "),
            ("LOGIN", "anna@example.com", "unused", b"anna@example.com"),
            ("XOAUTH2", "some@example.com", "ya29.vF9", b"user=some@example.com\x01auth=Bearer ya29.vF9\x01\x01"),
            (
                "OAUTHBEARER", "user@example.com", "vF9dft4",  # RFC 7628, section 4.1
                b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4\x01\x01",
            ),
            (
                "OAUTHBEARER", "a=b,c", "t",
                b"n,a=a=3Db=2Cc,\x01host=server.example.com\x01port=143\x01auth=Bearer t\x01\x01",
            ),
        )  # fmt: skip
        for mechanism, user, secret, expected in table:
            with self.subTest(mechanism=mechanism, user=user):
                self.assertEqual(initial_response(mechanism, user, secret, "server.example.com", 143), expected)


class TheSecret(unittest.TestCase):
    def test_it_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(_login()))
        self.assertNotIn("secret", f"{_login(oauth=True)}")

    def test_it_is_fetched_when_it_is_used(self) -> None:
        asked: list[bool] = []

        def secret(fresh: bool) -> str:
            asked.append(fresh)
            return "x"

        login = Login("anna", secret)
        self.assertEqual(asked, [])
        login.secret(True)
        self.assertEqual(asked, [True])
