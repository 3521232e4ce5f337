"""The crew: one thread for many visits, a thread for each that has to wait, and an end that leaves none behind."""

import contextlib
import queue
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from unittest import mock

from mailer.steps import REST, WAIT, Steps, finish
from mailer.transport.crew import Crew, Visit, stand_aside
from tests.support.waiting import wait_until

WORKERS = 5
AT_ONCE = 4


class CrewTest(unittest.TestCase):
    """A crew whose visits come from a queue, those of one list together; `events` says what happens in which thread."""

    def setUp(self) -> None:
        self.arrived: queue.SimpleQueue[list[Visit]] = queue.SimpleQueue()
        self.together: list[Visit] = []
        self.events: list[tuple[str, int]] = []
        self.go = threading.Event()

    def accept(self, seconds: float | None) -> Visit | None:
        if seconds != 0 and not self.together:
            with contextlib.suppress(queue.Empty):
                self.together = self.arrived.get(timeout=seconds)
        return self.together.pop(0) if self.together else None

    def arrive(self, *visits: Visit) -> None:
        self.arrived.put(list(visits))

    @contextlib.contextmanager
    def working(self, *visits: Visit, workers: int = WORKERS) -> Iterator[Crew]:
        """A crew at work, which ends at the end, and every thread with it."""
        before = set(threading.enumerate())
        crew = Crew(workers, AT_ONCE, self.accept)
        crew.start()
        wait_until(lambda: len(crew._parked) == workers - 1)
        if visits:
            self.arrive(*visits)
        try:
            yield crew
        finally:
            self.go.set()
            crew.end()
            self.arrive()
            crew.join(time.monotonic() + 10)
            self.assertLessEqual(set(threading.enumerate()), before)

    def say(self, what: str) -> None:
        self.events.append((what, threading.get_ident()))

    def quick(self, name: str, steps: int = 2) -> Visit:
        for number in range(steps):
            self.say(f"{name}{number}")
            yield WAIT
        self.say(f"{name} done")

    def slow(self, name: str) -> Visit:
        self.say(f"{name} begins")
        yield WAIT
        stand_aside()
        self.say(f"{name} waits")
        self.go.wait(10)
        self.say(f"{name} done")

    def told(self) -> list[str]:
        return [what for what, _ in self.events]

    def until(self, *whats: str) -> None:
        wait_until(lambda: set(whats) <= set(self.told()))


class OneForMany(CrewTest):
    def test_one_thread_takes_a_step_of_each_visit_in_turn(self) -> None:
        with self.working(self.quick("a"), self.quick("b"), self.quick("c")):
            self.until("a done", "b done", "c done")
        self.assertEqual(self.told(), ["a0", "b0", "c0", "a1", "b1", "c1", "a done", "b done", "c done"])
        self.assertEqual(len({thread for _, thread in self.events}), 1)

    def test_it_has_a_few_at_once(self) -> None:
        with self.working(*(self.quick(f"{number}-") for number in range(10))):
            self.until(*(f"{number}- done" for number in range(10)))
        told = self.told()
        begun = [f"{number}-0" for number in range(10)]
        self.assertEqual(told[:AT_ONCE], begun[:AT_ONCE])
        self.assertLess(told.index("0- done"), told.index(begun[AT_ONCE]))

    def test_no_more_than_there_are_threads_to_wait_in(self) -> None:
        for workers in (1, 2, 3):
            with self.subTest(workers):
                self.setUp()
                with self.working(*(self.quick(f"{number}-") for number in range(6)), workers=workers):
                    self.until("5- done")
                told = self.told()
                self.assertEqual(told[: workers + 1], [*(f"{number}-0" for number in range(workers)), "0-1"])

    def test_standing_aside_outside_a_crew_does_nothing(self) -> None:
        stand_aside()


