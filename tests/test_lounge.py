"""Connections that have been answered: closed with their peers, and given to a worker when there is more to do."""

import socket
import threading
import unittest

from mailer import lounge
from mailer.lounge import Lounge
from mailer.transport import Connection
from tests.support.waiting import wait_until


class LoungeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.free = threading.Event()  # whether a worker is
        self.free.set()
        self.resumed: list[str] = []
        self.lounge = Lounge(self.resume)
        self.addCleanup(self.lounge.close)

    def resume(self, _connection: Connection, host: str) -> bool:
        if self.free.is_set():
            self.resumed.append(host)
        return self.free.is_set()

    def rest(self, host: str = "a") -> tuple[Connection, socket.socket]:
        """A connection that rests, and its peer."""
        ours, peer = socket.socketpair()
        connection = Connection(ours, 1)
        self.addCleanup(connection.close)
        self.addCleanup(peer.close)
        self.assertTrue(self.lounge.rest(connection, host))
        return connection, peer

    def closed(self, connection: Connection) -> bool:
        return connection._sock.fileno() < 0

    def test_the_next_one_sees_off_one_whose_peer_has_ended(self) -> None:
        first, peer = self.rest()
        peer.close()
        second, _ = self.rest()
        self.assertTrue(self.closed(first))
        self.assertFalse(self.closed(second))

    def test_the_next_one_leaves_one_alone_that_is_silent_or_asks(self) -> None:
        silent, _ = self.rest()
        asking, peer = self.rest()
        peer.send(b"more")
        for _ in range(3):
            self.rest()
        self.assertFalse(self.closed(silent))
        self.assertFalse(self.closed(asking))
        self.assertEqual(self.resumed, [])

    def test_one_that_ended_is_closed_also_when_no_other_comes(self) -> None:
        self.lounge.start()
        connection, peer = self.rest()
        peer.close()
        wait_until(lambda: self.closed(connection))
        self.assertLessEqual(len(self.resumed), 1)

    def test_one_that_asks_or_is_silent_goes_to_a_worker(self) -> None:
        self.lounge.start()
        for host in ("asks", "silent"):
            with self.subTest(host):
                connection, peer = self.rest(host)
                if host == "asks":
                    peer.send(b"\0\0\0\4more")
                wait_until(lambda host=host: host in self.resumed)  # type: ignore[misc]  # a default that is bound
                self.assertFalse(self.closed(connection))
                if host == "asks":
                    self.assertEqual(connection.receive(), b"more")

    def test_it_goes_on_resting_while_no_worker_is_free(self) -> None:
        self.free.clear()
        self.lounge.start()
        connection, peer = self.rest()
        ended, its_peer = self.rest("ended")
        its_peer.close()
        wait_until(lambda: self.closed(ended))
        self.assertEqual(self.resumed, [])
        peer.send(b"\0\0\0\4more")
        peer.close()  # what was asked before is still to be answered
        self.free.set()
        wait_until(lambda: self.resumed == ["a"])
        self.assertEqual(connection.receive(), b"more")

    def test_only_so_many_rest(self) -> None:
        visits = [self.rest() for _ in range(lounge._MOST_RESTING)]
        ours, peer = socket.socketpair()
        self.addCleanup(peer.close)
        one_more = Connection(ours, 1)
        self.addCleanup(one_more.close)
        self.assertFalse(self.lounge.rest(one_more, "a"))
        visits[0][1].close()
        self.lounge.start()
        wait_until(lambda: self.lounge.rest(one_more, "a"))

    def test_one_with_another_request_at_hand_does_not_rest(self) -> None:
        ours, peer = socket.socketpair()
        self.addCleanup(peer.close)
        connection = Connection(ours, 1)
        self.addCleanup(connection.close)
        peer.send(b"\0\0\0\1a\0\0\0\1b")
        self.assertEqual(connection.receive(), b"a")
        self.assertFalse(self.lounge.rest(connection, "a"))
        self.assertEqual(connection.receive(), b"b")

    def test_the_end_leaves_those_that_rest_to_the_caller(self) -> None:
        self.free.clear()
        threads = threading.active_count()
        self.lounge.start()
        visits = [self.rest(host)[0] for host in "abc"]
        wait_until(lambda: sorted(host for _, host in self.lounge._resting) == ["a", "b", "c"])
        left = self.lounge.close()
        wait_until(lambda: threading.active_count() == threads)
        left += self.lounge.close()  # one that was being looked at in that moment
        self.assertEqual({connection for connection, _ in left}, set(visits))


if __name__ == "__main__":
    unittest.main()
