"""Invariant: whatever an IMAP server answers, reading the mailbox works or raises MailboxError, soon, and nothing else.

MAILER_LONG=1 makes it 100,000 cases; MAILER_SEED repeats a run.
"""

import contextlib
import logging
import os
import random
import socket
import threading
import unittest
from typing import BinaryIO

from mailer.errors import MailboxError
from tests.test_imap import all_of_it, mailbox

CASES = 100_000 if os.environ.get("MAILER_LONG") == "1" else 1_000
SEED = int(os.environ.get("MAILER_SEED") or random.randrange(1 << 32))

ANSWERS = {
    b"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN ID\r\n%t OK done\r\n",
    b"AUTHENTICATE": b"+ \r\n",
    b"ID": b'* ID ("name" "x")\r\n%t OK done\r\n',
    b"SELECT": b"* 2 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 3] x\r\n%t OK [READ-WRITE] done\r\n",
    b"SEARCH": b"* SEARCH 1 2\r\n%t OK done\r\n",
    b"FETCH": b"* 1 FETCH (UID 1 BODY[]<0> {3}\r\nabc)\r\n* 2 FETCH (BODY[]<0> \"q\\\"\" UID 2)\r\n%t OK done\r\n",
    b"STORE": b"%t OK done\r\n",
}
PIECES = [
    b"\r\n", b"\r", b"\n", b"* ", b"+ ", b"%t ", b"OK ", b"NO ", b"BAD ", b"BYE ", b"PREAUTH ",
    b"{3}\r\n", b"{0}\r\n", b"{99999999}\r\n", b"{-1}", b"{" + b"9" * 5000 + b"}\r\n",
    b"(", b")", b"[", b"]", b"<0>", b'"', b"\\", b"NIL", b"UID ", b"\0", b"\xff", b"\xc3", b" ", b"",
    b"0", b"4294967296", b"99999999999999999999", b"-1",
    b"[UIDVALIDITY ", b"[UNAVAILABLE] ", b"[READ-ONLY] ", b"* 1 EXPUNGE\r\n", b"* 3 EXISTS\r\n", b"x" * 70_000,
]


def mutated(answer: bytes, chance: random.Random) -> bytes:
    """The answer with a few changes."""
    for _ in range(chance.randint(1, 3)):
        low, high = sorted((chance.randrange(len(answer) + 1), chance.randrange(len(answer) + 1)))
        piece = chance.choice([*PIECES, answer[low:high]])
        keep_until = high if chance.random() < 0.3 else min(high, low + chance.randrange(3))
        answer = answer[:low] + piece + answer[keep_until:]
    return answer


class Fuzz(unittest.TestCase):
    def setUp(self) -> None:
        logging.disable()
        self.addCleanup(logging.disable, logging.NOTSET)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.chance = random.Random(SEED)
        self.case = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                with contextlib.suppress(OSError):
                    self.converse(connection, lines)

    def converse(self, connection: socket.socket, lines: BinaryIO) -> None:
        """Answer as usual up to a step, wrongly there, and then no more."""
        wrong = self.chance.randrange(10)
        tag, answer = b"*", b"* OK hello\r\n"
        for step in range(20):
            if step == wrong:
                answer = mutated(answer, self.chance)
            connection.sendall(answer.replace(b"%t", tag))
            if step == wrong:
                connection.shutdown(socket.SHUT_WR)
            line = lines.readline(100_000)
            if not line:
                return
            words = line.split()
            if answer.startswith(b"+"):
                answer = b"%t OK in\r\n"
                continue
            tag = words[0] if words else b"*"
            answer = next((ANSWERS[word] for word in words[1:3] if word in ANSWERS), b"%t OK done\r\n")

    def test_reading_a_mailbox_from_any_server(self) -> None:
        for case in range(CASES):
            box = mailbox(self.listener.getsockname()[1], timeout=2.0)
            try:
                box.open()
                box.unseen()
                list(box.fetch([1, 2], all_of_it))
                box.mark([1])
            except MailboxError as failure:
                self.assertTrue(str(failure).isprintable(), f"MAILER_SEED={SEED}, case {case}")
            except Exception as failure:
                self.fail(f"MAILER_SEED={SEED}, case {case}: {failure!r}")
            finally:
                box.close()
