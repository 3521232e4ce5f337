"""Frames under deadlines on one socket, and the client's exchange with servers of every kind."""

import contextlib
import socket
import ssl
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from unittest import mock

from mailer.errors import Code, Problem, RequestError, TransportError
from mailer.protocol import MAX_FRAME, Reply, Request, encode_reply, encode_request
from mailer.tls import client_context
from mailer.transport import Connection
from mailer.transport.exchange import exchange
from tests.support import certificates
from tests.support.scripted import refused_port
from tests.support.waiting import wait_until

REQUEST = Request("alice@example.com", "The printer is on fire")
OK = encode_reply(Reply(ticket=12345))


def _frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


class OneConnection(unittest.TestCase):
    def setUp(self) -> None:
        self.threads: list[threading.Thread] = []
        self.addCleanup(self.join)
        ours, self.peer = socket.socketpair()
        self.waits = 0
        self.connection = Connection(ours, 0.3, self.on_wait)
        self.addCleanup(self.connection.close)
        self.addCleanup(self.peer.close)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(10)

    def on_wait(self, _connection: Connection) -> None:
        self.waits += 1

    def meanwhile(self, *acts: Callable[[], object]) -> None:
        """Do all this in another thread, one after the other."""

        def run() -> None:
            for act in acts:
                act()

        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()

    def until_it_waits(self) -> None:
        wait_until(lambda: self.waits)

    def drip(self, data: bytes, pause: float) -> None:
        def act() -> None:
            for index in range(len(data)):
                try:
                    self.peer.sendall(data[index : index + 1])
                except OSError:
                    return
                time.sleep(pause)

        self.meanwhile(act)


class Receiving(OneConnection):
    def test_frames_that_came_together_come_one_by_one(self) -> None:
        payloads = [b"one", b"t", b"\0" * 10_000, b"four"]
        self.peer.sendall(b"".join(map(_frame, payloads)))
        self.peer.close()
        self.assertEqual([self.connection.receive() for _ in range(5)], [*payloads, None])

    def test_a_frame_that_comes_byte_by_byte(self) -> None:
        self.drip(_frame(b"slowly"), 0.002)
        self.assertEqual(self.connection.receive(), b"slowly")

    def test_the_largest_frame(self) -> None:
        payload = bytes(MAX_FRAME)
        self.meanwhile(lambda: self.peer.sendall(_frame(payload)))
        self.assertEqual(self.connection.receive(), payload)

    def test_a_frame_too_large_or_empty_is_refused_before_its_body(self) -> None:
        for header in (b"\0\0\0\0", b"\xff\xff\xff\xff", (MAX_FRAME + 1).to_bytes(4, "big")):
            with self.subTest(header):
                ours, peer = socket.socketpair()
                with ours, peer:
                    peer.sendall(header)
                    with self.assertRaises(RequestError) as refused:
                        Connection(ours, 5).receive()
                self.assertEqual(refused.exception.problems[0].code, Code.FRAME_TOO_LARGE)

    def test_an_end_within_a_frame_is_an_error(self) -> None:
        for part in (b"\0", _frame(b"four")[:-1]):
            with self.subTest(part):
                ours, peer = socket.socketpair()
                with ours, peer:
                    peer.sendall(part)
                    peer.close()
                    self.assertRaises(ConnectionError, Connection(ours, 5).receive)

    def test_silence_ends_at_the_time_out(self) -> None:
        began = time.monotonic()
        self.assertRaises(TimeoutError, self.connection.receive)
        self.assertLess(abs(time.monotonic() - began - 0.3), 0.29)

    def test_dripping_ends_at_the_same_time_out(self) -> None:
        self.assert_dripping_ends(0.02)

    def test_dripping_slowly_ends_at_the_same_time_out(self) -> None:
        self.assert_dripping_ends(0.1)

    def assert_dripping_ends(self, pause: float) -> None:
        self.drip(bytes([0, 0, 1, 0]) + bytes(60), pause)
        began = time.monotonic()
        self.assertRaises(TimeoutError, self.connection.receive)
        self.assertLess(abs(time.monotonic() - began - 0.3), 0.29)

    def test_every_frame_has_its_own_time(self) -> None:
        self.connection = Connection(self.connection._sock, 1.0)
        self.drip(_frame(b"ab") * 3, 0.08)  # each takes half a second, all of them one and a half
        self.assertEqual([self.connection.receive() for _ in range(3)], [b"ab"] * 3)

    def test_a_wait_is_told_before_it_begins_and_only_then(self) -> None:
        self.peer.sendall(_frame(b"here") * 2)
        self.connection.receive()
        self.connection.receive()
        self.assertEqual(self.waits, 0)
        self.meanwhile(self.until_it_waits, lambda: self.peer.sendall(_frame(b"late")))
        self.assertEqual(self.connection.receive(), b"late")
        self.assertEqual(self.waits, 1)

    def test_an_interruption_from_another_thread_ends_it_at_once(self) -> None:
        self.connection = Connection(self.connection._sock, 30, self.on_wait)
        self.meanwhile(self.until_it_waits, self.connection.interrupt)
        began = time.monotonic()
        self.assertIsNone(self.connection.receive())
        self.assertLess(time.monotonic() - began, 5)

    def test_however_fast_a_peer_drips_its_time_is_limited_and_others_hear_of_it(self) -> None:
        self.peer.sendall(b"\0\x10\0\0")
        done = threading.Event()
        self.addCleanup(done.set)

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not done.is_set():
                    self.peer.send(b" ")

        self.threads.append(threading.Thread(target=drip))
        self.threads[-1].start()
        for take in (self.connection.receive, lambda: self.connection.linger(0.3)):
            began = time.monotonic()
            with contextlib.suppress(TimeoutError, RequestError):
                take()
            self.assertLess(time.monotonic() - began, 1)
        self.assertGreater(self.waits, 0)
        done.set()

    def test_interrupting_what_has_ended_is_no_error(self) -> None:
        self.peer.close()
        self.connection.interrupt()
        self.connection.close()
        self.connection.interrupt()
        self.connection.close()


