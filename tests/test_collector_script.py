"""collector.py as a process: flags, output, exit codes, and how it ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mailer.sandbox.mail import MailServer
from tests.support.scripted import Conversation, ScriptedServer, close, hang, refused_port
from tests.support.waiting import wait_until
from tests.test_imap import IMAP

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "helpdesk@example.com"
TICKET = "From: Álice <alice@example.net>\r\nSubject: Re: [Ticket #{}] Mailer\r\n\r\nIt works again, спасибо\r\n"


class CollectorCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-script-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.server = MailServer()
        self.server.start()
        self.addCleanup(self.server.stop)
        self.settings = {
            "EMAIL_LOGIN": ADDRESS, "EMAIL_PASSWORD": "sandbox", "IMAP_HOST": "127.0.0.1",
            "IMAP_PORT": str(self.server.imap_port), "PERIOD_CHECK": "0.05", "MAIL_TIMEOUT": "5",
            "SUCCESS_LOG": str(self.folder / "success.log"), "ERROR_LOG": str(self.folder / "error.log"),
            "STATE_DIR": str(self.folder / "state"),
        }

    def command(self, *flags: str, **changes: str) -> tuple[list[str], dict[str, str]]:
        """The command line, and an environment that holds none of our settings; `changes` are made to those."""
        settings = self.folder / f"settings{zlib.crc32(repr(changes).encode()) if changes else ''}.env"
        lines = [f"{key}={value}\n" for key, value in {**self.settings, **changes}.items()]
        settings.write_text("".join(lines), encoding="utf-8")
        settings.chmod(0o600)
        environment = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "SYSTEMROOT")}
        return [sys.executable, str(ROOT / "collector.py"), "--env", str(settings), *flags], environment

    def run_script(self, *flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command, environment = self.command(*flags, **changes)
        return subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, encoding="utf-8", timeout=60
        )

    @contextlib.contextmanager
    def running(self, *flags: str) -> Iterator["subprocess.Popen[str]"]:
        command, environment = self.command(*flags)
        with subprocess.Popen(
            command, env=environment, cwd=self.folder, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def records(self, name: str) -> list[dict[str, object]]:
        path = self.folder / f"{name}.log"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def deliver(self, *tickets: int) -> None:
        for ticket in tickets:
            self.server.deliver(ADDRESS, TICKET.format(ticket).encode())


class Once(CollectorCase):
    def test_one_pass_makes_one_record_a_mail_and_a_second_pass_none(self) -> None:
        self.deliver(12345)
        self.server.deliver(ADDRESS, b"From: x@example.net\r\nSubject: Win\r\n\r\nnow\r\n")
        for _ in range(2):
            ended = self.run_script("--once")
            self.assertEqual((ended.returncode, ended.stdout), (0, ""))
        (success,), (error,) = self.records("success"), self.records("error")
        time_text = str(success.pop("time"))
        self.assertRegex(time_text, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")
        self.assertEqual(success, {
            "ticket": 12345, "from": "alice@example.net", "subject": "Re: [Ticket #12345] Mailer",
            "text": "It works again, спасибо", "date": None, "message_id": None, "uidvalidity": 1, "uid": 1,
        })
        self.assertEqual((error["reason"], error["uid"]), ("subject", 2))

    def run_case(self, name: str, changes: dict[str, str], flags: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """One of several runs at the same time, with a state folder and logs of its own."""
        own = self.folder / name.replace(" ", "-")
        own.mkdir()
        places = {"STATE_DIR": own / "state", "SUCCESS_LOG": own / "success.log", "ERROR_LOG": own / "error.log"}
        return self.run_script(*flags, **{**{key: str(place) for key, place in places.items()}, **changes})

    def test_exit_codes_tell_what_is_wrong_and_no_traceback_does(self) -> None:
        (self.folder / "file").write_text("")
        (self.folder / "loop").symlink_to(self.folder / "loop")
        same = self.folder / "one.log", self.folder / "two.log"
        same[0].touch()
        same[1].hardlink_to(same[0])
        with ScriptedServer({"greeting": hang}, imap=True) as silent:
            table: dict[str, tuple[dict[str, str], tuple[str, ...], int, str]] = {
                "unreachable": ({"IMAP_PORT": str(refused_port())}, ("--once",), 69, "refused"),
                "unreachable check": ({"IMAP_PORT": str(refused_port())}, ("--check",), 69, "refused"),
                "silent": ({"IMAP_PORT": str(silent.port), "MAIL_TIMEOUT": "0.3"}, ("--once",), 69, "0.3 s"),
                "no TLS there": ({"IMAP_SECURITY": "tls"}, ("--once",), 69, str(self.server.imap_port)),
                "no STARTTLS there": ({"IMAP_SECURITY": "starttls"}, ("--once",), 69, "STARTTLS"),
                "wrong password": ({"EMAIL_PASSWORD": "wr0ng"}, ("--once",), 77, ADDRESS),
                "wrong password in the loop": ({"EMAIL_PASSWORD": "wr0ng"}, (), 77, ADDRESS),
                "no such folder": ({"IMAP_FOLDER": "Missing"}, ("--check",), 78, "Missing"),
                "no such folder in the loop": ({"IMAP_FOLDER": "Missing"}, (), 78, "Missing"),
                "no host": ({"IMAP_HOST": ""}, (), 78, "IMAP_HOST"),
                "state in a file": ({"STATE_DIR": str(self.folder / "file" / "x")}, ("--once",), 78, "file"),
                "log in no folder": ({"SUCCESS_LOG": str(self.folder / "x" / "log")}, (), 78, "SUCCESS_LOG"),
                "log is a loop": ({"ERROR_LOG": str(self.folder / "loop")}, ("--check",), 78, "ERROR_LOG"),
                "logs are the same": (
                    {"SUCCESS_LOG": str(same[0]), "ERROR_LOG": str(same[1])}, ("--check",), 78, "by another name"
                ),
                "log is a folder": ({"ERROR_LOG": str(self.folder)}, ("--check",), 78, "ERROR_LOG"),
                "usage": ({"PERIOD_CHECK": "1"}, ("--onec",), 64, "--once"),
            }
            with ThreadPoolExecutor(4) as pool:
                ends = list(pool.map(lambda name: self.run_case(name, *table[name][:2]), table))
            for (name, (_, _, code, word)), ended in zip(table.items(), ends, strict=True):
                with self.subTest(name):
                    self.assertEqual(ended.returncode, code, ended.stderr)
                    self.assertIn(word, ended.stderr)
                    self.assertNotIn("Traceback", ended.stderr)
                    self.assertNotIn("wr0ng", ended.stderr + ended.stdout)

    @unittest.skipUnless(os.name == "posix", "needs permission bits")
    def test_whatever_is_made_is_its_owners_alone(self) -> None:
        self.deliver(1)
        self.server.deliver(ADDRESS, b"no mail at all\r\n")
        self.addCleanup(os.umask, os.umask(0))
        ended = self.run_script("--once", STATE_DIR=str(self.folder / "made" / "state"))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        made = [path for path in self.folder.rglob("*") if path.stat().st_mode & 0o077]
        self.assertEqual(made, [])
        self.assertEqual(len(list(self.folder.rglob("*.eml"))), 1)

    def test_the_check_changes_nothing(self) -> None:
        self.deliver(1)
        ended = self.run_script("--check")
        self.assertEqual((ended.returncode, len(ended.stdout.splitlines())), (0, 3), ended.stderr)
        self.assertIn("1 mail", ended.stdout)
        self.assertEqual(self.server.flags(ADDRESS, 1), frozenset())
        self.assertEqual([path.name for path in self.folder.iterdir()], ["settings.env"])

    def test_help_fits_a_screen_and_has_an_example(self) -> None:
        ended = self.run_script("--help")
        self.assertEqual(ended.returncode, 0)
        self.assertLess(len(ended.stdout.splitlines()), 24)
        self.assertIn("example", ended.stdout)


class Reading(CollectorCase):
    def test_files_are_read_without_settings_or_network(self) -> None:
        self.settings = {}
        (self.folder / "one.eml").write_bytes(TICKET.format(7).encode())
        (self.folder / "два.eml").write_bytes(b"Subject: x\n\ny\n")
        ended = self.run_script("--read", "one.eml", "missing.eml", "два.eml", ".")
        self.assertEqual(ended.returncode, 66)
        records = [json.loads(line) for line in ended.stdout.splitlines()]
        self.assertEqual([record["file"] for record in records], ["one.eml", "два.eml"])
        self.assertEqual((records[0]["ticket"], records[1]["reason"]), (7, "subject"))
        self.assertNotIn("uid", records[0])
        self.assertIn("missing.eml", ended.stderr)
        self.assertEqual(self.run_script("--read", "one.eml").returncode, 0)

    @unittest.skipUnless(Path("/dev/full").exists(), "needs /dev/full")
    def test_a_record_that_cannot_be_written_is_a_passing_trouble(self) -> None:
        (self.folder / "one.eml").write_bytes(b"From: a@example.com\r\n\r\nx")
        command, environment = self.command("--read", "one.eml")
        for redirected in (">&-", ">/dev/full"):
            words = ["/bin/sh", "-c", f'exec "$@" {redirected}', "sh", *command]
            ended = subprocess.run(words, env=environment, cwd=self.folder, stderr=subprocess.PIPE, text=True)
            self.assertEqual(ended.returncode, 75, redirected)
            self.assertIn("cannot be written", ended.stderr)
            self.assertNotIn("Traceback", ended.stderr)

    @unittest.skipUnless(Path("/dev/full").exists(), "needs /dev/full")
    def test_so_is_the_result_of_a_check(self) -> None:
        command, environment = self.command("--check")
        with Path("/dev/full").open("wb") as full:
            ended = subprocess.run(command, env=environment, cwd=self.folder, stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(ended.returncode, 75)
        self.assertIn(b"cannot be written", ended.stderr)
        self.assertNotIn(b"Traceback", ended.stderr)


class Running(CollectorCase):
    def test_it_watches_until_it_is_told_to_end(self) -> None:
        with self.running() as process:
            self.deliver(1)
            wait_until(lambda: len(self.records("success")) == 1)
            self.deliver(2, 3)
            wait_until(lambda: len(self.records("success")) == 3)
            process.terminate()
            self.assertEqual(process.wait(10), 0)
            assert process.stderr is not None
            told = process.stderr.read()
        self.assertNotIn("Traceback", told)
        self.assertEqual(len(re.findall(r"new: \d", told)), told.count(" INFO ") - 1, "one line a pass with mail")

    def test_a_stop_ends_a_long_wait_and_a_hanging_server_at_once(self) -> None:
        self.settings["PERIOD_CHECK"] = "3600"
        with self.running() as process:
            self.deliver(1)
            wait_until(lambda: (self.folder / "success.log").exists())
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            self.assertEqual(process.wait(10), 0)
            self.assertLess(time.monotonic() - began, 3)
        with ScriptedServer({"greeting": hang}, imap=True) as silent:
            self.settings.update(IMAP_PORT=str(silent.port), MAIL_TIMEOUT="60")
            with self.running() as process:
                wait_until(lambda: silent.conversations)
                process.terminate()
                self.assertEqual(process.wait(10), 0)

    def test_one_pass_gets_over_mails_over_which_the_connection_breaks(self) -> None:
        def give(conversation: Conversation) -> None:
            first, _, last = conversation.lines[-1].split()[3].partition(b":")
            for uid in range(int(first), int(last or first) + 1):
                if uid < 12:
                    close(conversation)
                conversation.send(b"* 1 FETCH (UID %d BODY[]<0> {%d}\r\n%b)\r\n" % (uid, len(mail), mail))
            conversation.send(b"%tag% OK done\r\n")

        mail = TICKET.format(7).encode()
        found = b"* SEARCH 9 10 11 12\r\n%tag% OK found\r\n"
        with ScriptedServer({**IMAP, "UID SEARCH": found, "UID FETCH": give}, imap=True) as server:
            done = self.run_script("--once", IMAP_PORT=str(server.port))
        self.assertEqual((done.returncode, [record["uid"] for record in self.records("success")]), (0, [12]), done)
        self.assertIn("to be tried again by a later run: 3", done.stderr)

    def test_a_refused_mail_is_tried_again_before_a_long_period_is_over(self) -> None:
        refusals = 0

        def give(conversation: Conversation) -> None:
            nonlocal refusals
            first, _, last = conversation.lines[-1].split()[3].partition(b":")
            refused = int(first) == 9 and refusals < 2  # with the other one, and by itself
            refusals += refused
            for uid in range(int(first) + refused, int(last or first) + 1):
                conversation.send(b"* 1 FETCH (UID %d BODY[]<0> {%d}\r\n%b)\r\n" % (uid, len(mail), mail))
            conversation.send(b"%tag% NO some are away\r\n" if refused else b"%tag% OK done\r\n")

        mail = TICKET.format(7).encode()
        table = {**IMAP, "UID SEARCH": b"* SEARCH 9 10\r\n%tag% OK found\r\n", "UID FETCH": give}
        with ScriptedServer(table, imap=True) as server:
            self.settings.update(IMAP_PORT=str(server.port), PERIOD_CHECK="3600")
            with self.running():
                wait_until(lambda: [record["uid"] for record in self.records("success")] == [10, 9], 30)
        self.assertEqual(refusals, 2)

    @unittest.skipIf(os.name == "nt", "Windows cannot send these signals")
    def test_one_pass_that_is_interrupted_says_so(self) -> None:
        with ScriptedServer({"greeting": hang}, imap=True) as silent:
            self.settings.update(IMAP_PORT=str(silent.port), MAIL_TIMEOUT="60")
            for number in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(number), self.running("--once") as process:
                    before = len(silent.conversations)
                    wait_until(lambda before=before: len(silent.conversations) > before)  # type: ignore[misc]  # bound
                    process.send_signal(number)
                    self.assertEqual(process.wait(10), 130)

    def test_an_outage_is_told_once_and_got_over(self) -> None:
        with self.running() as process:
            self.deliver(1)
            wait_until(lambda: self.records("success"))
            self.server.stop()
            time.sleep(0.5)  # several tries
            self.server.start()
            self.deliver(2)
            wait_until(lambda: len(self.records("success")) == 2, 20)
            process.terminate()
            process.wait(10)
            assert process.stderr is not None
            told = process.stderr.read()
        causes = [line.partition(" ERROR ")[2] for line in told.splitlines() if " ERROR " in line]
        self.assertEqual(len(causes), len(set(causes)), told)  # perhaps a lost connection before a refused one
        self.assertTrue(causes, told)
        self.assertEqual(told.count("collecting again"), 1, told)

    def test_a_second_collector_ends_with_a_clear_message(self) -> None:
        with self.running() as process:
            wait_until(lambda: (self.folder / "success.log").exists())
            second = self.run_script("--once")
            self.assertEqual(second.returncode, 75)
            self.assertIn("another collector is running", second.stderr)
            self.assertNotIn("Traceback", second.stderr)
            process.kill()
            process.wait(10)
        self.assertEqual(self.run_script("--once").returncode, 0)

    def test_another_mailbox_needs_logs_of_its_own(self) -> None:
        with self.running():
            wait_until(lambda: (self.folder / "success.log").exists())
            for changes, code in (({}, 75), ({"SUCCESS_LOG": str(self.folder / "2.log")}, 75),
                                  ({key: str(self.folder / f"{key}.log") for key in ("SUCCESS_LOG", "ERROR_LOG")}, 0)):
                other = self.run_script("--once", STATE_DIR=str(self.folder / "other"), **changes)
                self.assertEqual(other.returncode, code, other.stderr)
                self.assertEqual("logs of its own" in other.stderr, code == 75)

    def test_logs_may_be_renamed_while_it_runs(self) -> None:
        with self.running():
            self.deliver(1)
            wait_until(lambda: self.records("success"))
            (self.folder / "success.log").rename(self.folder / "success.log.1")
            self.deliver(2)
            wait_until(lambda: self.records("success"))
        self.assertEqual([record["ticket"] for record in self.records("success")], [2])
        self.assertEqual(len((self.folder / "success.log.1").read_text().splitlines()), 1)

    @unittest.skipUnless(hasattr(os, "fork"), "needs notification sockets")
    def test_a_service_manager_hears_of_every_good_pass(self) -> None:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(self.folder / "notify"))
            manager.settimeout(60)
            command, environment = self.command()
            environment["NOTIFY_SOCKET"] = str(self.folder / "notify")
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
                try:
                    heard = [manager.recv(100) for _ in range(3)]
                finally:
                    process.terminate()
                process.wait(60)
                while heard[-1] != b"STOPPING=1":
                    heard.append(manager.recv(100))
        self.assertEqual(heard[:3], [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"])


if __name__ == "__main__":
    unittest.main()
