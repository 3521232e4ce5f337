"""Invariant: whatever a mail server says, a transaction ends as sent, not sent or uncertain, and that is the truth.

Sent only if the reply to the final dot says 2xx; uncertain only if the final dot was written and no clear reply came;
no other exception, ever. `MAILER_LONG=1` plays 100,000 servers instead of some thousand.
"""

import itertools
import os
import random
import re
import time
import unittest

from mailer.errors import DeliveryError, Outcome
from mailer.smtp.reply import first_reply, may_become_reply
from mailer.smtp.session import Session
from mailer.steps import finish
from tests.support.outboxes import letter

CASES = 100_000 if os.environ.get("MAILER_LONG") else 4_000
PIECES = [
    b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"354 go\r\n", b"550 no\r\n", b"451 later\r\n", b"421 bye\r\n", b"250\r\n",
    b"250 lf only\n", b"250-", b"250", b"25", b"\r\n", b"\n", b"\r", b"-", b" ", b"550", b"2500 x\r\n", b"xyz\r\n",
    b"\0", b"\xff\xfe", b"999 x\r\n", b"150 x\r\n", b"x" * 70_000, b"250-a\r\n" * 12_000,
]  # fmt: skip
REPLY = r"(?:(?P<{0}>[2-5]\d\d)(?:-[^\n]*\n(?P={0}))*(?: [^\n]*)?\r?\n)"
FIFTH_REPLY = re.compile("".join(REPLY.format(name) for name in ("a", "b", "c", "d", "code")).encode())
HONEST = [b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"]


class Line:
    """A socket whose other end says one list of chunks after each thing that it is told, and then closes."""

    def __init__(self, *answers: list[bytes]) -> None:
        self.said: list[bytes] = []
        self._answers = list(answers)
        self._coming: list[bytes] = []

    def send(self, data: bytes, _flags: int = 0) -> int:
        self.said.append(bytes(data))
        self._coming += self._answers.pop(0) if self._answers else []
        return len(data)

    def recv(self, size: int) -> bytes:
        data = self._coming.pop(0) if self._coming else b""
        if len(data) > size:
            self._coming.insert(0, data[size:])
        return data[:size]

    def settimeout(self, _seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


def chunks(chance: random.Random, data: bytes) -> list[bytes]:
    """The data as it may arrive: whole, or cut anywhere."""
    if len(data) > 10_000 or chance.random() < 0.5:
        return [data] if data else []
    cuts = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))})
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


def dialogue(chance: random.Random) -> tuple[bytes, bytes]:
    """What the server says to the envelope and to the message: honest replies with faults sown in."""
    envelope, final = [*HONEST], [b"250 queued\r\n"]
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        replies = chance.choice((envelope, envelope, final))
        index = chance.randrange(len(replies) + 1)
        replies[index : index + chance.randrange(2)] = [chance.choice(PIECES if chance.random() < 0.1 else PIECES[:-2])]
    return b"".join(envelope), b"".join(final)


class FuzzTest(unittest.TestCase):
    def test_whatever_the_server_says(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        outcomes = dict.fromkeys((None, *Outcome), 0)
        for case in range(CASES):
            said = dialogue(chance)
            with self.subTest(seed=seed, case=case, said=said):
                outcomes[self.play(Line(*(chunks(chance, each) for each in said)), said)] += 1
        self.assertTrue(all(outcomes.values()), outcomes)  # each of them came up

    def play(self, line: Line, said: tuple[bytes, bytes]) -> Outcome | None:
        session = Session(30.0, lambda: None)
        session.sock = line  # type: ignore[assignment]
        session._pipelining = True
        outcome = None
        try:
            finish(session.transact(letter(), time.monotonic() + 30))
        except DeliveryError as failure:
            outcome = failure.outcome
        given = any(data.endswith(b"\r\n.\r\n") for data in line.said)
        # The fifth reply is the one to the final dot, whenever its first bytes came.
        clear = FIFTH_REPLY.match(b"".join(said))
        code = clear["code"][:1] if clear else b""
        if outcome is None:
            self.assertTrue(given and code == b"2")
        if not clear or clear.end() < 60_000:  # longer ones may be too long
            self.assertEqual(outcome is Outcome.UNCERTAIN, given and code not in (b"2", b"4", b"5"))
        return outcome

    def test_a_reply_is_found_however_it_is_cut(self) -> None:
        chance = random.Random(7)
        for _ in range(CASES):
            data = b"".join(chance.choice(PIECES[:-2]) for _ in range(chance.randrange(1, 6)))
            whole = first_reply(data)
            for end in range(len(data)):
                if not whole or end < whole.end():
                    self.assertIsNone(first_reply(data[:end]), data)
                if whole and end < whole.end():
                    self.assertTrue(may_become_reply(data[:end]), data)


if __name__ == "__main__":
    unittest.main()