class Sending(OneConnection):
    def test_a_peer_that_reads_slowly_gets_all_of_it(self) -> None:
        frame = _frame(bytes(range(256)) * 3000)
        received = bytearray()

        def read() -> None:
            while len(received) < len(frame):
                received.extend(self.peer.recv(50_000))
                time.sleep(0.001)

        self.meanwhile(read)
        self.connection.send(frame)
        wait_until(lambda: len(received) == len(frame))
        self.assertEqual(received, frame)
        self.assertGreater(self.waits, 0)

    def test_a_peer_that_reads_nothing_is_given_up_in_time(self) -> None:
        began = time.monotonic()
        self.assertRaises(TimeoutError, self.connection.send, bytes(50_000_000))
        self.assertLess(abs(time.monotonic() - began - 0.3), 0.29)

    def test_after_a_long_send_reading_is_quick_to_say_that_it_waits(self) -> None:
        taken = bytearray()

        def take() -> None:
            while len(taken) < 3_000_000:
                taken.extend(self.peer.recv(1 << 20))

        self.meanwhile(take)
        self.connection.send(bytes(3_000_000))
        self.waits = 0
        self.meanwhile(self.until_it_waits, lambda: self.peer.sendall(_frame(b"x")))
        self.assertEqual(self.connection.receive(), b"x")


class Lingering(OneConnection):
    def test_the_peer_hears_the_end_and_may_finish(self) -> None:
        self.meanwhile(lambda: self.connection.linger(5))
        self.assertEqual(self.peer.recv(10), b"")
        self.peer.sendall(bytes(1_000_000))
        self.peer.close()
        began = time.monotonic()
        self.threads[0].join(10)
        self.assertLess(time.monotonic() - began, 2)

    def test_it_is_bounded_in_time_however_the_peer_drips(self) -> None:
        self.drip(bytes(100), 0.02)
        began = time.monotonic()
        self.connection.linger(0.3)
        self.assertLess(abs(time.monotonic() - began - 0.3), 0.29)

    def test_it_is_bounded_in_bytes(self) -> None:
        sent = 0

        def flood() -> None:
            nonlocal sent
            try:
                while sent < 100 << 20:
                    sent += self.peer.send(bytes(1 << 16))
            except OSError:
                return

        self.meanwhile(flood)
        began = time.monotonic()
        self.connection.linger(30)
        self.assertLess(time.monotonic() - began, 10)
        self.connection.close()
        self.threads[0].join(10)
        self.assertLess(sent, 8 << 20)


