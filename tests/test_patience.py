"""Calls on sockets that take a moment at most, in clear and inside TLS."""

import contextlib
import socket
import ssl
import threading
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from mailer.patience import TOO_LONG, be_quick, receive_at_once, send_at_once
from mailer.tls import client_context
from tests.support import certificates
from tests.support.waiting import wait_until

SHORT = 1.0  # seconds; what is called a moment lasts a few milliseconds


@contextmanager
def _in_clear() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer


@contextmanager
def _inside_tls() -> Iterator[tuple[socket.socket, socket.socket]]:
    trusted = client_context(certificates.certificates().ca)
    with _in_clear() as (ours, peer):
        context = certificates.server_context()
        secured: list[ssl.SSLSocket] = []
        shaking = threading.Thread(target=lambda: secured.append(context.wrap_socket(peer, server_side=True)))
        shaking.start()
        with trusted.wrap_socket(ours, server_hostname="localhost") as client:
            shaking.join(10)
            with secured[0]:
                yield client, secured[0]


class PatienceTest(unittest.TestCase):
    def each(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A quick socket of each kind, and its peer."""
        for kind in (_in_clear, _inside_tls):
            with self.subTest(kind.__name__), kind() as (ours, peer):
                be_quick(ours)
                yield ours, peer

    def test_a_read_of_nothing_takes_a_moment(self) -> None:
        for ours, _ in self.each():
            for _ in range(3):
                began = time.monotonic()
                with self.assertRaises(TOO_LONG):
                    ours.recv(10)
                self.assertLess(time.monotonic() - began, SHORT)

    def test_a_read_gives_what_is_there_and_the_end(self) -> None:
        for ours, peer in self.each():
            peer.sendall(b"text")
            ours.settimeout(10)
            self.assertEqual(ours.recv(10), b"text")
            be_quick(ours)
            peer.close()
            with contextlib.suppress(ConnectionError):  # some versions of TLS tell an end without a farewell like this
                wait_until(lambda ours=ours: receive_at_once(ours, 10) == b"")  # type: ignore[misc]  # bound

    def test_a_system_that_wants_another_option_is_no_reason_to_wait_for_ever(self) -> None:
        with mock.patch("mailer.patience._OPTION", b"short"):  # as where time has 64 bits and `long` 32
            for ours, peer in self.each():
                began = time.monotonic()
                self.assertRaises(TOO_LONG, ours.recv, 10)
                self.assertIsNone(receive_at_once(ours, 10))
                self.assertLess(time.monotonic() - began, SHORT)
                peer.sendall(b"text")
                wait_until(lambda ours=ours: receive_at_once(ours, 10) == b"text")  # type: ignore[misc]  # bound

    def test_what_is_received_at_once_is_all_or_nothing_or_the_end(self) -> None:
        for ours, peer in self.each():
            began = time.monotonic()
            self.assertIsNone(receive_at_once(ours, 10))
            self.assertLess(time.monotonic() - began, SHORT)
            peer.sendall(b"text")
            came: list[bytes] = []
            wait_until(lambda ours=ours, came=came: came.append(receive_at_once(ours, 10)) or came[-1])  # type: ignore[misc]  # bound
            self.assertEqual(came[-1], b"text")
            with self.assertRaises(TOO_LONG):  # and reads are quick as before
                ours.recv(10)

    def test_a_send_takes_what_the_system_takes_and_no_time(self) -> None:
        for ours, _ in self.each():
            piece, began = b"x" * 100_000, time.monotonic()
            taken: list[int] = []
            while not taken or taken[-1]:
                taken.append(send_at_once(ours, piece))
                self.assertLess(len(taken), 1000)
            self.assertLess(time.monotonic() - began, 10 * SHORT)
            self.assertGreater(sum(taken), 0)

    def test_a_peer_that_is_gone_is_an_error(self) -> None:
        for ours, peer in self.each():
            peer.close()

            def fails(ours: socket.socket = ours) -> bool:
                try:
                    send_at_once(ours, b"x")
                except OSError:
                    return True
                return False

            wait_until(fails)


if __name__ == "__main__":
    unittest.main()
