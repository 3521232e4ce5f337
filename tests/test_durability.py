"""A power cut takes nothing that was acknowledged: on the real processes, what is said to others is on disk before."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from mailer.protocol import Request, encode_request
from mailer.sandbox.mail import MailServer
from tests.support.tracing import calls, events, strace

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "helpdesk@example.com"
TRACED = "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,sendto,recvfrom"


class Traced(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-durability-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.trace = self.folder / "trace"
        self.mail = MailServer()
        self.mail.start()
        self.addCleanup(self.mail.stop)
        self.command = strace(self, self.trace, TRACED)

    def start(self, script: str, *flags: str) -> "subprocess.Popen[str]":
        settings = {
            "EMAIL_LOGIN": ADDRESS, "EMAIL_PASSWORD": "sandbox", "PERIOD_CHECK": "1", "RATE_PER_RECIPIENT": "off",
            "SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(self.mail.smtp_port),
            "IMAP_HOST": "127.0.0.1", "IMAP_PORT": str(self.mail.imap_port), "STATE_DIR": str(self.folder / "state"),
            "SUCCESS_LOG": str(self.folder / "success.log"), "ERROR_LOG": str(self.folder / "error.log"),
        }
        environment = {"PATH": os.environ["PATH"], **settings}
        command = [*self.command, sys.executable, str(ROOT / script), "--env", os.devnull, *flags]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, encoding="utf-8")
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stderr
        self.addCleanup(process.stderr.close)
        return process

    def events(self, process: "subprocess.Popen[str]", kinds: dict[str, str]) -> list[tuple[str, str]]:
        """What the process did, once it has ended well."""
        assert process.stderr
        words = process.stderr.read()  # strace holds this open too: at its end the trace is complete
        self.assertEqual(process.wait(30), 0, words)
        return list(events(calls(self.trace), kinds))


class Collector(Traced):
    LOGGED = ("success written", "success durable")
    SAVED = ("position written", "position durable")

    def kinds(self) -> dict[str, str]:
        folder = re.escape(str(self.folder))
        return {
            "success written": rf"write\(\d+<{folder}/success\.log>",
            "success durable": rf"f(data)?sync\(\d+<{folder}/success\.log>",
            "error written": rf"write\(\d+<{folder}/error\.log>",
            "error durable": rf"f(data)?sync\(\d+<{folder}/error\.log>",
            "log names durable": rf"f(data)?sync\(\d+<{folder}>",
            "position written": rf"pwrite64\(\d+<{folder}/state/collector\.db-wal>",
            "position durable": rf"f(data)?sync\(\d+<{folder}/state/collector\.db-wal>",
            "mail kept": rf"write\(\d+<{folder}/state/unreadable/",
            "mail durable": rf"f(data)?sync\(\d+<{folder}/state/unreadable/",
            "mail named": rf'rename.*"{folder}/state/unreadable/\S+\.eml"',
            "mail names durable": rf"f(data)?sync\(\d+<{folder}/state/unreadable>",
            "asked": rf'sendto\(\d+<TCP:[^>]*>[^>]*:{self.mail.imap_port}\]>, "\w+ UID SEARCH',
            "marked": rf'sendto\(\d+<TCP:[^>]*>[^>]*:{self.mail.imap_port}\]>, "\w+ UID STORE',
        }

    def test_records_then_the_position_are_on_disk_before_mails_are_marked_in_each_batch(self) -> None:
        unreadable = {7, 503}
        for uid in range(1, 506):  # a batch has 500 mails
            subject = f"Subject: [Ticket #{uid}] Mailer\r\n\r\n" if uid % 2 else "Subject: Hello\r\n\r\n"
            self.mail.deliver(ADDRESS, b"no mail at all\r\n" if uid in unreadable else subject.encode())
        found = self.events(self.start("collector.py", "--once"), self.kinds())
        kinds = [kind for kind, _ in found]
        last = len(kinds) - kinds[::-1].index("marked")  # after it the position's file is tidied up
        kept = ["mail kept", "mail durable", "mail named", "mail names durable"]
        self.assertEqual(kinds[kinds.index("asked") : last], [
            "asked", *self.SAVED, *self.SAVED, "asked",  # what is new, and where the logs end, before any mail is read
            *kept, *self.LOGGED, "log names durable", "error written", "error durable", "log names durable",
            *self.SAVED, "marked",
            *kept, *self.LOGGED, "error written", "error durable", *self.SAVED, "marked",
        ])
        logged: set[int] = set()
        marked = []
        for kind, text in found:
            if kind in ("success written", "error written"):
                logged.update(int(uid) for uid in re.findall(r'\\"uid\\": (\d+)', text))
            elif kind == "marked":
                low, high = re.findall(r"UID STORE (\d+):(\d+)", text)[0]
                marked.append((int(low), int(high)))
                self.assertEqual(logged, set(range(1, int(high) + 1)), "what is marked is what was logged before")
        self.assertEqual(marked, [(1, 500), (501, 505)])


class Server(Traced):
    BLOCKS = (1, 11, 31)  # the requests that need a new block of ticket numbers

    def kinds(self) -> dict[str, str]:
        state = re.escape(str(self.folder / "state"))
        server = rf"\(\d+<TCP:[^>]*>[^>]*:{self.mail.smtp_port}\]>, "
        return {
            "block written": rf"pwrite64\(\d+<{state}/tickets\.db>",
            "block durable": rf"f(data)?sync\(\d+<{state}/tickets\.db>",
            "block committed": rf'unlink.*"{state}/tickets\.db-journal"',
            "names durable": rf"f(data)?sync\(\d+<{state}>",
            "folder's name durable": rf"f(data)?sync\(\d+<{re.escape(str(self.folder))}>",
            "envelope": rf'sendto{server}"MAIL FROM',
            "message": rf'sendto{server}".*Subject: \[Ticket #\d+\] Mailer',
            "accepted": rf'recvfrom{server}"250 2\.0\.0 Ok: queued',
            "OK": r'sendto\(\d+<TCP:.*\\"status\\":\\"OK\\"',
        }

    def ask(self, peer: socket.socket) -> int:
        peer.sendall(encode_request(Request("alice@example.net", "The printer is on fire")))
        size = int.from_bytes(peer.recv(4, socket.MSG_WAITALL), "big")
        return int(json.loads(peer.recv(size, socket.MSG_WAITALL))["ticket"])

    def test_a_number_is_on_disk_before_mail_has_it_and_ok_follows_the_mail_servers(self) -> None:
        process = self.start("server.py", "--port", "0")
        assert process.stderr
        port = int(process.stderr.readline().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
            tickets = [self.ask(peer) for _ in range(self.BLOCKS[-1])]
        process.terminate()
        found = self.events(process, self.kinds())
        # SQLite's rollback journal: its name, the new content, and its removal, which is the commit.
        reserved = ["names durable", "block written", "block durable", "block committed", "names durable"]
        expected = []
        for request in range(1, len(tickets) + 1):
            expected += [*(reserved if request in self.BLOCKS else []), "envelope", "message", "accepted", "OK"]
        kinds = [kind for kind, _ in found]
        begin = kinds.index("envelope") - len(reserved)  # before: the empty database is made
        self.assertEqual(kinds[begin : begin + len(expected)], expected)
        self.assertIn("folder's name durable", kinds[:begin])
        for kind, pattern in (("message", r"\[Ticket #(\d+)\]"), ("OK", r'ticket\\":(\d+)')):
            told = [int(re.findall(pattern, text)[0]) for name, text in found if name == kind]
            self.assertEqual(told, tickets, kind)


class Reader(unittest.TestCase):
    """The reader of traces itself: what two threads do at once is told in the order that matters."""

    def test_flushes_count_when_they_end_and_words_when_they_begin(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "trace")
            trace.write_text(
                "11 fsync(3</log> <unfinished ...>\n12 sendto(5<TCP:[a]>, \"OK\" <unfinished ...>\n"
                "11 <... fsync resumed>) = 0\n12 <... sendto resumed>, 2, 0, NULL, 0) = 2\n"
                "11 recvfrom(5<TCP:[a]>, 0x7, 9, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)\n"
                "11 fsync(4</log>) = 0\n12 +++ exited with 0 +++\n"
            )
            kinds = {"flush": r"fsync", "word": r"sendto", "heard": "recvfrom"}
            found = list(events(calls(trace), kinds))
        self.assertEqual([kind for kind, _ in found], ["word", "flush"])
        self.assertEqual(found[1][1].count("fsync"), 2)


if __name__ == "__main__":
    unittest.main()