@contextlib.contextmanager
def _server(act: Callable[[socket.socket], object], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that does this with each connection; the port."""
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                sock, _ = listening.accept()
                with sock if context is None else context.wrap_socket(sock, server_side=True) as peer:
                    if act(peer) == "hang":
                        done.wait(30)
            except OSError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _read_frame(peer: socket.socket) -> bytes:
    data = b""
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
        if not (more := peer.recv(65_536)):
            break
        data += more
    return data


def _answer(data: bytes) -> Callable[[socket.socket], None]:
    def act(peer: socket.socket) -> None:
        _read_frame(peer)
        peer.sendall(data)

    return act


class Exchanging(unittest.TestCase):
    def failure(self, port: int, host: str = "127.0.0.1", timeout: float = 5.0,
    **more: ssl.SSLContext) -> TransportError:
        with self.assertRaises(TransportError) as failure:
            exchange(host, port, REQUEST, timeout=timeout, **more)
        self.assertTrue(str(failure.exception).isprintable())
        return failure.exception


class Exchange(Exchanging):
    def test_one_request_one_reply(self) -> None:
        seen: list[bytes] = []

        def act(peer: socket.socket) -> None:
            seen.append(_read_frame(peer))
            peer.sendall(OK)

        with _server(act) as port:
            self.assertEqual(exchange("127.0.0.1", port, REQUEST, timeout=5), Reply(ticket=12345))
            self.assertEqual(exchange("localhost", port, REQUEST, timeout=5), Reply(ticket=12345))
        self.assertEqual(seen, [encode_request(REQUEST)] * 2)

    def test_a_reply_in_single_bytes(self) -> None:
        def act(peer: socket.socket) -> None:
            _read_frame(peer)
            for index in range(len(OK)):
                peer.sendall(OK[index : index + 1])
                time.sleep(0.001)

        with _server(act) as port:
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)

    def test_an_answer_given_before_the_request_was_read_is_heard(self) -> None:
        busy = Reply(problems=(Problem(Code.BUSY, "Later."),), retry=True)

        def act(peer: socket.socket) -> None:
            peer.sendall(encode_reply(busy))
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(1 << 16):
                pass

        large = Request("a@b.de", "x" * 900_000)
        with _server(act) as port:
            self.assertEqual(exchange("127.0.0.1", port, large, timeout=5), busy)

    def test_where_nobody_answers_nothing_was_sent(self) -> None:
        names = ("a" * 64 + ".example", "a..b", "\udcff", "a\0b")
        for host, port in (("127.0.0.1", refused_port()), *((name, 50007) for name in names)):
            with self.subTest(host=host):
                self.assertFalse(self.failure(port, host).sent)

    def test_where_the_request_cannot_be_handed_over_nothing_was_sent(self) -> None:
        with _server(_answer(b"")) as port, mock.patch.object(socket.socket, "send", side_effect=ConnectionResetError):
            self.assertFalse(self.failure(port).sent)

    def test_where_the_answer_fails_the_request_may_have_been_taken(self) -> None:
        table: dict[str, Callable[[socket.socket], object]] = {
            "closed": _answer(b""),
            "closed within the header": _answer(OK[:3]),
            "closed within the answer": _answer(OK[:-1]),
            "not JSON": _answer(_frame(b"hello")),
            "no reply": _answer(_frame(b"{}")),
        }
        for name, act in table.items():
            with self.subTest(name), _server(act) as port:
                self.assertTrue(self.failure(port).sent)

    def test_what_does_not_answer_in_frames_is_no_server_of_ours_and_has_taken_nothing(self) -> None:
        for answer in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            with self.subTest(answer), _server(_answer(answer)) as port:
                failure = self.failure(port)
                self.assertEqual((str(failure), failure.sent), ("no Mailer server answers there", False))

    def test_silence_ends_at_the_time_out(self) -> None:
        def hang(peer: socket.socket) -> str:
            _read_frame(peer)
            return "hang"

        def drip(peer: socket.socket) -> None:
            for _ in range(100):
                peer.sendall(b"\0")
                time.sleep(0.05)

        for act in (hang, drip):
            with self.subTest(act.__name__), _server(act) as port:
                began = time.monotonic()
                if act is hang:
                    self.assertTrue(self.failure(port, timeout=0.4).sent)
                else:
                    self.failure(port, timeout=0.4)
                self.assertLess(time.monotonic() - began, 1.0)


class ExchangeOverTls(Exchanging):

    def setUp(self) -> None:
        self.trusting = client_context(certificates.certificates().ca)

    def test_one_request_one_reply(self) -> None:
        with _server(_answer(OK), certificates.server_context("good")) as port:
            for host in ("localhost", "127.0.0.1"):
                self.assertTrue(exchange(host, port, REQUEST, timeout=5, context=self.trusting).ok)

    def test_the_dot_behind_a_name_is_none_of_a_certificates(self) -> None:
        with _server(_answer(OK), certificates.server_context("good")) as port:
            found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]
            with mock.patch("socket.getaddrinfo", return_value=found):
                self.assertTrue(exchange("localhost.", port, REQUEST, timeout=5, context=self.trusting).ok)

    def test_to_a_server_that_is_not_to_be_trusted_nothing_is_sent(self) -> None:
        seen: list[bytes] = []
        for name in ("wrong_host", "expired", "self_signed"):
            context = certificates.server_context(name)
            with self.subTest(name), _server(lambda peer: seen.append(_read_frame(peer)), context) as port:
                failure = self.failure(port, "localhost", context=self.trusting)
                self.assertFalse(failure.sent)
                self.assertIn("certificate is not to be trusted", str(failure))
        self.assertFalse(any(seen))

    def test_a_server_without_tls_gets_nothing_readable(self) -> None:
        seen: list[bytes] = []
        with _server(lambda peer: seen.append(peer.recv(1 << 16))) as port:
            self.assertFalse(self.failure(port, "localhost", context=self.trusting).sent)
        self.assertFalse(any(b"printer" in data for data in seen))

    def test_a_handshake_that_never_comes_is_given_up(self) -> None:
        with mock.patch("mailer.transport.exchange._CONNECT_TIMEOUT", 0.3), _server(lambda _: "hang") as port:
            began = time.monotonic()
            self.assertFalse(self.failure(port, "localhost", context=self.trusting).sent)
            self.assertLess(time.monotonic() - began, 2)