class Resting(CrewTest):
    def resting(self, name: str) -> Visit:
        self.say(f"{name} rests")
        yield REST
        self.say(f"{name} goes on")

    def test_one_that_rests_goes_on_behind_the_next_one(self) -> None:
        with self.working(self.resting("a"), self.quick("b", 4), workers=3):
            self.until("b done", "a goes on")
            self.assertLess(self.told().index("b done"), self.told().index("a goes on"))

    def test_those_that_rest_are_no_reason_for_taking_fewer_on(self) -> None:
        resting = [self.resting(f"r{number}") for number in range(AT_ONCE)]
        with self.working(workers=3 * AT_ONCE):
            self.arrive(*resting, *(self.quick(f"{number}-") for number in range(AT_ONCE)))
            self.until(*(f"{number}- done" for number in range(AT_ONCE)))
        told = self.told()
        self.assertLess(max(told.index(f"{number}-0") for number in range(AT_ONCE)), told.index("0-1"))

    def test_or_after_a_glance_when_no_other_comes(self) -> None:
        with self.working(self.resting("a")):
            self.until("a goes on")

    def test_those_that_rest_have_a_thread_each_to_go_on_in(self) -> None:
        def visit(name: str) -> Visit:
            yield REST
            yield from self.slow(name)

        names = [f"s{number}" for number in range(WORKERS)]
        with self.working(*map(visit, names)) as crew:
            self.until(*(f"{name} waits" for name in names))
            self.assertEqual(crew.taken, WORKERS)
            self.go.set()
            self.until(*(f"{name} done" for name in names))

    def test_nobody_is_taken_on_beside_more_than_there_are_threads_for(self) -> None:
        done = threading.Event()

        def waits() -> Visit:
            yield REST
            stand_aside()
            self.assertTrue(done.wait(10))
            self.say("has waited")

        def ends_it() -> Visit:
            yield REST
            done.set()

        def comes_later() -> Visit:
            stand_aside()
            self.assertTrue(done.wait(10))
            self.say("has waited")
            yield WAIT

        with self.working(waits(), ends_it(), workers=2):
            self.arrive(comes_later())
            wait_until(lambda: self.told().count("has waited") == 2)

    def test_at_the_end_they_go_on(self) -> None:
        with self.working(self.resting("a"), self.resting("b")):
            self.until("a rests", "b rests")
        self.until("a goes on", "b goes on")


class WaitingSideBySide(CrewTest):
    def test_one_that_waits_keeps_its_thread_and_the_others_go_on_in_another(self) -> None:
        with self.working(self.quick("a", 3), self.slow("s"), self.quick("b", 3)):
            self.until("s waits", "a done", "b done")
            self.assertNotIn("s done", self.told())
            threads = dict(self.events)
            self.assertEqual(threads["s begins"], threads["s waits"])
            self.assertNotEqual(threads["s waits"], threads["a done"])
            self.assertEqual(threads["a done"], threads["b done"])
            self.go.set()
            self.until("s done")

    def test_an_error_that_nobody_foresaw_ends_its_thread_alone(self) -> None:
        def breaks() -> Visit:
            yield WAIT
            raise ZeroDivisionError

        told: list[object] = []
        with mock.patch("threading.excepthook", told.append), self.working(self.quick("a"), breaks(), self.quick("b")):
            self.until("a done", "b done")
            self.arrive(self.quick("c"))
            self.until("c done")
        self.assertEqual(len(told), 1)

    def test_all_of_them_may_wait(self) -> None:
        names = [f"s{number}" for number in range(WORKERS)]
        with self.working(*map(self.slow, names)):
            self.until(*(f"{name} waits" for name in names))
            self.assertEqual(len({thread for what, thread in self.events if "waits" in what}), WORKERS)
            self.go.set()
            self.until(*(f"{name} done" for name in names))

    def test_one_may_wait_for_another_that_came_with_it(self) -> None:
        done = threading.Event()

        def first() -> Visit:
            self.say("first begins")
            yield WAIT
            yield WAIT
            done.set()
            self.say("first done")

        def second() -> Visit:
            yield WAIT
            stand_aside()
            self.assertTrue(done.wait(10))
            self.say("second done")

        with self.working(first(), second(), second(), second()):
            wait_until(lambda: self.told().count("second done") == 3)

    def test_visits_in_great_numbers_that_wait_now_and_then(self) -> None:
        count = 400
        counted: list[int] = []

        def visit(number: int) -> Visit:
            for step in range(number % 4):
                yield WAIT
                if (number + step) % 5 == 0:
                    stand_aside()
                    time.sleep(0.0005)
            counted.append(number)

        with self.working(*map(visit, range(count))) as crew:

            def deputise() -> None:
                while crew.wait_for_vacancy():
                    if arrived := self.accept(None):
                        while not crew.offer(arrived, 0.01):
                            pass
                    crew.fill_vacancy()

            deputy = threading.Thread(target=deputise)
            deputy.start()
            wait_until(lambda: len(counted) == count, 20)
            crew.end()
            self.arrive()
            deputy.join(10)
        self.assertEqual(sorted(counted), list(range(count)))


