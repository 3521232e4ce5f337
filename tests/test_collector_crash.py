"""The collector's process killed at random moments while mail comes in: each mail in exactly one log, exactly once.

MAILER_LONG=1 makes it 200 kills and 2,000 mails.
"""

import itertools
import json
import os
import random
import subprocess
import threading
import time

from tests.support.waiting import wait_until
from tests.test_collector_script import ADDRESS, ROOT, CollectorCase

LONG = os.environ.get("MAILER_LONG") == "1"
KILLS, MAILS = (200, 2_000) if LONG else (10, 200)


class Kills(CollectorCase):
    def test_kill_at_random_moments_loses_and_repeats_nothing(self) -> None:
        self.settings["PERIOD_CHECK"] = "0.01"
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        all_in = threading.Event()
        # Spread over the whole run; a short burst now and then makes batches of more than one mail.
        pause = KILLS * 0.35 / MAILS

        def deliver() -> None:
            for number in range(MAILS):
                subject = f"[Ticket #{number}] Mailer" if number % 2 else "Hello"
                text = "x" * chance.choice((10, 1_000, 100_000))
                head = f"From: a@example.net\r\nSubject: {subject}\r\nMessage-ID: <{number}@x>\r\n\r\n"
                self.server.deliver(ADDRESS, f"{head}{number} {text}\r\n".encode())
                if number % 20 > 10:
                    time.sleep(2 * pause)
            all_in.set()

        delivering = threading.Thread(target=deliver)
        delivering.start()
        rotations = itertools.count()
        ends = []
        for kill in range(KILLS):
            command, environment = self.command()
            with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
                time.sleep(chance.uniform(0.1, 0.6))
                process.kill()
                ends.append(process.wait())
            if kill % 3 == 0:
                self.rotate(next(rotations))
        delivering.join()
        for _ in range(2):
            self.assertEqual(self.run_script("--once").returncode, 0)
        wait_until(all_in.is_set)
        uids = sorted(uid for name in ("success", "error") for uid in self.logged(name))
        self.assertEqual(uids, list(range(1, MAILS + 1)), f"seed {seed}")
        self.assertEqual(len(self.logged("success")), MAILS // 2)
        self.assertEqual(set(ends), {-9}, "it was killed, and never ended by itself")
        unseen = [uid for uid in range(1, MAILS + 1) if r"\Seen" not in self.server.flags(ADDRESS, uid)]
        self.assertEqual(unseen, [])

    def rotate(self, number: int) -> None:
        path = self.folder / "success.log"
        if path.exists():
            path.rename(self.folder / f"success.log.{number}")

    def logged(self, name: str) -> list[int]:
        """The UIDs in a log and its rotated files; every line of them has to be whole."""
        files = self.folder.glob(f"{name}.log*")
        lines = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
        self.assertTrue(all(line.endswith(b"}\n") for line in lines))
        return [json.loads(line)["uid"] for line in lines]
