"""The door: one connection after another, room for one more where the system has none, and nobody left at it."""

import errno
import socket
import threading
import time
import unittest
from typing import cast
from unittest import mock

from mailer.protocol import decode_reply
from mailer.transport import Connection, door
from mailer.transport.door import Door, listen
from mailer.transport.idlers import FAIR_WAIT, Idlers
from tests.support.waiting import wait_until

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class ListeningTest(unittest.TestCase):
    @unittest.skipUnless(socket.has_dualstack_ipv6(), "needs a system that listens on both at once")
    def test_every_address_means_both_kinds(self) -> None:
        with listen("::", 0) as listening:
            port = listening.getsockname()[1]
            for host in ("127.0.0.1", "::1"):
                with self.subTest(host), socket.create_connection((host, port), 10):
                    listening.accept()[0].close()

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "needs a system that listens on both at once")
    def test_another_address_means_itself(self) -> None:
        for host in ("::1", "127.0.0.1"):
            with self.subTest(host), listen(host, 0) as listening:
                self.assertEqual(listening.getsockname()[0], host)


class _Accepting:
    """A listening socket that has something else to say first."""

    def __init__(self, listening: socket.socket, first: list[object]) -> None:
        self._listening, self._first = listening, first

    def fileno(self) -> int:
        return self._listening.fileno()

    def close(self) -> None:
        self._listening.close()

    def accept(self) -> object:
        found = self._first.pop(0) if self._first else self._listening.accept()
        if isinstance(found, OSError):
            raise found
        return found


