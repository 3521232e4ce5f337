"""Where settings come from, how scripts log, end and are told to end."""

import contextlib
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from mailer import launch, supervisor
from mailer.config import KEYS
from mailer.errors import ConfigError, ExitCode, LoginError, StateError
from mailer.settings import Account, OAuth

ROOT = Path(__file__).resolve().parent.parent


class Folder(unittest.TestCase):
    """A folder of the scripts, and an environment with nothing of ours in it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="mailer-launch-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for patch in (mock.patch.object(launch, "BASE", self.folder), mock.patch.dict(os.environ, clear=True)):
            patch.start()
            self.addCleanup(patch.stop)

    def write(self, text: str | bytes, name: str = ".env", mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def values(self, env: Path | None = None, flags: Mapping[str, object] | None = None) -> dict[str, str]:
        return launch.with_password(launch.values(str(env) if env else None, flags or {}))


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

    def test_an_empty_value_in_the_file_is_none(self) -> None:
        self.write("SMTP_HOST=\nSMTP_PORT\nEMAIL_LOGIN=''")
        self.assertEqual(self.values(), {})

    @unittest.skipUnless(os.name == "posix", "needs file modes")
    def test_a_secret_that_others_can_read_is_warned_of(self) -> None:
        for secret in ("EMAIL_PASSWORD", "SERVER_TOKEN", "OAUTH_CLIENT_SECRET", "OAUTH_REFRESH_TOKEN"):
            for mode in (0o644, 0o640, 0o604):
                with self.subTest(secret, mode=oct(mode)):
                    path = self.write(f"{secret}=geheim", mode=mode)
                    with self.assertLogs("mailer.launch", "WARNING") as log:
                        self.values()
                    self.assertIn(f"chmod 600 {path}", log.output[0])
                    self.assertNotIn("geheim", log.output[0])
        for text, mode in (("EMAIL_PASSWORD=geheim", 0o600), ("SMTP_HOST=h", 0o644), ("EMAIL_PASSWORD=", 0o644)):
            with self.subTest(text, mode=oct(mode)), self.assertNoLogs("mailer.launch"):
                self.write(text, mode=mode)
                self.values()


    def test_a_key_that_is_probably_misspelled_is_warned_of(self) -> None:
        table = {
            "SERVER_PROT": "SERVER_PORT", "server_port": "SERVER_PORT", "EMAIL_PASSWROD": "EMAIL_PASSWORD",
            "EMAIL_PASS": "EMAIL_PASSWORD", "PERIOD_CHEK": "PERIOD_CHECK", "STATEDIR": "STATE_DIR",
            "TICKET_STRAT": "TICKET_START", "export RATE_PER_CLIENTS": "RATE_PER_CLIENT",
        }  # fmt: skip
        for wrong, meant in table.items():
            with self.subTest(wrong), self.assertLogs("mailer.launch", "WARNING") as log:
                path = self.write(f"{wrong}=geheim\nSERVER_PORT=1\nEMAIL_PASSWORD=x")
                self.values()
            self.assertEqual(len(log.output), 1)
            self.assertIn(f"{path}: {wrong.split()[-1]} is no setting", log.output[0])
            self.assertIn(f"did you mean {meant}?", log.output[0])
            self.assertNotIn("geheim", log.output[0])

    def test_keys_of_others_are_left_alone(self) -> None:
        others = ("PATH", "HOME", "PYTHONPATH", "LANG", "LOG_LEVEL", "EMAIL_HOST", "EMAIL_USER", "DATABASE_URL", "PORT",
                  "SMTP_USER", "DEBUG", "TZ", "COMPOSE_PROJECT_NAME", "SECRET_KEY", "HTTPS_PROXY", *KEYS)  # fmt: skip
        self.write("\n".join(f"{key}=x" for key in others if not key.endswith("_FILE")))
        with self.assertNoLogs("mailer.launch"):
            self.values()


class WhatWins(Folder):
    def test_flags_over_the_environment_over_the_file(self) -> None:
        self.write("A=file\nB=file\nC=file\nD=file")
        os.environ.update(B="environment", C="environment", D="")
        found = self.values(flags={"C": "flag", "A": None, "SERVER_PORT": 0})
        self.assertEqual(found, {"A": "file", "B": "environment", "C": "flag", "D": "", "SERVER_PORT": "0"})

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
            b"\xef\xbb\xbfgeheim": "geheim", b"a${X}#=\"'\\": "a${X}#=\"'\\", b"": "",
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
        self.assertNotIn("EMAIL_PASSWORD", launch.values(None, {}))

    def test_a_password_that_is_given_wins(self) -> None:
        self.assertEqual(self.password(b"from the file", EMAIL_PASSWORD="given"), "given")
        self.assertEqual(self.password(b"from the file", EMAIL_PASSWORD=""), "from the file")

    @unittest.skipUnless(os.name == "posix", "needs file modes")
    def test_one_that_others_can_read_is_warned_of(self) -> None:
        path = self.write("geheim", "credential", 0o640)
        os.environ["EMAIL_PASSWORD_FILE"] = str(path)
        with self.assertLogs("mailer.launch", "WARNING") as log:
            self.assertEqual(self.values()["EMAIL_PASSWORD"], "geheim")
        self.assertIn(f"chmod 600 {path}", log.output[0])
        self.assertNotIn("geheim", log.output[0])
        with self.assertNoLogs("mailer.launch"):
            os.environ["CREDENTIALS_DIRECTORY"] = str(self.folder)
            self.values()
            del os.environ["CREDENTIALS_DIRECTORY"]
            path.chmod(0o600)
            self.values()

    def test_a_file_that_cannot_be_used_is_named_and_its_content_is_not(self) -> None:
        names = ("missing", ".", "latin", "huge", "~nobody-of-this-name/x")
        self.write(b"geheim\xff", "latin")
        self.write(b"geheim" * 100_000, "huge")
        for name in names:
            os.environ["EMAIL_PASSWORD_FILE"] = name
            with self.subTest(name), self.assertRaises(ConfigError) as wrong:
                self.values()
            self.assertTrue(wrong.exception.problems[0].startswith("EMAIL_PASSWORD_FILE: "))
            self.assertNotIn("geheim", wrong.exception.problems[0])
            self.assertIsNone(wrong.exception.__cause__)


class TheParser(unittest.TestCase):
    def parse(self, *arguments: str) -> tuple[int, str]:
        parser = launch.Parser("server.py")
        parser.add_argument("--port")
        parser.add_argument("--verbose", action="store_true")
        with contextlib.redirect_stderr(io.StringIO()) as errors, self.assertRaises(SystemExit) as end:
            parser.parse_args(list(arguments))
        assert isinstance(end.exception.code, int)
        return end.exception.code, errors.getvalue()

    def test_usage_errors_end_with_64_and_the_flag_that_was_meant(self) -> None:
        table = (
            (("--prot", "1"), "did you mean --port?"),
            (("--verbos3",), "did you mean --verbose?"),
            (("--prot=1",), "did you mean --port?"),
            (("--zzz",), "unknown: --zzz\n"),
            (("--version",), "unknown: --version\n"),
            (("stray",), "unknown: stray\n"),
            (("--port",), "expected one argument"),
        )
        for arguments, words in table:
            with self.subTest(arguments):
                code, errors = self.parse(*arguments)
                self.assertEqual(code, ExitCode.USAGE)
                self.assertIn(words, errors)
                self.assertIn("usage: server.py", errors)


class Diagnostics(unittest.TestCase):
    def test_without_a_stderr_they_go_nowhere_and_stop_nothing(self) -> None:
        code = "import sys; sys.stderr = None; from mailer import launch; import logging; launch.start_logging(False)"
        code += "; logging.error('x'); print('done')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        self.assertEqual((done.stdout, done.stderr), ("done\n", ""))


class TheWayOut(unittest.TestCase):
    def test_what_ends_a_script_becomes_its_exit_code_and_lines(self) -> None:
        table: tuple[tuple[BaseException, int, str], ...] = (
            (ConfigError("A: is missing", "B: is missing"), 78, "A: is missing\nB: is missing\n"),
            (StateError("/x: damaged"), 78, "/x: damaged\n"),
            (StateError("/x: another one is running", passing=True), 75, "/x: another one is running\n"),
            (KeyboardInterrupt(), 130, ""),
        )
        for error, code, words in table:
            with self.subTest(error), contextlib.redirect_stderr(io.StringIO()) as errors:
                self.assertEqual(launch.guard(mock.Mock(side_effect=error)), code)
                self.assertEqual(errors.getvalue(), words)
        self.assertEqual(launch.guard(lambda: 7), 7)

    def test_a_bug_is_not_hidden(self) -> None:
        self.assertRaises(ZeroDivisionError, launch.guard, lambda: 1 // 0)


@unittest.skipUnless(hasattr(signal, "SIGTERM") and os.name == "posix", "needs POSIX signals")
class Signals(unittest.TestCase):
    PROGRAM = textwrap.dedent("""
        import sys, time
        from mailer import launch
        stop = launch.stop_on_signals()
        print("ready", flush=True)
        launch.wait_for(stop)
        print("stopping", flush=True)
        while "linger" in sys.argv:
            time.sleep(0.01)
    """)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", self.PROGRAM, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
        assert process.stdout
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(self.line(process), "ready\n")
        return process

    def line(self, process: "subprocess.Popen[str]") -> str:
        assert process.stdout
        return process.stdout.readline()

    def test_the_first_one_is_an_event_and_the_second_one_the_end(self) -> None:
        for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM), (signal.SIGINT,
        signal.SIGINT)):
            with self.subTest(first, second=second):
                process = self.start("linger")
                process.send_signal(first)
                self.assertEqual(self.line(process), "stopping\n")
                process.send_signal(second)
                self.assertEqual(process.wait(5), 128 + second)

    def test_one_alone_lets_the_script_finish(self) -> None:
        process = self.start()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.line(process), "stopping\n")
        self.assertEqual(process.wait(10), 0)


class Logging(unittest.TestCase):
    def test_diagnostics_go_to_stderr_a_line_each(self) -> None:
        program = "import logging, sys; from mailer import launch; launch.start_logging(len(sys.argv) > 1)\n" \
                  "logging.info('seen'); logging.debug('more')"  # fmt: skip
        for arguments, words in (((), ["seen"]), (("v",), ["seen", "more"])):
            done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
            self.assertEqual(done.stdout, "")
            self.assertEqual([line.rpartition(" ")[2] for line in done.stderr.splitlines()], words)

    def test_a_log_that_nobody_reads_any_more_stops_nothing(self) -> None:
        program = "import logging, sys; from mailer import launch; launch.start_logging(False); sys.stdin.read()\n" \
                  "for _ in range(10): logging.info('x' * 100_000)\nprint('done', flush=True)"  # fmt: skip
        reading, writing = os.pipe()
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=writing, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        os.close(writing)
        os.close(reading)
        output, _ = process.communicate("", timeout=20)
        self.assertEqual(output, "done\n")


class Logins(unittest.TestCase):
    def test_a_password_is_the_same_each_time(self) -> None:
        login = launch.login(Account("a@b.de", "geheim"), None)
        self.assertEqual((login.user, login.secret(False), login.secret(True), login.oauth), ("a@b.de", "geheim",
        "geheim", False))
        self.assertNotIn("geheim", repr(login))

    def test_an_access_token_comes_from_its_source(self) -> None:
        account = Account("a@b.de", "", OAuth(command=f"{sys.executable} -c \"print('access-token')\""))
        login = launch.login(account, None)
        self.assertTrue(login.oauth)
        self.assertEqual(login.secret(False), "access-token")
        self.assertNotIn("access-token", repr(login))

    def test_an_access_token_is_waited_for_as_long_as_is_said(self) -> None:
        account = Account("a@b.de", "", OAuth(command=f'{sys.executable} -c "import time; time.sleep(60)"'))
        began = time.monotonic()
        self.assertRaisesRegex(LoginError, "in time", launch.login(account, None, patience=0.2).secret, False)
        self.assertLess(time.monotonic() - began, 10)


@unittest.skipUnless(hasattr(socket, "AF_UNIX"), "needs Unix sockets")
class TheServiceManager(Folder):
    def test_it_is_told_on_its_socket(self) -> None:
        for address in (str(self.folder / "notify"), "\0mailer-test-" + self.folder.name):
            with self.subTest(address), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                if address.startswith("\0") and not sys.platform.startswith("linux"):
                    self.skipTest("abstract names are Linux's")
                manager.bind(address)
                manager.settimeout(5)
                os.environ["NOTIFY_SOCKET"] = address.replace("\0", "@")
                supervisor.notify("READY=1")
                self.assertEqual(manager.recv(100), b"READY=1")

    def test_without_one_nothing_happens(self) -> None:
        with self.assertNoLogs():
            supervisor.notify("READY=1")

    def test_one_that_is_gone_is_a_warning(self) -> None:
        os.environ["NOTIFY_SOCKET"] = str(self.folder / "missing")
        with self.assertLogs("mailer.supervisor", logging.WARNING):
            supervisor.notify("READY=1")
