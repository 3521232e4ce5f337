"""The blocking TCP server: a fixed set of threads that wait in `accept()`; none is started for a connection.

Few threads run and many may wait. `_HOT` batons entitle their holders to accept: such a thread accepts, serves and
accepts again without a word to any other, as fast as one loop can. Before it waits for long (a slow peer, a mail
server far away) it stands aside: the thread that parked last, whose memory is warmest, gets its baton. So on a fast
network two threads do all the work, and on a slow one as many as there are connections wait side by side.

When every worker is taken the porter, one more thread, holds the batons: it accepts the next connection, closes the
one that has waited longest without completing a frame, and gives the newcomer to the worker that this frees. Where
no connection is idle the newcomer waits, and hears `busy` once all workers have been taken for the time-out.
"""

import contextlib
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable

from mailer.errors import Code, Problem, RequestError
from mailer.lounge import Lounge
from mailer.protocol import Reply, Request, decode_request, encode_reply
from mailer.transport import Connection

# Threads that accept at the same time: more of them only fight for the interpreter lock.
_HOT = 2
# Connections that the kernel completes before they are accepted; the system's own limit (somaxconn) may be lower.
_BACKLOG = 1024
_TURN_AWAY_SECONDS = 0.5  # for telling a connection that there is no room: the porter has others to look after
_ACCEPT_PAUSE = 0.1  # seconds, after the system had no file descriptor or memory left for a connection
_QUIET_SECONDS = 60.0  # between two complaints of that
# A connection that has waited less is not idle, its frame is on the way: nobody is let in at its cost.
_FAIR_WAIT = 0.1  # seconds
# JSON made to be costly takes a tenth of a second for a MiB. Frames larger than this, which honest ones hardly are, are
# decoded one at a time: everybody else competes with one of them for the interpreter, and not with hundreds.
_LARGE = 1 << 16  # bytes
_KNOCK_PAUSE = 0.002  # seconds, for the thread that is woken to come to the door, or to close its connection
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound: where a socket that listens everywhere can be reached

_Arrival = tuple[socket.socket, str]  # a connection, and the host it comes from

_log = logging.getLogger(__name__)
_here = threading.local()  # in a worker's thread: what releases its baton


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError. Port 0 takes any free one."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def stand_aside() -> None:
    """To be called by a thread that is about to wait for long: if it is a worker, another one accepts in its place."""
    release: Callable[[], None] | None = getattr(_here, "release", None)
    if release:
        release()


class _Worker:
    """A thread's place: whether it holds a baton or is in `accept()`, a connection given to it, what it parks on."""

    __slots__ = ("accepting", "baton", "guest", "newcomer", "wake")

    def __init__(self) -> None:
        self.accepting = False
        self.baton = False
        self.newcomer: _Arrival | None = None
        self.guest: tuple[Connection, str] | None = None  # from the lounge
        self.wake = threading.Lock()
        self.wake.acquire()


