"""Token buckets on a clock that the test turns."""

import threading
import unittest

from mailer.intake.limits import _KEYS, RateLimit
from mailer.settings import Rate


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TheBucket(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def limit(self, count: int, seconds: int, burst: int) -> RateLimit:
        return RateLimit(Rate(count, seconds, burst), self.clock)

    def test_a_burst_then_the_steady_rate(self) -> None:
        limit = self.limit(60, 3600, 20)
        self.assertEqual([limit.wait("a") for _ in range(20)], [0.0] * 20)
        self.assertEqual(limit.wait("a"), 60.0)
        self.clock.now += 59
        self.assertEqual(limit.wait("a"), 1.0)
        self.clock.now += 1
        self.assertEqual([limit.wait("a"), limit.wait("a")], [0.0, 60.0])

    def test_one_who_is_refused_loses_nothing_by_asking(self) -> None:
        limit = self.limit(1, 60, 1)
        limit.wait("a")
        for left in range(60, 0, -1):
            self.assertEqual(limit.wait("a"), left)
            self.clock.now += 1
        self.assertEqual(limit.wait("a"), 0.0)

    def test_the_bucket_fills_up_to_the_burst_and_no_further(self) -> None:
        limit = self.limit(60, 3600, 3)
        for _ in range(3):
            limit.wait("a")
        self.clock.now += 60 * 1000
        self.assertEqual([limit.wait("a") for _ in range(4)], [0.0, 0.0, 0.0, 60.0])
        self.clock.now += 120
        self.assertEqual([limit.wait("a") for _ in range(3)], [0.0, 0.0, 60.0])

    def test_waiting_as_long_as_it_says_is_enough(self) -> None:
        for rate in ((7, 3600, 3), (600, 3600, 100), (999, 60, 13), (1, 3600, 1), (13, 60, 1)):
            limit = self.limit(*rate)
            for _ in range(500):
                wait = limit.wait("a")
                if wait:
                    self.clock.now += wait + 1e-6
                    self.assertEqual(limit.wait("a"), 0.0, rate)

    def test_over_a_long_time_the_count_is_exact(self) -> None:
        limit = self.limit(60, 3600, 20)
        passed = 0
        for _ in range(10 * 3600):
            passed += limit.wait("a") == 0.0
            self.clock.now += 1
        self.assertEqual(passed, 20 + 10 * 60 - 1)

    def test_keys_do_not_share(self) -> None:
        limit = self.limit(1, 60, 1)
        self.assertEqual([limit.wait(key) for key in "abcab"], [0.0, 0.0, 0.0, 60.0, 60.0])

    def test_off_limits_nothing(self) -> None:
        limit = RateLimit(None, self.clock)
        self.assertEqual({limit.wait("a") for _ in range(10_000)}, {0.0})

    def test_a_flood_of_keys_stays_within_bounds_and_the_latest_are_kept(self) -> None:
        limit = self.limit(1, 3600, 1)
        for number in range(_KEYS + 10_000):
            limit.wait(str(number))
        self.assertEqual(len(limit._full_at), _KEYS)
        self.assertGreater(limit.wait(str(_KEYS + 9_999)), 0)
        self.assertGreater(limit.wait("10000"), 0)
        self.assertEqual(limit.wait("9999"), 0)

    def test_a_key_in_use_outlives_a_flood(self) -> None:
        limit = self.limit(100, 3600, 100)
        for number in range(2 * _KEYS):
            limit.wait(str(number))
            if number % 10_000 == 0:
                limit.wait("in use")
        self.assertIn("in use", limit._full_at)

    def test_threads_together_get_no_more_than_the_burst(self) -> None:
        limit = self.limit(1, 3600, 50)
        passed: list[float] = []

        def ask() -> None:
            passed.extend(wait for wait in (limit.wait("a") for _ in range(50)) if not wait)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(passed), 50)
