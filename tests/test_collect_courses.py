"""Collecting in courses that chance makes up: crashes, failures, stops, rotations and lost states wherever they fall.

Invariant: once nothing hinders it any more, every mail that is still there is in exactly one log exactly once, and none
is there twice. The seeds are fixed; MAILER_LONG=1 tries many more.
"""

import logging
import os
import random
import shutil
import unittest
from contextlib import suppress
from unittest import mock

from mailer import collect
from mailer.collect import Collector, refusals
from mailer.errors import MailboxError, StateError
from tests.test_collect import CollectCase, Crash, Effects

COURSES = 2_000 if os.environ.get("MAILER_LONG") else 60


class Chance(Effects):
    """Effects at which something goes wrong now and then."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.crashes = self.failures = 0.0

    def happen(self, name: str) -> None:
        super().happen(name)
        if self.chance.random() < self.crashes:
            raise Crash
        if self.chance.random() < self.failures:
            of_disk = name in ("append", "appended", "begin", "begun", "save", "saved")
            raise StateError("disk full", passing=True) if of_disk else MailboxError("connection lost")


class Courses(CollectCase):
    def setUp(self) -> None:
        super().setUp()
        log, silent = logging.getLogger("mailer.collect"), logging.NullHandler()
        log.addHandler(silent)
        self.addCleanup(log.removeHandler, silent)

    def test_any_course_ends_with_every_mail_in_one_log_once(self) -> None:
        for seed in range(COURSES):
            with self.subTest(seed=seed):
                self.course(random.Random(seed))

    def course(self, chance: random.Random) -> None:
        self.begin()
        self.effects = effects = Chance(chance)
        self.mark_seen = chance.random() < 0.7
        there: set[int] = set()
        collector: Collector | None = None
        for step in range(chance.randrange(5, 15)):
            there.update(self.deliver(chance.choice([0, 1, 2, 5])))
            if there and chance.random() < 0.1:
                gone = chance.choice(sorted(there))
                self.server.expunge(self.address, gone)
                there.remove(gone)
            if chance.random() < 0.2:
                self.rotate(step)
            if chance.random() < 0.05:  # the state is lost
                self.end()
                shutil.rmtree(self.folder / "state", ignore_errors=True)
                collector = None
            effects.crashes, effects.failures = chance.choice([0, 0, 0.05]), chance.choice([0, 0.02, 0.2])
            collector = self.go_on(collector, chance)
        effects.crashes = effects.failures = 0.0
        for _ in range(3):
            collector = self.go_on(collector, None)
        recorded = self.uids()
        self.assertEqual(len(set(recorded)), len(recorded), recorded)
        self.assertLessEqual(there, set(recorded))

    def go_on(self, collector: Collector | None, chance: random.Random | None) -> Collector | None:
        """One pass of the process, or of another one after its end; perhaps it is stopped soon."""
        patience = chance.choice([1, 2, 5, 100]) if chance else 100

        def stop_soon() -> None:
            nonlocal patience
            patience -= 1
            self.stop = patience < 1

        self.stop = False
        batch = chance.choice([1, 2, 3]) if chance else 100
        with mock.patch.object(collect, "_MAILS", batch), mock.patch.object(collect, "_ASKED", 2 * batch):
            try:
                collector = collector or self.start()
                self.mailbox.on_fetch = stop_soon
                with suppress(StateError, MailboxError), mock.patch.object(refusals, "_PAUSE", 0.0):
                    collector.run_pass()
            except Crash:
                return None
        return None if self.stop else collector


if __name__ == "__main__":
    unittest.main()
