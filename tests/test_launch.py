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
from pathlib import Path
from unittest import mock

from mailer import launch, supervisor
from mailer.errors import ConfigError, ExitCode, LoginError, StateError
from mailer.settings import Account, OAuth

ROOT = Path(__file__).resolve().parent.parent


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


class Steps(unittest.TestCase):
    def test_letters_that_the_locale_lacks_end_nothing(self) -> None:
        with mock.patch("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252")) as out:
            launch.print_steps(["logged in as büro@д.example"])
            self.assertEqual(out.buffer.getvalue().strip(), "logged in as büro@\\u0434.example".encode("cp1252"))


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
        self.assertRaises(RuntimeError, launch.guard, mock.Mock(side_effect=RuntimeError("a generator raised")))

    def test_too_little_memory_is_for_now(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            self.assertEqual(launch.guard(mock.Mock(side_effect=MemoryError)), ExitCode.TEMPORARY)
        self.assertEqual(errors.getvalue(), "there is too little memory\n")

    def test_a_system_without_a_thread_to_spare_is_said_to_be_one(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = launch.guard(mock.Mock(side_effect=RuntimeError("can't start new thread")))
        self.assertEqual((code, len(errors.getvalue().splitlines())), (ExitCode.TEMPORARY, 1))


@unittest.skipUnless(hasattr(signal, "SIGTERM") and os.name == "posix", "needs POSIX signals")
class Signals(unittest.TestCase):
    PROGRAM = textwrap.dedent("""
        import sys, time
        from mailer import launch
        stop = launch.stop_on_signals()
        print("ready", flush=True)
        stop.wait()
        print("stopping", flush=True)
        while "linger" in sys.argv:
            time.sleep(0.01)
    """)

    def setUp(self) -> None:
        if hasattr(signal, "SIGHUP"):  # processes would inherit that it is ignored, as `nohup` has it
            self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))

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

    @unittest.skipUnless(hasattr(signal, "SIGHUP"), "needs SIGHUP")
    def test_the_end_of_the_terminal_may_be_told_twice_and_is_no_hurry(self) -> None:
        for first in (signal.SIGHUP, signal.SIGTERM):  # SIGTERM: as at the end of a session
            with self.subTest(first):
                process = self.start("linger")
                process.send_signal(first)
                self.assertEqual(self.line(process), "stopping\n")
                process.send_signal(signal.SIGHUP)
                with self.assertRaises(subprocess.TimeoutExpired):
                    process.wait(0.3)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(5), 128 + signal.SIGTERM)

    def test_one_alone_lets_the_script_finish(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                process = self.start()
                process.send_signal(number)
                self.assertEqual(self.line(process), "stopping\n")
                self.assertEqual(process.wait(10), 0)

    def test_the_end_of_the_terminal_ends_nothing_that_is_not_to_hear_of_it(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` has it, and processes inherit it
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        process = self.start()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.line(process), "stopping\n")
        self.assertEqual(process.wait(10), 0)


class Stopping(unittest.TestCase):
    def test_it_is_waited_for_and_stays(self) -> None:
        stop = launch.Stop()
        self.assertFalse(stop.is_set() or stop.wait(0) or stop.wait(0.01))
        stop.set()
        for _ in range(3):
            self.assertTrue(stop.is_set() and stop.wait() and stop.wait(0))

    @unittest.skipUnless(hasattr(signal, "setitimer"), "needs signals at short times")
    def test_a_signal_in_the_middle_of_a_wait_is_never_lost(self) -> None:
        program = textwrap.dedent("""
            import random, signal, sys, time
            from mailer import launch
            end, chance = time.monotonic() + 2, random.Random(1)
            while time.monotonic() < end:
                stop = launch.stop_on_signals()
                signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + chance.random() / 2000)
                while not stop.wait(0.001):
                    pass
        """)
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30)
        self.assertEqual(done.returncode, 0)


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


    @unittest.skipUnless(os.name == "posix", "needs a shell")
    def test_without_a_stderr_nothing_is_kept(self) -> None:
        program = "import gc, io, logging; from mailer import launch; launch.start_logging(False)\n" \
                  "logging.info('x'); logging.getLogger().handlers[0].flush(); found = gc.get_objects()\n" \
                  "print(any(isinstance(each, io.StringIO) and each.getvalue() for each in found))"  # fmt: skip
        command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stdout), (0, "False\n"))


class Logins(unittest.TestCase):
    def test_a_password_is_the_same_each_time(self) -> None:
        login = launch.login(Account("a@b.de", "geheim"), None)
        self.assertEqual((login.user, login.secret(False), login.secret(True), login.oauth), ("a@b.de", "geheim",
        "geheim", False))
        self.assertNotIn("geheim", repr(login))

    def test_an_authority_that_cannot_be_used_is_named(self) -> None:
        account = Account("a@b.de", "", OAuth(command="true"))
        for file in (ROOT / "missing.pem", ROOT / "README.md"):
            with self.subTest(file.name), self.assertRaises(ConfigError) as wrong:
                launch.login(account, file)
            self.assertIn(f"MAIL_CA_FILE: {file}", str(wrong.exception))

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
class TheServiceManager(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="mailer-launch-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        patch = mock.patch.dict(os.environ, clear=True)
        patch.start()
        self.addCleanup(patch.stop)

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

    def test_one_that_does_not_listen_is_given_up(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(self.folder / "notify"))
            os.environ["NOTIFY_SOCKET"] = str(self.folder / "notify")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        other.sendto(b"x", os.environ["NOTIFY_SOCKET"])
            began = time.monotonic()
            with self.assertLogs("mailer.supervisor", logging.WARNING):
                supervisor.notify("STOPPING=1")
            self.assertLess(time.monotonic() - began, 5)

    def test_one_that_is_gone_is_a_warning(self) -> None:
        os.environ["NOTIFY_SOCKET"] = str(self.folder / "missing")
        with self.assertLogs("mailer.supervisor", logging.WARNING):
            supervisor.notify("READY=1")
