"""The answers already given: a request that comes again, with the same `id`, gets the first one's answer.

While the first is still under way, the repetition waits for it. Final answers are kept for an hour, the newest 10,000;
one that says "try again" is not kept, so that trying again does something. Called by `intake`.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable

from mailer.errors import Code, Problem, RequestError
from mailer.protocol import Reply, Request
from mailer.steps import Steps

_KEPT_SECONDS = 3600.0
_KEPT_ANSWERS = 10_000
_MOST_WAITING = 192  # three quarters of the usual number of workers


class _Entry:
    __slots__ = ("digest", "done", "kept_until", "reply")

    def __init__(self, digest: int) -> None:
        self.digest = digest
        self.reply: Reply | None = None
        self.kept_until = math.inf  # while the answer is under way, and in the moment before it is known to all
        self.done: threading.Event | None = None


class Answers:
    """Answers by request `id`; `clock` gives monotonic seconds, `on_wait` is called before waiting for a first one.

    So many repetitions wait at once; who repeats costs nothing and counts for nothing, so more could take all threads.
    """

    def __init__(
        self, clock: Callable[[], float], on_wait: Callable[[], None], most_waiting: int = _MOST_WAITING
    ) -> None:
        self._clock = clock
        self._on_wait = on_wait
        self._most_waiting = most_waiting
        self._waiting = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # under way or kept, in the order they came

    def once(self, request: Request, answer: Callable[[], Steps[Reply]]) -> Steps[Reply]:
        """What `answer()` comes to, or what it came to for the same request before.

        Raises RequestError (`bad_request`) when the `id` came with other content before.
        """
        if request.id is None:
            return (yield from answer())
        entry = _Entry(_digest(request))
        with self._lock:
            first = self._entries.setdefault(request.id, entry)
            if first is not entry and first.reply and first.kept_until < self._clock():
                self._entries[request.id] = first = entry
                self._entries.move_to_end(request.id)
            if first is not entry and first.reply is None and first.done is None:
                first.done = threading.Event()
        if first is not entry:
            return self._repeated(first, entry.digest)
        try:
            entry.reply = yield from answer()
        finally:
            self._finish(request.id, entry)
        return entry.reply

    def _repeated(self, first: _Entry, digest: int) -> Reply:
        if first.digest != digest:
            text = "The same id was used before, for another address or message."
            raise RequestError(Problem(Code.BAD_REQUEST, text))
        if first.done:
            self._wait(first.done)
        if first.reply is None:
            raise RequestError(Problem(Code.INTERNAL_ERROR, "The same request ended in an error in the server."))
        return first.reply

    def _wait(self, done: threading.Event) -> None:
        """Wait for a first answer; raises RequestError (`busy`) when as many do already as may."""
        with self._lock:
            if self._waiting >= self._most_waiting and not done.is_set():
                problem = Problem(Code.BUSY, "The first request with this id is still under way; please ask later.")
                raise RequestError(problem, retry=True)
            self._waiting += 1
        try:
            self._on_wait()
            done.wait()
        finally:
            with self._lock:
                self._waiting -= 1

    def _finish(self, key: str, entry: _Entry) -> None:
        with self._lock:
            entry.kept_until = self._clock() + _KEPT_SECONDS
            if entry.reply is None or entry.reply.retry or _is_error(entry.reply):
                del self._entries[key]
            while len(self._entries) > _KEPT_ANSWERS and self._drop_oldest():
                pass
        if entry.done:
            entry.done.set()

    def _drop_oldest(self) -> bool:
        """Forget the oldest answer; those under way, at most one a worker, are kept whatever comes."""
        for key, entry in self._entries.items():
            if entry.reply is not None:
                del self._entries[key]
                return True
        return False


def _is_error(reply: Reply) -> bool:
    """Whether the server failed before it sent anything: it may be mended when the request comes again."""
    return any(problem.code is Code.INTERNAL_ERROR for problem in reply.problems)


def _digest(request: Request) -> int:
    """What tells one content from another: by a secret of this process, so that nobody can make two of them equal."""
    return hash((request.email, request.message))
