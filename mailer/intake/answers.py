"""The answers already given: a request that comes again, with the same `id`, gets the first one's answer.

While the first is still under way, the repetition waits for it. Final answers are kept for an hour, the newest 10,000;
one with `retry`, or of an error in the server, is not kept, so that trying again makes sense. Called by `intake`.
"""

import math
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Self

from mailer.errors import Code, Problem, RequestError
from mailer.protocol import Reply, Request
from mailer.steps import Steps

_KEPT_SECONDS = 3600.0
_KEPT_ANSWERS = 10_000
_MOST_WAITING = 192  # three quarters of the usual number of workers
# To save memory, an answer is kept as a few bytes (digest, end, ticket): as objects, scattered among short-lived ones,
# 10,000 answers took 4 MB more. A single table in which 10,000 keys come and go is rebuilt again and again, and each
# thread that does so keeps half a MB for it; with many small tables that does not matter.
_PACKED = struct.Struct("=qdq")
_TABLES = 256


class _Entry:
    __slots__ = ("digest", "done", "kept_until", "reply")

    def __init__(self, digest: int, kept_until: float = math.inf, reply: Reply | None = None) -> None:
        self.digest = digest
        self.kept_until = kept_until  # infinite until a final answer is kept
        self.reply = reply
        self.done: threading.Event | None = None  # made when a repetition first waits for the answer

    def pack(self) -> Self | bytes:
        """An OK, as nearly every answer is, in a few bytes; any other answer as it is."""
        if self.reply is None or self.reply.ticket is None:
            return self
        return _PACKED.pack(self.digest, self.kept_until, self.reply.ticket)


def _unpack(kept: _Entry | bytes) -> _Entry:
    if isinstance(kept, _Entry):
        return kept
    digest, kept_until, ticket = _PACKED.unpack(kept)
    return _Entry(digest, kept_until, Reply(ticket=ticket))


class Answers:
    """Answers by request `id`; `clock` gives monotonic seconds, `on_wait` is called before a repetition waits.

    At most `most_waiting` repetitions wait at once: no rate limit counts them, so more of them could take all threads.
    """

    def __init__(
        self, clock: Callable[[], float], on_wait: Callable[[], None], most_waiting: int = _MOST_WAITING
    ) -> None:
        self._clock = clock
        self._on_wait = on_wait
        self._most_waiting = most_waiting
        self._waiting = 0
        self._lock = threading.Lock()
        self._tables: list[dict[str, _Entry | bytes]] = [{} for _ in range(_TABLES)]  # answers under way, and kept ones
        self._kept: deque[str] = deque()  # the ids of the kept answers, the oldest first

    def once(self, request: Request, answer: Callable[[], Steps[Reply]]) -> Steps[tuple[Reply, bool]]:
        """The result of `answer()`, or the answer that the same request had before; and whether it is the latter.

        Raises RequestError for a repetition, such as `bad_request` when the `id` came with other content before.
        """
        if request.id is None:
            return (yield from answer()), False
        entry = _Entry(_digest(request))
        first = self._first(request.id, entry)
        if first is not entry:
            return self._repeated(first, entry.digest), True
        try:
            entry.reply = yield from answer()
        finally:
            self._finish(request.id, entry)
        return entry.reply, False

    def _first(self, key: str, entry: _Entry) -> _Entry:
        """The earlier entry of an id, with an event to wait for if it has no reply yet; else `entry`, now stored."""
        table = self._table(key)
        with self._lock:
            first = _unpack(table.setdefault(key, entry))
            if first is not entry and first.kept_until < self._clock():
                self._kept.remove(key)  # it is among the oldest, at the front, so soon found
                table[key] = first = entry
            elif first is not entry and first.reply is None and first.done is None:
                first.done = threading.Event()
        return first

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
        """Wait for a first answer; raises RequestError (`busy`) when `most_waiting` repetitions wait already."""
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
            if entry.reply is None or entry.reply.retry or _is_error(entry.reply):
                del self._table(key)[key]
            else:
                entry.kept_until = self._clock() + _KEPT_SECONDS
                self._table(key)[key] = entry.pack()
                self._kept.append(key)
                if len(self._kept) > _KEPT_ANSWERS:
                    oldest = self._kept.popleft()
                    del self._table(oldest)[oldest]
        if entry.done:
            entry.done.set()

    def _table(self, key: str) -> dict[str, _Entry | bytes]:
        return self._tables[hash(key) % _TABLES]


def _is_error(reply: Reply) -> bool:
    """Whether the server itself failed, before it sent anything: it may work again when the request is repeated."""
    return any(problem.code is Code.INTERNAL_ERROR for problem in reply.problems)


def _digest(request: Request) -> int:
    """A hash of the content, keyed with a secret of this process, so that nobody can make two contents collide."""
    return hash((request.email, request.message))