class AllTaken(CrewTest):
    def test_a_vacancy_is_told_and_filled_by_the_first_that_is_free(self) -> None:
        with self.working(self.slow("a"), self.slow("b"), workers=2) as crew:
            self.assertTrue(crew.wait_for_vacancy())
            before = time.monotonic()
            self.assertLessEqual(crew.full_since, before)
            self.assertFalse(crew.offer(self.quick("c"), 0.05))
            offered = self.in_background(lambda: crew.offer(self.quick("c"), 10))
            wait_until(lambda: crew._offered)
            self.go.set()
            offered.join(10)
            self.until("c done")
            self.assertGreater(crew.full_since, before)
            crew.fill_vacancy()
            self.arrive(self.quick("d"))
            self.until("d done")

    def test_at_the_end_nobody_takes_what_is_offered(self) -> None:
        with self.working(self.slow("a"), workers=1) as crew:
            self.assertTrue(crew.wait_for_vacancy())
            outcomes: list[bool] = []
            offered = self.in_background(lambda: outcomes.append(crew.offer(self.quick("b"), 10)))
            wait_until(lambda: crew._offered)
            crew.end()
            offered.join(5)
            self.assertEqual(outcomes, [False])
            self.assertFalse(crew.wait_for_vacancy())

    def in_background(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join, 10)
        return thread


class TheEnd(CrewTest):
    def test_visits_that_have_begun_are_finished_also_behind_one_that_waits(self) -> None:
        with self.working() as crew:
            ended = threading.Event()

            def ends_the_crew() -> Visit:
                yield WAIT
                crew.end()
                ended.set()

            self.arrive(ends_the_crew(), self.slow("s"), self.slow("t"), self.quick("q", 5))
            self.assertTrue(ended.wait(10))
            self.until("s waits", "t waits", "q done")
            self.go.set()
        self.assertEqual({"s done", "t done", "q done"} - set(self.told()), set())

    def test_a_crew_that_has_nothing_to_do_ends_at_once(self) -> None:
        began = time.monotonic()
        with self.working():
            pass
        self.assertLess(time.monotonic() - began, 2)


class StepsTest(unittest.TestCase):
    def test_finishing_takes_what_is_left_and_gives_the_result(self) -> None:
        taken: list[int] = []

        def steps() -> Steps[str]:
            for number in range(3):
                taken.append(number)
                yield WAIT
            return "result"

        begun = steps()
        next(begun)
        self.assertEqual(taken, [0])
        self.assertEqual(finish(begun), "result")
        self.assertEqual(taken, [0, 1, 2])

    def test_what_a_step_raises_comes_through(self) -> None:
        def steps() -> Steps[None]:
            yield WAIT
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, finish, steps())


if __name__ == "__main__":
    unittest.main()
