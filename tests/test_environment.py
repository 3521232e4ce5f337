"""The settings file, the environment and the flags: what wins, and what is refused or warned of."""

import errno
import os
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from mailer import environment
from mailer.config import KEYS, server_settings
from mailer.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


class Folder(unittest.TestCase):
    """A folder of the scripts, and an environment with nothing of ours in it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="mailer-environment-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for patch in (mock.patch.object(environment, "BASE", self.folder), mock.patch.dict(os.environ, clear=True)):
            patch.start()
            self.addCleanup(patch.stop)

    def write(self, text: str | bytes, name: str = ".env", mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def values(self, env: Path | None = None, flags: Mapping[str, object] | None = None) -> dict[str, str]:
        return environment.with_password(environment.values(str(env) if env else None, flags or {}))


class TheFile(Folder):
    def test_a_file_without_end_is_none_of_settings(self) -> None:
        with self.assertRaises(ConfigError) as wrong:
            self.values(self.write("A=1\n" * 100_000))
        self.assertIn("too long", str(wrong.exception))

    def test_what_is_written_is_what_is_read(self) -> None:
        table = {
            "plain": ("IMAP_HOST=imap.example.com", "imap.example.com"),
            "a blank after the sign": ("IMAP_HOST= imap.gmail.com", "imap.gmail.com"),
            "blanks all around": ("  IMAP_HOST \t=  imap.gmail.com \t ", "imap.gmail.com"),
            "export": ("export IMAP_HOST=h", "h"),
            "a quote and a backslash in quotes": (r"IMAP_HOST='it\'s #1 \\ $HOME'", r"it's #1 \ $HOME"),
            "quoted": ("IMAP_HOST='a b '", "a b "),
            "double quoted": ('IMAP_HOST="a # b"', "a # b"),
            "a comment": ("IMAP_HOST=h # the host", "h"),
            "no comment": ("IMAP_HOST=h#1", "h#1"),
            "an equals sign": ("IMAP_HOST=a=b==", "a=b=="),
            "no interpolation": ("A=1\nIMAP_HOST=x${A}y$A", "x${A}y$A"),
            "no interpolation, quoted": ('A=1\nIMAP_HOST="${A}"', "${A}"),
            "no interpolation of what is not there": ("IMAP_HOST=pa$$w${X:-default}", "pa$$w${X:-default}"),
            "other scripts": ("IMAP_HOST=пароль", "пароль"),
            "the last one": ("IMAP_HOST=a\nIMAP_HOST=b", "b"),
            "among comments and empty lines": ("# IMAP_HOST=x\n\n\nIMAP_HOST=h\n\n# end", "h"),
        }
        for name, (text, value) in table.items():
            for ends in ("\n", "\r\n"):
                with self.subTest(name, ends=ends):
                    self.write(text.replace("\n", ends) + ends)
                    self.assertEqual(self.values()["IMAP_HOST"], value)
                    self.write(b"\xef\xbb\xbf" + text.replace("\n", ends).encode())
                    self.assertEqual(self.values()["IMAP_HOST"], value)

    def test_without_a_file_there_is_the_environment(self) -> None:
        os.environ["SMTP_HOST"] = "h"
        self.assertEqual(self.values(), {"SMTP_HOST": "h"})

    def test_a_file_that_was_named_is_the_one(self) -> None:
        self.write("SMTP_HOST=a\nSMTP_PORT=1")
        self.assertEqual(self.values(self.write("SMTP_HOST=b", "other.env")), {"SMTP_HOST": "b"})

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        bad = self.write(b"SMTP_HOST=\xff\xfe\n", "latin.env")
        utf_16 = self.write("SMTP_HOST=b".encode("utf-16"), "utf-16.env")
        for path in (bad, utf_16, self.folder, self.folder / "missing.env"):
            with self.subTest(path.name), self.assertRaises(ConfigError) as wrong:
                self.values(path)
            self.assertIn(str(path), wrong.exception.problems[0])
        self.write(b"\xff")
        self.assertRaises(ConfigError, self.values)

    def test_a_file_that_is_not_ours_to_read_is_left_out_where_it_may_be(self) -> None:
        closed = PermissionError(errno.EACCES, "Permission denied")
        with mock.patch.object(Path, "open", side_effect=closed):
            with self.assertLogs("mailer.environment", "WARNING"):
                self.assertNotIn("IMAP_HOST", environment.values(None, {}, optional=True))
            for env, optional in ((None, False), ("other.env", True)):
                self.assertRaises(ConfigError, environment.values, env, {}, optional=optional)

    def test_a_line_that_cannot_be_read_is_told_and_not_left_out(self) -> None:
        lines = ("SERVER_TOKEN='it's secret'", "SERVER_TOKEN='secret", 'SERVER_TOKEN="secret"b"',
                 "SERVER_TOKEN: secret", "set SERVER_TOKEN=secret",
                 "SERVER_TOKEN:secret", "EMAIL_PASSWORD:secret", "SERVER_TOKEN= # secret",
                 "secret", "my_secret1", "SERVER_TOKEN", "SERVER_TOKEN # a secret")  # fmt: skip
        for line in lines:
            with self.subTest(line), self.assertRaises(ConfigError) as wrong:
                self.values(self.write(f"# settings\n\nIMAP_HOST=h\n{line}\nSMTP_HOST=h\n\n \nA: b\n"))
            first, second = wrong.exception.problems
            self.assertIn("line 4 ", first)
            self.assertIn("line 8 ", second)
            self.assertNotIn("secret", first)

    def test_an_empty_value_in_the_file_is_none(self) -> None:
        self.write("SMTP_HOST=\nhttp_proxy\nHTTPS_PROXY\nEMAIL_LOGIN=''")
        self.assertEqual(self.values(), {})

    @unittest.skipUnless(os.name == "posix", "needs file modes")
    def test_a_secret_that_others_can_read_is_warned_of(self) -> None:
        for secret in ("EMAIL_PASSWORD", "SERVER_TOKEN", "OAUTH_CLIENT_SECRET", "OAUTH_REFRESH_TOKEN"):
            for mode in (0o644, 0o640, 0o604):
                with self.subTest(secret, mode=oct(mode)):
                    path = self.write(f"{secret}=geheim", mode=mode)
                    with self.assertLogs("mailer.environment", "WARNING") as log:
                        self.values()
                    self.assertIn(f"chmod 600 {path}", log.output[0])
                    self.assertNotIn("geheim", log.output[0])
        for text, mode in (("EMAIL_PASSWORD=geheim", 0o600), ("SMTP_HOST=h", 0o644), ("EMAIL_PASSWORD=", 0o644)):
            with self.subTest(text, mode=oct(mode)), self.assertNoLogs("mailer.environment"):
                self.write(text, mode=mode)
                self.values()


    def test_a_key_that_is_probably_misspelled_is_warned_of(self) -> None:
        table = {
            "SERVER_PROT": "SERVER_PORT", "server_port": "SERVER_PORT", "EMAIL_PASSWROD": "EMAIL_PASSWORD",
            "EMAIL_PASS": "EMAIL_PASSWORD", "PERIOD_CHEK": "PERIOD_CHECK", "STATEDIR": "STATE_DIR",
            "TICKET_STRAT": "TICKET_START", "export RATE_PER_CLIENTS": "RATE_PER_CLIENT",
        }  # fmt: skip
        for wrong, meant in table.items():
            with self.subTest(wrong), self.assertLogs("mailer.environment", "WARNING") as log:
                path = self.write(f"{wrong}=geheim\nSERVER_PORT=1\nEMAIL_PASSWORD=x")
                self.values()
            self.assertEqual(len(log.output), 1)
            self.assertIn(f"{path}: {wrong.split()[-1]} is no setting", log.output[0])
            self.assertIn(f"did you mean {meant}?", log.output[0])
            self.assertNotIn("geheim", log.output[0])

    def test_a_comment_stands_behind_a_value_and_is_none(self) -> None:
        path = self.write("SMTP_HOST=h # here\nEMAIL_LOGIN= l # there\nSERVER_TOKEN=#1\nOTHERS= # nothing")
        self.assertEqual(self.values()["SMTP_HOST"], "h")
        self.assertEqual((self.values()["EMAIL_LOGIN"], self.values()["SERVER_TOKEN"]), ("l", "#1"))
        path.write_text("SERVER_TOKEN= # off\nEMAIL_PASSWORD=\t# fill in")
        with self.assertRaises(ConfigError) as wrong:
            self.values()
        self.assertEqual(len(wrong.exception.problems), 2)
        self.assertIn("line 1 has a comment where the value of SERVER_TOKEN belongs", wrong.exception.problems[0])

    def test_keys_of_others_are_left_alone(self) -> None:
        others = ("PATH", "HOME", "PYTHONPATH", "LANG", "LOG_LEVEL", "EMAIL_HOST", "EMAIL_USER", "DATABASE_URL", "PORT",
                  "SMTP_USER", "DEBUG", "TZ", "COMPOSE_PROJECT_NAME", "SECRET_KEY", "HTTPS_PROXY", *KEYS)  # fmt: skip
        self.write("\n".join(f"{key}=x" for key in others if not key.endswith("_FILE")))
        with self.assertNoLogs("mailer.environment"):
            self.values()


class WhatWins(Folder):
    def test_flags_over_the_environment_over_the_file(self) -> None:
        self.write("A=file\nB=file\nC=file\nD=file")
        os.environ.update(B="environment", C="environment", D="")
        found = self.values(flags={"C": "flag", "A": None, "SERVER_PORT": 0})
        self.assertEqual(found, {"A": "file", "B": "environment", "C": "flag", "D": "", "SERVER_PORT": "0"})

    def test_a_home_folder_is_put_into_paths_alone(self) -> None:
        os.environ["HOME"] = str(self.folder)
        self.write("STATE_DIR= ~/state\nMAIL_CA_FILE=~nobody-of-this-name/x\nEMAIL_PASSWORD=~/x\nERROR_LOG=a~b")
        found = self.values()
        self.assertEqual(found["STATE_DIR"], f"{self.folder}/state")
        self.assertEqual(found["MAIL_CA_FILE"], "~nobody-of-this-name/x")
        self.assertEqual((found["EMAIL_PASSWORD"], found["ERROR_LOG"]), ("~/x", "a~b"))

    def test_the_environment_itself_is_left_alone(self) -> None:
        self.write("EMAIL_PASSWORD=geheim")
        self.values()
        self.assertEqual(dict(os.environ), {})


class ThePasswordFile(Folder):
    def password(self, content: bytes, **more: str) -> str | None:
        path = self.write(content, "credential")
        os.environ.update(EMAIL_PASSWORD_FILE=str(path), **more)
        return self.values().get("EMAIL_PASSWORD")

    def test_its_content_is_the_password(self) -> None:
        table = {
            b"geheim": "geheim", b"geheim\n": "geheim", b"geheim\r\n": "geheim", b" geheim \n": " geheim ",
            b"two\nlines\n": "two\nlines", b"geheim\n\n": "geheim\n", "пароль".encode(): "пароль",
            b"\xef\xbb\xbfgeheim": "geheim", b"a${X}#=\"'\\": "a${X}#=\"'\\",
        }  # fmt: skip
        for content, password in table.items():
            with self.subTest(content):
                self.assertEqual(self.password(content), password)

    def test_it_may_be_named_in_the_file_and_relative_to_the_scripts(self) -> None:
        self.write("EMAIL_PASSWORD_FILE=sub/credential")
        (self.folder / "sub").mkdir()
        self.write("geheim", "sub/credential")
        self.assertEqual(self.values()["EMAIL_PASSWORD"], "geheim")

    def test_it_is_left_alone_by_who_needs_no_password(self) -> None:
        self.assertIsNone(self.password(b"geheim", EMAIL_AUTH=" OAuth2"))
        os.environ["EMAIL_PASSWORD_FILE"] = "missing"
        self.assertNotIn("EMAIL_PASSWORD", environment.values(None, {}))

    def test_a_password_that_is_given_wins(self) -> None:
        self.assertEqual(self.password(b"from the file", EMAIL_PASSWORD="given"), "given")
        self.assertEqual(self.password(b"from the file", EMAIL_PASSWORD=""), "from the file")

    @unittest.skipUnless(os.name == "posix", "needs file modes")
    def test_one_that_others_can_read_is_warned_of(self) -> None:
        path = self.write("geheim", "credential", 0o640)
        os.environ["EMAIL_PASSWORD_FILE"] = str(path)
        with self.assertLogs("mailer.environment", "WARNING") as log:
            self.assertEqual(self.values()["EMAIL_PASSWORD"], "geheim")
        self.assertIn(f"chmod 600 {path}", log.output[0])
        self.assertNotIn("geheim", log.output[0])
        with self.assertNoLogs("mailer.environment"):
            os.environ["CREDENTIALS_DIRECTORY"] = str(self.folder)
            self.values()
            del os.environ["CREDENTIALS_DIRECTORY"]
            path.chmod(0o600)
            self.values()

    def test_a_file_that_cannot_be_used_is_named_and_its_content_is_not(self) -> None:
        names = ("missing", ".", "latin", "huge", "empty", "~nobody-of-this-name/x")
        self.write(b"\n", "empty")
        self.write(b"geheim\xff", "latin")
        self.write(b"geheim" * 100_000, "huge")
        for name in names:
            os.environ["EMAIL_PASSWORD_FILE"] = name
            with self.subTest(name), self.assertRaises(ConfigError) as wrong:
                self.values()
            self.assertTrue(wrong.exception.problems[0].startswith("EMAIL_PASSWORD_FILE: "))
            self.assertNotIn("geheim", wrong.exception.problems[0])
            self.assertIsNone(wrong.exception.__cause__)

    def test_its_problem_is_told_together_with_all_others(self) -> None:
        os.environ.update(EMAIL_PASSWORD_FILE="missing", SMTP_PORT="x", EMAIL_LOGIN="help@example.com")
        with self.assertRaises(ConfigError) as wrong:
            environment.settings(server_settings, environment.values(None, {}))
        keys = [problem.partition(":")[0] for problem in wrong.exception.problems]
        self.assertEqual(keys, ["EMAIL_PASSWORD_FILE", "SMTP_HOST", "SMTP_PORT"])
        os.environ.update(SMTP_PORT="25", SMTP_HOST="localhost")
        with self.assertRaises(ConfigError) as wrong:
            environment.settings(server_settings, environment.values(None, {}))
        self.assertEqual(len(wrong.exception.problems), 1)


if __name__ == "__main__":
    unittest.main()