class Listener:
    """Serves `handle(request, host) -> Reply` on a listening socket, from `start` to `stop`."""

    def __init__(
        self,
        listening: socket.socket,
        handle: Callable[[Request, str], Reply],
        *,
        workers: int,
        timeout: float,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._listening = listening
        self._handle = handle
        self._timeout = timeout
        self._context = context
        self._workers = [_Worker() for _ in range(workers)]
        self._porter = _Worker()
        # The lock guards all that follows. The porter and `stop` wait for changes; workers park on locks of their own.
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._parked: list[_Worker] = []
        self._batons = self._spare_batons = min(_HOT, workers)  # spare: with the porter, because no worker was parked
        self._porter_accepts = False  # and nobody else, or a worker would wait in vain for what the porter has got
        self._newcomer: _Arrival | None = None  # with the porter, waiting for a worker
        self._waiting: dict[Connection, float] = {}  # for a frame, and since when; the first has waited longest
        self._serving = 0
        self._lounge = Lounge(self._resume)
        self._decoding = threading.Lock()  # held for a large frame
        self._full_since = 0.0
        self._quiet_until = 0.0
        self._stopping = False

    def start(self) -> None:
        """Start all threads; connections are served from now on."""
        for worker in self._workers:
            threading.Thread(target=self._work, args=(worker,), name="worker", daemon=True).start()
        self._lounge.start()
        threading.Thread(target=self._keep_the_door, name="porter", daemon=True).start()

    def stop(self, grace: float) -> None:
        """Accept no more, tell newcomers `busy`, and wait up to `grace` seconds for the answers that are due."""
        end = time.monotonic() + grace
        with self._lock:
            self._stopping = True
            for worker in self._parked:
                worker.wake.release()
            self._parked.clear()
            for connection in self._waiting:
                connection.interrupt(socket.SHUT_RD)  # a frame that has arrived is still read, and answered
            self._change.notify_all()
        # Portable Python has no other way to bring a thread out of accept() than to give it a connection.
        while any(worker.accepting for worker in (*self._workers, self._porter)) and time.monotonic() < end:
            self._knock()
        self._listening.settimeout(0)
        while time.monotonic() < end and (arrival := self._accept(self._porter)):
            self._turn_away(arrival[0])
        self._listening.close()
        for connection, host in self._lounge.close():
            if time.monotonic() < end:
                self._attend(connection, host)
            connection.close()
        with self._lock:
            self._change.wait_for(lambda: not self._serving, max(end - time.monotonic(), 0))

    def _release(self, me: _Worker) -> None:
        if me.baton:
            me.baton = False
            self._pass_on_baton()

    def _pass_on_baton(self) -> None:
        with self._lock:
            self._spare_batons += 1
            self._hand_out_batons()
            if self._spare_batons == self._batons:
                self._change.notify_all()

    def _hand_out_batons(self) -> None:
        while self._parked and self._spare_batons:
            self._spare_batons -= 1
            successor = self._parked.pop()
            successor.baton = True
            successor.wake.release()

    def _work(self, me: _Worker) -> None:
        _here.release = functools.partial(self._release, me)
        while not self._stopping:
            if not me.baton:
                self._find_work(me)
            if me.guest:
                (connection, host), me.guest = me.guest, None
                self._attend(connection, host)
                continue
            arrival = me.newcomer or (self._accept(me) if me.baton else None)
            me.newcomer = None
            if arrival and self._stopping:
                self._turn_away(arrival[0])
            elif arrival:
                self._serve(*arrival)

    def _find_work(self, me: _Worker) -> None:
        """Take the porter's newcomer or a spare baton, or park until one of them is given."""
        with self._lock:
            if self._stopping:
                return
            if self._newcomer:
                me.newcomer, self._newcomer = self._newcomer, None
                self._change.notify_all()
                return
            if self._spare_batons and not self._porter_accepts:
                self._spare_batons -= 1
                me.baton = True
                return
            self._parked.append(me)
        me.wake.acquire()

    def _accept(self, me: _Worker) -> _Arrival | None:
        me.accepting = True
        try:
            if self._stopping and self._listening.gettimeout() is None:
                return None
            sock, address = self._listening.accept()
        except OSError as failure:
            if not self._stopping:
                self._make_room(failure)
            return None
        finally:
            me.accepting = False
        return sock, address[0]

    def _make_room(self, failure: OSError) -> None:
        """After the system had no file descriptor or memory left: close a connection that is idle, or wait a little."""
        with self._lock:
            closed_one = self._close_longest_waiting()
            complaint_is_due = time.monotonic() > self._quiet_until
            if complaint_is_due:
                self._quiet_until = time.monotonic() + _QUIET_SECONDS
        if complaint_is_due:
            _log.warning("cannot accept a connection: %s", failure)
        time.sleep(_KNOCK_PAUSE if closed_one else _ACCEPT_PAUSE)

    def _serve(self, sock: socket.socket, host: str) -> None:
        try:
            connection = Connection(sock, self._timeout, stand_aside, self._context)
        except OSError as failure:  # with TLS: it was reset before it began
            _log.debug("%s: %s", host, failure)
            return
        self._attend(connection, host, new=True)

    def _attend(self, connection: Connection, host: str, *, new: bool = False) -> None:
        """Answer what a connection asks, until it ends or, if it is new, rests after its first request."""
        with self._lock:
            self._serving += 1
            if self._serving >= len(self._workers):
                self._full_since = time.monotonic()
        resting = False
        try:
            while self._answer(connection, host):
                resting = new and bool(self._parked) and self._lounge.rest(connection, host)
                if resting:
                    break
                # Behind a second request there may be many: others are let in meanwhile.
                if not new:
                    stand_aside()
                new = False
        except OSError as failure:
            _log.debug("%s: %s", host, failure)
        except Exception:  # noqa: BLE001 - the boundary of a connection: after whatever goes wrong in one comes the next
            _log.exception("a request of %s ended in an error", host)
            _apologise(connection)
        finally:
            if not resting:
                connection.close()
            with self._lock:
                self._serving -= 1
                if self._stopping:
                    self._change.notify_all()

    def _resume(self, connection: Connection, host: str) -> bool:
        """Give a connection to a worker that is parked, if there is one."""
        with self._lock:
            if self._stopping or not self._parked:
                return False
            worker = self._parked.pop()
            worker.guest = connection, host
            worker.wake.release()
            return True

    def _answer(self, connection: Connection, host: str) -> bool:
        """Answer one request; False when the connection is to be closed."""
        with self._lock:
            self._waiting[connection] = time.monotonic()
            if self._newcomer:
                self._change.notify_all()
            if self._stopping:
                connection.interrupt(socket.SHUT_RD)
        try:
            payload = connection.receive()
            request = self._decode(payload) if payload is not None else None
        except RequestError as wrong:
            connection.send(encode_reply(Reply(problems=wrong.problems)))
            connection.linger()
            return False
        finally:
            with self._lock:
                closed = connection not in self._waiting
                self._waiting.pop(connection, None)
        if request is None or closed:
            return False
        reply = _busy() if self._stopping else self._handle(request, host)
        if rest := connection.begin_to_send(encode_reply(reply)):
            self._wait_for_taker(connection, rest)
        if reply.problems and reply.problems[0].code is Code.BAD_REQUEST:
            connection.linger()
            return False
        return not self._stopping

    def _wait_for_taker(self, connection: Connection, rest: memoryview) -> None:
        """Send on to a peer that does not take its replies: it is as idle as one that sends nothing."""
        with self._lock:
            self._waiting[connection] = time.monotonic()
            if self._newcomer:
                self._change.notify_all()
        try:
            connection.finish_sending(rest)
        finally:
            with self._lock:
                self._waiting.pop(connection, None)

    def _decode(self, payload: bytes) -> Request:
        if len(payload) <= _LARGE:
            return decode_request(payload)
        stand_aside()
        with self._decoding:
            return decode_request(payload)

    def _keep_the_door(self) -> None:
        while not self._stopping:
            with self._lock:
                self._change.wait_for(lambda: self._spare_batons == self._batons or self._stopping)
                self._porter_accepts = True
            arrival = None if self._stopping else self._accept(self._porter)
            if arrival:
                self._place(arrival)
            with self._lock:
                self._porter_accepts = False
                self._hand_out_batons()

    def _place(self, arrival: _Arrival) -> None:
        """Find a worker for a connection that came when all were taken, or turn it away."""
        with self._lock:
            if self._parked:
                worker = self._parked.pop()
                worker.newcomer = arrival
                worker.wake.release()
                return
            self._newcomer = arrival
            now = time.monotonic()
            full_since = self._full_since if self._serving >= len(self._workers) else now
            # However long all have been taken: one of those that are waiting may be idle now, or in a moment.
            moment = _TURN_AWAY_SECONDS if self._waiting else 0.0
            end = max(full_since + self._timeout, now + moment)
            closed_one = False
            while self._newcomer and not self._stopping and (left := end - time.monotonic()) > 0:
                if not closed_one and self._close_longest_waiting():
                    closed_one = True  # and its worker comes for this one in no time
                self._change.wait(left if closed_one else min(left, _FAIR_WAIT))
            unplaced, self._newcomer = self._newcomer, None
        if unplaced:
            self._turn_away(unplaced[0])

    def _close_longest_waiting(self) -> bool:
        longest = next(iter(self._waiting), None)
        if longest is None or time.monotonic() - self._waiting[longest] < _FAIR_WAIT:
            return False
        del self._waiting[longest]
        longest.interrupt()
        return True

    def _turn_away(self, sock: socket.socket) -> None:
        try:
            with contextlib.closing(Connection(sock, _TURN_AWAY_SECONDS, context=self._context)) as connection:
                connection.send(encode_reply(_busy()))
                connection.linger(_TURN_AWAY_SECONDS)
        except OSError as failure:
            _log.debug("a connection that was turned away: %s", failure)

    def _knock(self) -> None:
        host, port = self._listening.getsockname()[:2]
        try:
            socket.create_connection((_LOOPBACK.get(host, host), port), _TURN_AWAY_SECONDS).close()
        except OSError:
            _log.debug("nobody is at the door")
        time.sleep(_KNOCK_PAUSE)


def _busy() -> Reply:
    return Reply(problems=(Problem(Code.BUSY, "The server is busy; please try again in a moment."),), retry=True)


def _apologise(connection: Connection) -> None:
    problem = Problem(Code.INTERNAL_ERROR, "Something went wrong in the server; its administrator can see what it was.")
    try:
        connection.send(encode_reply(Reply(problems=(problem,))))
        connection.linger()
    except OSError as failure:
        _log.debug("no apology could be sent: %s", failure)