class DoorTest(unittest.TestCase):
    def setUp(self) -> None:
        self.listening = listen("127.0.0.1", 0)
        self.asked_for_room = threading.Event()
        self.door = Door(self.listening, None, self.make_room)
        self.addCleanup(self.door.send_home, 0.0)
        self.addCleanup(self.door.close)

    def make_room(self) -> bool:
        self.asked_for_room.set()
        return False

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.listening.getsockname(), 10)
        self.addCleanup(sock.close)
        return sock

    def in_background(self, results: list[object]) -> threading.Thread:
        thread = threading.Thread(target=lambda: results.append(self.door.next(None)))
        thread.start()
        self.addCleanup(thread.join, 10)
        return thread

    def test_it_gives_one_after_another_and_then_none(self) -> None:
        peers = [self.connect() for _ in range(3)]
        for peer in peers:
            arrival = self.door.next(None)
            assert arrival
            sock, host = arrival
            with sock:
                self.assertEqual((sock.getpeername(), host), (peer.getsockname(), "127.0.0.1"))
                self.assertIsNone(sock.gettimeout())
        self.assertIsNone(self.door.next(0.0))

    def test_whoever_waits_gets_the_next_one(self) -> None:
        results: list[object] = []
        thread = self.in_background(results)
        self.connect()
        thread.join(10)
        self.assertIsNotNone(results[0])
        results[0][0].close()  # type: ignore[index]

    def test_closing_it_brings_out_all_who_wait_and_those_who_come_later(self) -> None:
        results: list[object] = []
        threads = [self.in_background(results) for _ in range(3)]
        self.door.close()
        for thread in threads:
            thread.join(10)
        self.assertEqual(results, [None] * 3)
        began = time.monotonic()
        self.assertIsNone(self.door.next(None))
        self.door.send_home(began)
        self.assertIsNone(self.door.next(None))
        self.assertLess(time.monotonic() - began, 1)

    def test_those_who_came_too_late_hear_busy(self) -> None:
        peers = [self.connect() for _ in range(3)]
        self.door.close()
        thread = threading.Thread(target=self.door.send_home, args=(time.monotonic() + 10,))
        thread.start()
        for peer in peers:
            payload = Connection(peer, 5).receive()
            self.assertEqual(decode_reply(payload or b"").problems[0].code, "busy")
            peer.close()
        thread.join(10)
        self.assertRaises(OSError, self.connect)

    def test_who_comes_during_the_farewell_is_refused(self) -> None:
        self.connect()
        self.door.close()
        leaving = threading.Thread(target=self.door.send_home, args=(time.monotonic() + 5,))
        place = self.listening.getsockname()
        with mock.patch.object(door, "_TURN_AWAY_SECONDS", 3.0):
            leaving.start()
            wait_until(lambda: self.listening.fileno() < 0)
            self.assertRaises(ConnectionRefusedError, socket.create_connection, place, 5)
            self.assertTrue(leaving.is_alive(), "the farewell is not over")
            leaving.join(10)

    def test_one_that_has_gone_keeps_no_other_from_hearing_busy(self) -> None:
        peer = self.connect()
        self.door._listening = cast(socket.socket, _Accepting(self.listening, [ConnectionAbortedError()]))
        self.door.close()
        self.door.send_home(time.monotonic() + 0.5)
        self.assertEqual(decode_reply(Connection(peer, 5).receive() or b"").problems[0].code, "busy")

    def test_nobody_waits_while_others_are_turned_away(self) -> None:
        peers = [self.connect() for _ in range(70)]  # and none of them says anything, or ends
        began = time.monotonic()
        for _ in peers:
            arrival = self.door.next(None)
            assert arrival
            self.door.turn_away(arrival[0])
        self.assertLess(time.monotonic() - began, 0.4)
        for peer in peers:
            connection = Connection(peer, 5)
            self.assertEqual(decode_reply(connection.receive() or b"").problems[0].code, "busy")
            self.assertIsNone(connection.receive())

    def test_one_that_has_gone_already_is_passed_over(self) -> None:
        peer, gone = self.connect(), socket.socket()
        listening = self.door._listening
        # On macOS one that was reset before it is accepted has no address; others give an error.
        self.door._listening = cast(socket.socket, _Accepting(listening, [(gone, None), ConnectionAbortedError()]))
        arrival = self.door.next(10)
        self.door._listening = listening
        assert arrival
        self.assertEqual(arrival[0].getpeername(), peer.getsockname())
        arrival[0].close()
        self.assertEqual(gone.fileno(), -1)
        self.assertFalse(self.asked_for_room.is_set())

    def test_an_error_that_room_does_not_mend_ends_nobodys_connection(self) -> None:
        listening = self.door._listening
        self.door._listening = cast(socket.socket, _Accepting(listening, [OSError(errno.EPROTO, "Protocol error")]))
        with self.assertLogs("mailer.transport.door", "WARNING"):
            self.assertIsNone(self.door.next(0))
        self.door._listening = listening
        self.assertFalse(self.asked_for_room.is_set())

    @unittest.skipUnless(resource, "this system has no limit of open files that can be set")
    def test_whoever_has_others_to_look_after_is_not_kept_while_there_are_no_descriptors(self) -> None:
        peer = self.connect()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        results: list[object] = []
        with self.assertLogs("mailer.transport.door", "WARNING"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (peer.fileno(), hard))
            try:
                thread = threading.Thread(target=lambda: results.extend(self.door.next(each) for each in (0, 0.01)))
                thread.start()
                thread.join(10)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(results, [None, None])
        self.assertTrue(self.asked_for_room.is_set())

    @unittest.skipUnless(resource, "this system has no limit of open files that can be set")
    def test_without_descriptors_it_asks_for_room_says_so_once_and_goes_on(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        results: list[object] = []
        thread = self.in_background(results)
        with self.assertLogs("mailer.transport.door", "WARNING") as log:
            peer = socket.socket()
            self.addCleanup(peer.close)
            resource.setrlimit(resource.RLIMIT_NOFILE, (peer.fileno(), hard))
            try:
                peer.connect(self.listening.getsockname())
                self.assertTrue(self.asked_for_room.wait(10))
                self.asked_for_room.clear()
                self.assertTrue(self.asked_for_room.wait(10))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            thread.join(10)
        self.assertEqual(len(log.output), 1)
        self.assertIn("cannot accept a connection", log.output[0])
        results[0][0].close()  # type: ignore[index]

    def test_the_backlog_is_large(self) -> None:
        self.assertGreaterEqual(door._BACKLOG, 1024)


class IdlersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.idlers = Idlers()

    def connection(self, host: str = "") -> Connection:
        ours, peer = socket.socketpair()
        self.addCleanup(peer.close)
        connection = Connection(ours, 5, network=host)
        self.addCleanup(connection.close)
        self.idlers.come(connection)
        return connection

    def test_the_one_that_has_been_waited_for_longest_is_closed(self) -> None:
        first, second, third = (self.connection() for _ in range(3))
        for connection in (first, second, first, third):
            self.idlers.enter(connection)
        wait_until(self.idlers.close_longest)
        self.assertEqual([self.idlers.leave(each) for each in (first, second, third)], [False, True, True])
        self.assertIsNone(first.receive())

    def test_it_is_one_of_the_host_with_most_connections(self) -> None:
        crowd, other, busy = [self.connection("a") for _ in range(3)], self.connection("b"), self.connection("a")
        for connection in (other, *crowd):
            self.idlers.enter(connection)
        for _ in crowd:
            wait_until(self.idlers.close_longest)
        self.assertEqual([self.idlers.leave(each) for each in crowd], [False] * 3)
        self.assertFalse(self.idlers.close_longest(), "their threads are about to be free")
        for connection in (*crowd, busy):
            self.idlers.go(connection)
        wait_until(self.idlers.close_longest)
        self.assertFalse(self.idlers.leave(other))

    def test_a_host_that_is_as_busy_shields_nobody(self) -> None:
        _busy, idle = self.connection("a"), self.connection("b")
        self.idlers.enter(idle)
        began = time.monotonic()
        wait_until(self.idlers.close_longest)
        self.assertLess(time.monotonic() - began, 1)

    def test_the_young_ones_of_a_host_with_few_are_closed_as_any(self) -> None:
        office = [self.connection("office") for _ in range(2)]
        for connection in (*office, *[self.connection(str(number)) for number in range(9)]):
            self.idlers.enter(connection)
        for _ in range(2):
            wait_until(self.idlers.close_longest)
        self.assertEqual([self.idlers.leave(each) for each in office], [False, False], "the oldest ones")
        wait_until(self.idlers.close_longest)

    def test_one_of_another_host_is_idle_as_well_after_a_while(self) -> None:
        other, *_ = self.connection("b"), self.connection("a"), self.connection("a")
        self.idlers.enter(other)
        began = time.monotonic()
        wait_until(self.idlers.close_longest)
        self.assertGreater(time.monotonic() - began, 10 * FAIR_WAIT)

    def test_one_that_has_just_begun_to_wait_is_left_alone(self) -> None:
        self.idlers.enter(self.connection())
        began = time.monotonic()
        self.assertFalse(self.idlers.close_longest())
        wait_until(self.idlers.close_longest)
        self.assertGreaterEqual(time.monotonic() - began, 0.9 * FAIR_WAIT)
        self.assertFalse(self.idlers.close_longest())

    def test_one_that_has_left_is_none_of_them(self) -> None:
        connection = self.connection()
        self.idlers.enter(connection)
        self.assertTrue(self.idlers)
        self.assertTrue(self.idlers.leave(connection))
        self.assertFalse(self.idlers)
        self.assertTrue(self.idlers.leave(connection))

    def test_at_the_end_nobody_is_waited_for(self) -> None:
        before, after = self.connection(), self.connection()
        self.idlers.enter(before)
        self.idlers.end()
        self.idlers.enter(after)
        for connection in (before, after):
            self.assertIsNone(connection.receive())
            self.assertTrue(self.idlers.leave(connection))


if __name__ == "__main__":
    unittest.main()
