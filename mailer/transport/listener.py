"""The blocking TCP server: how connections are let in, and what happens on each of them.

A `Crew` of threads serves the connections. When all of these threads are taken, the porter, one more thread, accepts
the next connection: it closes the one that has been waited for longest, and gives the newcomer to the thread that this
frees. When none is idle the newcomer waits, and hears `busy` once all threads have been taken for the time-out.
Called by `desk`.
"""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable

from mailer.errors import Code, Problem, RequestError
from mailer.hosts import network
from mailer.protocol import Reply, Request, encode_reply
from mailer.steps import REST, Steps
from mailer.transport import Connection
from mailer.transport.crew import Crew, stand_aside
from mailer.transport.decoder import Decoder
from mailer.transport.door import Arrival, Door, busy
from mailer.transport.idlers import FAIR_WAIT, Idlers

# Connections that one thread serves in turn: with more of them, the first would wait too long for the last.
_AT_ONCE = 16
# Seconds that a newcomer waits at least, however long all threads have been taken: where some of them wait for idlers,
# as one of these can be closed soon; and otherwise, as a thread may be about to be free.
_SOON, _MOMENT = 0.5, 0.05
# Seconds for the last answer to arrive on a connection that is closed to make room, whatever else its peer sends.
_FAREWELL = 0.05
# When more than _FEW threads are taken, a connection that goes on asking pauses after each request, for _SHARE seconds
# for each thread above that number: otherwise newcomers would get nothing of the interpreter.
_FEW, _SHARE = 16, 0.0003
_log = logging.getLogger(__name__)


class Listener:
    """Answers the requests on a listening socket with `handle(request, host)`, in steps, from `start` to `stop`.

    `at_once` is how many requests can be in `handle` without waiting for each other.
    """

    def __init__(
        self,
        listening: socket.socket,
        handle: Callable[[Request, str], Steps[Reply]],
        *,
        workers: int,
        timeout: float,
        at_once: int = _AT_ONCE,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._handle = handle
        self._workers = workers
        self._timeout = timeout
        self._context = context
        self._idlers = Idlers()
        self._door = Door(listening, context, self._idlers.close_longest)
        self._crew = Crew(workers, min(at_once, _AT_ONCE), self._next_visit)
        self._decoder = Decoder()
        self._stopping = False

    def start(self) -> None:
        """Start all threads; connections are served from now on."""
        started = self._crew.start()
        if started < self._workers:
            _log.warning("only %d threads can run, not %d: set a smaller SERVER_WORKERS", started, self._workers)
        threading.Thread(target=self._keep_the_door, name="porter", daemon=True).start()

    def stop(self, grace: float) -> None:
        """Accept no more, answer `busy` to newcomers, and wait up to `grace` seconds for the answers that are due."""
        end = time.monotonic() + grace
        self._stopping = True
        self._crew.end()
        self._idlers.end()
        self._door.close()
        self._door.send_home(end)
        if left := self._crew.join(end):
            _log.warning("connections given up: %d; what they asked for may still have been sent", left)

    # -- at the door -----------------------------------------------------------------------------------------------

    def _next_visit(self, seconds: float | None) -> Steps[None] | None:
        arrival = self._door.next(seconds)
        return self._visit(arrival) if arrival else None

    def _keep_the_door(self) -> None:
        going_on = True
        while going_on:
            try:
                going_on = self._crew.wait_for_vacancy()
                if going_on:
                    self._let_one_in()
            except MemoryError:  # the porter has to go on, or nobody would be let in; soon there may be memory again
                with contextlib.suppress(MemoryError):
                    _log.warning("too little memory to look after somebody who came")
                time.sleep(_MOMENT)

    def _let_one_in(self) -> None:
        arrival: Arrival | None = None
        placed = False
        try:
            arrival = self._door.next(None)
            placed = arrival is None or self._find_place(self._visit(arrival))
        finally:
            if arrival and not placed:
                self._door.turn_away(arrival[0])
            self._crew.fill_vacancy()

    def _find_place(self, visit: Steps[None]) -> bool:
        """Give a visit to the first thread that is free, closing an idle connection if need be; False when none is."""
        now = time.monotonic()
        end = max(self._crew.full_since + self._timeout, now + (_SOON if self._idlers else _MOMENT))
        closed_one = False
        placed = self._crew.offer(visit, 0)  # a thread may be free again: then no connection is closed
        while not placed and not self._stopping and (left := end - time.monotonic()) > 0:
            closed_one = closed_one or self._idlers.close_longest()  # its thread is free in no time
            placed = self._crew.offer(visit, left if closed_one else min(left, FAIR_WAIT))
        return placed

    # -- on a connection -------------------------------------------------------------------------------------------

    def _visit(self, arrival: Arrival) -> Steps[None]:
        """All that happens on one connection."""
        sock, host = arrival
        if self._stopping:
            self._door.turn_away(sock)
            return
        connection: Connection | None = None
        try:
            connection = Connection(sock, self._timeout, self._wait_for, self._context, network(host))
            self._idlers.come(connection)
            yield from self._converse(connection, host)
        except OSError as failure:
            _log.debug("%s: %s", host, failure)
        except Exception:  # noqa: BLE001 - the boundary of a connection: what goes wrong in one ends no other
            _log.exception("a request of %s ended in an error", host)
            if connection and connection.in_hand:
                _apologise(connection)
        finally:
            if connection:
                self._idlers.go(connection)
                connection.close()

    def _converse(self, connection: Connection, host: str) -> Steps[None]:
        """Answer one request after another, as long as they come."""
        if not connection.ready() and self._crew.crowded:
            self._wait_for(connection)  # at once: even a short wait in this step would hold up other visits
        if (yield from self._answer(connection, host)):
            yield REST  # nearly every client asks once and closes, and soon that can be seen without a wait
            if not connection.ready():
                self._wait_for(connection)
            while (yield from self._answer(connection, host)):
                if self._crew.wanted:  # a client that goes on asking keeps newcomers out like one that is idle
                    connection.linger(_FAREWELL)
                    break
                self._give_way()

    def _answer(self, connection: Connection, host: str) -> Steps[bool]:
        """Answer one request; False when the connection is to be closed."""
        try:
            payload = connection.receive()
            if not self._idlers.leave(connection) or payload is None:
                return False
            connection.in_hand = True
            request = self._decoder.decode(payload)
        except RequestError as wrong:
            _log.debug("%s: %s", host, wrong.problems[0].code.value)
            connection.send(encode_reply(Reply(problems=wrong.problems, retry=wrong.retry)))
            connection.linger()
            return False
        reply = busy() if self._stopping else (yield from self._handle(request, host))
        connection.in_hand = False  # its outcome is known: an error from here on gets no apology
        connection.send(encode_reply(reply))
        if reply.problems and reply.problems[0].code is Code.BAD_REQUEST:
            connection.linger()
            return False
        return self._idlers.leave(connection) and not self._stopping

    def _give_way(self) -> None:
        """Let others in, and leave them time: a client that has asked twice may go on asking."""
        stand_aside()
        crowd = self._crew.taken - _FEW
        if crowd > 0:
            time.sleep(crowd * _SHARE)

    def _wait_for(self, connection: Connection) -> None:
        """Note that this thread is going to wait for the peer of a connection, and stand aside."""
        self._idlers.enter(connection)
        stand_aside()


def _apologise(connection: Connection) -> None:
    problem = Problem(Code.INTERNAL_ERROR, "Something went wrong in the server; its administrator can see what it was.")
    try:
        connection.send(encode_reply(Reply(problems=(problem,))))
        connection.linger()
    except OSError as failure:
        _log.debug("no apology could be sent: %s", failure)
