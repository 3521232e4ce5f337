"""The server under load, idlers, drippers, floods, bugs and its own end."""

import contextlib
import os
import socket
import ssl
import struct
import sys
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from mailer import patience
from mailer.errors import Code, Problem, TransportError
from mailer.protocol import MAX_FRAME, Reply, Request, decode_reply, decode_request, encode_reply, encode_request
from mailer.steps import WAIT, Steps
from mailer.tls import client_context, server_context
from mailer.transport import Connection, decoder, idlers
from mailer.transport.crew import stand_aside
from mailer.transport.door import listen
from mailer.transport.exchange import exchange
from mailer.transport.listener import Listener
from tests.support import certificates
from tests.support.waiting import wait_until

LONG = bool(os.environ.get("MAILER_LONG"))
ALICE = "alice@example.com"
REQUEST = Request(ALICE, "x")
QUICKLY = 3.0  # seconds within which an ordinary request is answered whatever others do


def _ok(request: Request, host: str) -> Reply:
    return Reply(ticket=len(request.message))


def _in_steps(handle: Callable[[Request, str], Reply]) -> Callable[[Request, str], Steps[Reply]]:
    """A handler as the server wants it, which asks something once and has to wait for it."""

    def steps(request: Request, host: str) -> Steps[Reply]:
        yield WAIT
        return handle(request, host)

    return steps


@contextlib.contextmanager
def _serving(
    handle: Callable[[Request, str], Reply] = _ok,
    *,
    workers: int = 8,
    timeout: float = 2.0,
    context: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """A server on a free port, stopped at the end; the port."""
    listening = listen("127.0.0.1", 0)
    server = Listener(listening, _in_steps(handle), workers=workers, timeout=timeout, context=context)
    server.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.stop(5)


def _connect(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10, (host, 0))


def _frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def _replies(sock: socket.socket) -> list[Reply]:
    """All replies until the server ends the connection."""
    connection = Connection(sock, 10)
    replies = []
    with contextlib.suppress(ConnectionError):
        while payload := connection.receive():
            replies.append(decode_reply(payload))
    return replies


def _codes(replies: list[Reply]) -> list[str]:
    return [reply.problems[0].code.value if reply.problems else "OK" for reply in replies]


def _code(reply: Reply) -> str:
    return _codes([reply])[0]


class _Gate:
    """A handler in which requests wait until the test lets them go; those for "quick@" do not wait."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.inside = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request, host: str) -> Reply:
        if not request.email.startswith("quick@"):
            stand_aside()
            with self._lock:
                self.inside += 1
            self.go.wait(20)
        return Reply(ticket=7)


class _Asker(threading.Thread):
    """Somebody who asks at the same time as others; `outcome` is the code, or what went wrong."""

    def __init__(self, port: int, request: Request = REQUEST, timeout: float = 20.0) -> None:
        super().__init__(daemon=True)
        self._port, self._request, self._timeout = port, request, timeout
        self.outcome = ""
        self.start()

    def run(self) -> None:
        try:
            self.outcome = _code(exchange("127.0.0.1", self._port, self._request, timeout=self._timeout))
        except TransportError as failure:
            self.outcome = str(failure)


class OneConnection(unittest.TestCase):
    def test_requests_one_after_another(self) -> None:
        with _serving() as port:
            connection = Connection(_connect(port), 5)
            for length in range(1, 200):
                connection.send(encode_request(Request("a@b.de", "x" * length)))
                self.assertEqual(decode_reply(connection.receive() or b""), Reply(ticket=length))
            connection.close()

    def test_requests_sent_at_once_are_answered_in_their_order(self) -> None:
        with _serving() as port, _connect(port) as sock:
            sock.sendall(b"".join(encode_request(Request("a@b.de", "x" * length)) for length in range(1, 500)))
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual([reply.ticket for reply in _replies(sock)], list(range(1, 500)))

    def test_a_request_in_single_bytes(self) -> None:
        with _serving(timeout=10) as port, _connect(port) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in encode_request(REQUEST) * 2:
                sock.sendall(bytes([byte]))
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(_codes(_replies(sock)), ["OK", "OK"])

    def test_the_largest_request(self) -> None:
        message = "x" * (MAX_FRAME - len(encode_request(Request("a@b.de", ""))) + 4)
        with _serving() as port:
            self.assertEqual(exchange("127.0.0.1", port, Request("a@b.de", message), timeout=5).ticket, len(message))

    def test_the_handler_hears_where_a_request_comes_from(self) -> None:
        hosts: list[str] = []

        def handle(request: Request, host: str) -> Reply:
            hosts.append(host)
            return Reply(ticket=1)

        with _serving(handle) as port:
            exchange("127.0.0.1", port, REQUEST, timeout=5)
        self.assertEqual(hosts, ["127.0.0.1"])

    def test_what_makes_no_sense_is_answered_and_then_closed(self) -> None:
        after = encode_request(REQUEST)
        table = {
            "not JSON": (_frame(b"hello") + after, "bad_request"),
            "a key missing": (_frame(b"{}") + after, "bad_request"),
            "nested 100,000 deep": (_frame(b'{"a":' * 100_000) + after, "bad_request"),
            "a 5,000-digit integer": (_frame(b'{"email":"a","message":"b","c":' + b"9" * 5000 + b"}"), "bad_request"),
            "1 MiB of no JSON": (_frame(b"[" * MAX_FRAME) + after, "bad_request"),
            "an empty frame": (_frame(b"") + after, "frame_too_large"),
            "a frame too large": (b"\x00\x10\x00\x01", "frame_too_large"),
            "another protocol": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "frame_too_large"),
            "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), "frame_too_large"),
        }
        with _serving() as port:
            for name, (data, code) in table.items():
                logged = self.assertLogs("mailer.transport.listener", "DEBUG")
                with self.subTest(name), _connect(port) as sock, logged as log:
                    sock.sendall(data)
                    self.assertEqual(_codes(_replies(sock)), [code])
                    self.assertIn(f"DEBUG:mailer.transport.listener:127.0.0.1: {code}", log.output)
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)

    def test_the_answer_arrives_although_the_peer_has_sent_megabytes(self) -> None:
        for data in (b"\xff" * 3_000_000, _frame(b"x" * MAX_FRAME) + bytes(2_000_000)):
            with self.subTest(data[:5]), _serving(timeout=10) as port, _connect(port) as sock:
                sock.sendall(data)
                self.assertEqual(len(_replies(sock)), 1)

    def test_an_answer_that_says_bad_request_closes_too(self) -> None:
        refusal = Reply(problems=(Problem(Code.BAD_REQUEST, "The same id."),))
        with _serving(lambda *_: refusal) as port, _connect(port) as sock:
            sock.sendall(encode_request(REQUEST) * 3)
            self.assertEqual(_replies(sock), [refusal])

    def test_a_second_request_after_a_while_is_answered_soon(self) -> None:
        with _serving() as port, _connect(port) as sock:
            connection = Connection(sock, 10)
            for pause in (0.0, 0.002, 0.02, 0.2, 0.0):
                time.sleep(pause)
                began = time.monotonic()
                connection.send(encode_request(REQUEST))
                self.assertEqual(connection.receive(), encode_reply(Reply(ticket=1))[4:])
                self.assertLess(time.monotonic() - began, QUICKLY)

    def test_other_refusals_do_not_close(self) -> None:
        refusal = Reply(problems=(Problem(Code.EMAIL_INVALID, "No."),))
        with _serving(lambda *_: refusal) as port, _connect(port) as sock:
            sock.sendall(encode_request(REQUEST) * 3)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(_replies(sock), [refusal] * 3)

    def test_an_end_within_a_frame_has_no_effect(self) -> None:
        handled: list[Request] = []

        def handle(request: Request, host: str) -> Reply:
            handled.append(request)
            return Reply(ticket=1)

        frame = encode_request(Request("cut@example.com", "x"))
        with _serving(handle) as port:
            for end in range(len(frame)):
                with _connect(port) as sock:
                    sock.sendall(frame[:end])
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)
        self.assertEqual(handled, [REQUEST])

    def test_a_peer_that_goes_away_without_its_answer_disturbs_nobody(self) -> None:
        with _serving() as port:
            for _ in range(50):
                sock = _connect(port)
                sock.sendall(encode_request(REQUEST) * 20)
                _reset(sock)
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)

    def test_silence_is_closed_at_the_time_out(self) -> None:
        with _serving(timeout=0.3) as port, _connect(port) as sock:
            began = time.monotonic()
            self.assertEqual(sock.recv(10), b"")
            self.assertLess(abs(time.monotonic() - began - 0.3), 0.4)


class Bugs(unittest.TestCase):
    def test_a_bug_in_the_handler_is_an_internal_error_and_the_next_request_works(self) -> None:
        def handle(request: Request, host: str) -> Reply:
            if request.message == "bug":
                raise ZeroDivisionError("the secret inside")
            if request.message == "deep":
                return handle(request, host)
            return Reply(ticket=1)

        with _serving(handle) as port, self.assertLogs("mailer.transport.listener", "ERROR") as log:
            for message in ("bug", "deep") * 10:
                reply = exchange("127.0.0.1", port, Request("a@b.de", message), timeout=5)
                self.assertEqual(_code(reply), "internal_error")
                self.assertFalse(reply.retry)
                self.assertNotIn("secret", reply.problems[0].text)
                self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)
        self.assertEqual(len(log.output), 20)
        self.assertIn("ZeroDivisionError", log.output[0])


class OutOfMemory(unittest.TestCase):
    def test_what_cannot_be_taken_in_ends_no_thread(self) -> None:
        files = certificates.certificates()
        failures = iter(range(8))

        class Context(ssl.SSLContext):
            def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
                if next(failures, None) is not None:
                    raise MemoryError
                return super().wrap_socket(*arguments, **options)

        context = Context(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.chain("good"), files.key("good"))
        trusting = client_context(files.ca)
        with _serving(workers=4, context=context) as port, self.assertLogs("mailer.transport.listener", "ERROR"):
            for _ in range(8):
                with _connect(port) as sock:
                    self.assertEqual(sock.recv(1), b"")
            self.assertTrue(exchange("localhost", port, REQUEST, timeout=5, context=trusting).ok)

    def test_the_porter_stays_at_the_door(self) -> None:
        gate, real = _Gate(), idlers.Idlers.close_longest
        failures = iter([MemoryError])

        def close_longest(of: idlers.Idlers) -> bool:
            for failure in failures:
                raise failure
            return real(of)

        with _serving(gate, workers=2) as port, mock.patch.object(idlers.Idlers, "close_longest", close_longest):
            self.addCleanup(gate.go.set)
            askers = [_Asker(port), _Asker(port)]
            wait_until(lambda: gate.inside == 2)
            with self.assertLogs("mailer.transport.listener", "WARNING") as log, _connect(port) as sock:
                sock.sendall(encode_request(REQUEST))
                self.assertEqual(_codes(_replies(sock)), ["busy"])
                wait_until(lambda: log.output)
            self.assertEqual(_code(exchange("127.0.0.1", port, REQUEST, timeout=5)), "busy", "somebody is at the door")
            gate.go.set()
            for asker in askers:
                asker.join(5)
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)

    def test_an_answer_that_cannot_be_given_is_not_replaced_by_another_one(self) -> None:
        real = socket.socket.send

        def send(sock: socket.socket, data: bytes, *flags: int) -> int:
            if b'"ticket"' in bytes(data):
                raise MemoryError
            return real(sock, data, *flags)

        with _serving() as port, mock.patch.object(socket.socket, "send", send):
            with _connect(port) as sock, self.assertLogs("mailer.transport.listener", "ERROR"):
                sock.sendall(encode_request(REQUEST))
                self.assertEqual(sock.recv(100), b"")


class Idlers(unittest.TestCase):
    """200 connections that send nothing, or drip, against 16 workers; 1,900 against 256 with MAILER_LONG=1."""

    workers, idlers, ordinary = (256, 1_900, 100) if LONG else (16, 200, 30)

    def test_they_cannot_keep_users_out(self) -> None:
        threads_before = threading.active_count()
        with _serving(workers=self.workers, timeout=15) as port, self.crowd(port) as crowd:
            slowest = 0.0
            for _ in range(self.ordinary):
                began = time.monotonic()
                self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=10).ok)
                slowest = max(slowest, time.monotonic() - began)
            self.assertLess(slowest, QUICKLY)
            askers = [_Asker(port) for _ in range(self.ordinary)]
            for asker in askers:
                asker.join(30)
            self.assertEqual({asker.outcome for asker in askers}, {"OK"})
            # The workers, the porter, and the one who drips.
            self.assertLessEqual(threading.active_count() - threads_before, self.workers + 3)
            self.assertGreater(len(crowd), 0)

    def test_over_tls_neither_can_those_whose_handshake_never_comes(self) -> None:
        files = certificates.certificates()
        context, trusting = server_context(files.chain("good"), files.key("good")), client_context(files.ca)
        with _serving(workers=self.workers, timeout=15, context=context) as port, self.crowd(port):
            for _ in range(10):
                began = time.monotonic()
                self.assertTrue(exchange("localhost", port, REQUEST, timeout=10, context=trusting).ok)
                self.assertLess(time.monotonic() - began, QUICKLY)

    def test_those_who_ask_now_and_then_for_ever_cannot_either(self) -> None:
        # Each of them completes frames, and all of them together take every worker for longer than the time-out.
        done = threading.Event()

        def ask_now_and_then() -> None:
            while not done.is_set():
                with contextlib.suppress(OSError), _connect(port) as sock:
                    connection = Connection(sock, 5)
                    while not done.wait(0.25):
                        connection.send(encode_request(REQUEST))
                        if connection.receive() is None:
                            break

        outcomes: list[str] = []
        with _serving(workers=4, timeout=0.3) as port:
            regulars = [threading.Thread(target=ask_now_and_then) for _ in range(6)]
            for thread in regulars:
                thread.start()
            try:
                end = time.monotonic() + 1
                while time.monotonic() < end:
                    asker = _Asker(port)
                    asker.join(10)
                    outcomes.append(asker.outcome)
            finally:
                done.set()
                for thread in regulars:
                    thread.join(10)
        # On a machine that is short of time one may take so long to send its frame that it passes for idle itself.
        self.assertNotIn("busy", outcomes)
        self.assertGreater(outcomes.count("OK"), 0.8 * len(outcomes), outcomes)

    @unittest.skipUnless(sys.platform == "linux", "needs a second loopback address")
    def test_a_flood_from_one_host_does_not_close_a_slow_connection_of_another(self) -> None:
        done = threading.Event()

        def flood() -> None:
            """Keep more silent connections than there are workers, and make another one for each that is closed."""
            with contextlib.ExitStack() as stack:
                crowd = [stack.enter_context(_connect(port, "127.0.0.2")) for _ in range(12)]
                while not done.is_set():
                    for index, sock in enumerate(crowd):
                        sock.settimeout(0.002)
                        with contextlib.suppress(TimeoutError, OSError):
                            if sock.recv(1) == b"":
                                crowd[index] = stack.enter_context(_connect(port, "127.0.0.2"))

        with _serving(workers=6, timeout=10) as port:
            flooding = threading.Thread(target=flood)
            flooding.start()
            try:
                for _ in range(2):
                    with _connect(port) as slow:
                        for byte in encode_request(REQUEST):
                            slow.sendall(bytes([byte]))
                            time.sleep(0.015)  # it takes more than a second in all
                        self.assertEqual(_codes([decode_reply(Connection(slow, 10).receive() or b"")]), ["OK"])
            finally:
                done.set()
                flooding.join(10)

    @contextlib.contextmanager
    def crowd(self, port: int) -> Iterator[list[socket.socket]]:
        """Connections of which a third says nothing, a third has begun a frame, and a third drips."""
        with contextlib.ExitStack() as stack:
            crowd: list[socket.socket] = []
            drippers: list[socket.socket] = []
            for number in range(self.idlers):
                sock = stack.enter_context(_connect(port))
                crowd.append(sock)
                if number % 3 == 1:
                    sock.sendall(b"\0\0\x01")
                elif number % 3 == 2:
                    sock.sendall(b"\0\0\xff\xff")
                    drippers.append(sock)
            done = threading.Event()

            def drip() -> None:
                while not done.wait(0.05):
                    for sock in drippers:
                        with contextlib.suppress(OSError):
                            sock.send(b" ")

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                yield crowd
            finally:
                done.set()
                thread.join(10)


    def test_nobody_is_closed_for_a_newcomer_while_threads_are_free(self) -> None:
        request = encode_request(REQUEST)
        with _serving(workers=3, timeout=10) as port, contextlib.ExitStack() as opened:
            slow, *others = [opened.enter_context(_connect(port)) for _ in range(3)]
            for sock in (slow, *others):  # these take all threads, so that nobody leads
                sock.sendall(request[:10])
            since = time.monotonic()
            wait_until(lambda: time.monotonic() > since + 3 * idlers.FAIR_WAIT)
            for sock in others:
                sock.sendall(request[10:])
                sock.shutdown(socket.SHUT_WR)
                self.assertEqual(_codes(_replies(sock)), ["OK"])
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=QUICKLY).ok)
            slow.sendall(request[10:])
            slow.shutdown(socket.SHUT_WR)
            self.assertEqual(_codes(_replies(slow)), ["OK"])


class Busy(unittest.TestCase):
    def test_when_every_worker_is_really_taken_newcomers_hear_busy_after_the_wait(self) -> None:
        gate = _Gate()
        with _serving(gate, workers=4, timeout=0.5) as port:
            askers = [_Asker(port) for _ in range(4)]
            wait_until(lambda: gate.inside == 4)
            began = time.monotonic()
            reply = exchange("127.0.0.1", port, REQUEST, timeout=5)
            self.assertEqual((_code(reply), reply.retry), ("busy", True))
            self.assertLess(time.monotonic() - began, 2)
            gate.go.set()
            for asker in askers:
                asker.join(10)
            self.assertEqual([asker.outcome for asker in askers], ["OK"] * 4)
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)

    def test_one_who_waits_gets_the_first_worker_that_is_free(self) -> None:
        gate = _Gate()
        with _serving(gate, workers=4, timeout=10) as port:
            askers = [_Asker(port) for _ in range(6)]
            wait_until(lambda: gate.inside == 4)
            gate.go.set()
            for asker in askers:
                asker.join(10)
            self.assertEqual([asker.outcome for asker in askers], ["OK"] * 6)

    def test_all_workers_wait_side_by_side(self) -> None:
        gate = _Gate()
        with _serving(gate, workers=40) as port:
            askers = [_Asker(port) for _ in range(40)]
            wait_until(lambda: gate.inside == 40)
            gate.go.set()
            for asker in askers:
                asker.join(10)
        self.assertEqual({asker.outcome for asker in askers}, {"OK"})

    def test_slow_ones_do_not_delay_quick_ones(self) -> None:
        gate = _Gate()
        with _serving(gate, workers=20) as port:
            askers = [_Asker(port) for _ in range(19)]
            wait_until(lambda: gate.inside == 19)
            for _ in range(50):
                began = time.monotonic()
                self.assertTrue(exchange("127.0.0.1", port, Request("quick@b.de", "x"), timeout=5).ok)
                self.assertLess(time.monotonic() - began, 1)
            gate.go.set()
            for asker in askers:
                asker.join(10)


class Floods(unittest.TestCase):
    def test_resets_before_the_tls_handshake_cost_no_worker(self) -> None:
        files = certificates.certificates()
        context, trusting = server_context(files.chain("good"), files.key("good")), client_context(files.ca)
        with _serving(workers=4, context=context) as port:
            for data in (b"", b"x", b"\x16\x03\x01") * 20:
                sock = _connect(port)
                sock.sendall(data)
                _reset(sock)
            for _ in range(8):
                self.assertTrue(exchange("localhost", port, REQUEST, timeout=5, context=trusting).ok)
            self.assertEqual(len([t for t in threading.enumerate() if t.name == "worker"]), 4)

    def test_plain_text_at_a_tls_port_is_refused_in_plain_text_and_costs_nothing(self) -> None:
        files = certificates.certificates()
        context, trusting = server_context(files.chain("good"), files.key("good")), client_context(files.ca)
        with _serving(workers=4, context=context) as port:
            for request in (REQUEST, Request("a@b.de", "x" * 90_000)) * 5:
                reply = exchange("127.0.0.1", port, request, timeout=5)
                self.assertEqual(reply.problems[0].code, Code.BAD_REQUEST)
                self.assertIn("SERVER_TLS_CA", reply.problems[0].text)
            with _connect(port) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertIn(b"over TLS alone", sock.makefile("rb").read())
            self.assertTrue(exchange("localhost", port, REQUEST, timeout=5, context=trusting).ok)

    @unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc")
    def test_nothing_is_left_of_connections_that_have_ended(self) -> None:
        def descriptors() -> int:
            return len(list(Path("/proc/self/fd").iterdir()))

        with _serving(timeout=0.5) as port:
            exchange("127.0.0.1", port, REQUEST, timeout=5)
            before = descriptors()
            for number in range(300):
                sock = _connect(port)
                sock.sendall((encode_request(REQUEST), b"\0", b"\xff" * 10, _frame(b"x"))[number % 4])
                if number % 3:
                    sock.close()
                else:
                    _reset(sock)
            wait_until(lambda: descriptors() <= before)

    def test_peers_that_take_no_replies_keep_nobody_out(self) -> None:
        full = threading.Event()

        def big(request: Request, host: str) -> Reply:
            if request.email == ALICE:
                return Reply(ticket=1)
            full.set()
            return Reply(problems=(Problem(Code.EMAIL_INVALID, "x" * 900_000),))

        with _serving(big, workers=2, timeout=30.0) as port, contextlib.ExitStack() as crowd:
            for _ in range(2):
                full.clear()
                peer = crowd.enter_context(socket.socket())
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
                peer.connect(("127.0.0.1", port))
                peer.sendall(20 * encode_request(Request("b@example.com", "x")))
                self.assertTrue(full.wait(10))
            began = time.monotonic()
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=20).ok)
            self.assertLess(time.monotonic() - began, QUICKLY)

    def test_connections_full_of_requests_keep_nobody_out(self) -> None:
        asked = threading.Event()
        handled = 0

        def handle(request: Request, host: str) -> Reply:
            nonlocal handled
            if request.email == "flood@example.com":
                asked.wait(0.01)  # work that is no wait, as the server sees it
                handled += 1
            return Reply(ticket=1)

        with _serving(handle) as port, contextlib.ExitStack() as stack:
            for _ in range(4):
                sock = stack.enter_context(_connect(port))
                sock.sendall(encode_request(Request("flood@example.com", "x")) * 500)
            wait_until(lambda: handled)
            self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=20).ok)
            handled_before = handled
            asked.set()
        self.assertLess(handled_before, 500)

    def test_those_who_ask_without_a_pause_make_room_for_others(self) -> None:
        frames = encode_request(Request("flood@example.com", "x")) * 200
        done = threading.Event()

        def flood(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while not done.is_set():
                    sock.send(frames)

        def drink(sock: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while sock.recv(65_536):
                    pass

        for workers in (2, 40):
            done.clear()
            with self.subTest(workers), _serving(workers=workers, timeout=15) as port, contextlib.ExitStack() as stack:
                threads = []
                for _ in range(workers + 2):
                    sock = stack.enter_context(_connect(port))
                    threads += [threading.Thread(target=each, args=(sock,)) for each in (flood, drink)]
                for thread in threads:
                    thread.start()
                try:
                    for _ in range(5):
                        began = time.monotonic()
                        self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=20).ok)
                        self.assertLess(time.monotonic() - began, QUICKLY)
                finally:
                    done.set()
                    stack.close()
                    for thread in threads:
                        thread.join(10)

    def test_of_too_many_large_frames_at_once_some_hear_busy(self) -> None:
        large = _frame(b'{"email": "a@b.de", "message": "x", "more": [' + b"1e9," * 40_000 + b"1]}")
        decoding, go = threading.Event(), threading.Event()

        def decode(payload: bytes) -> Request:
            if len(payload) > decoder._LARGE:
                decoding.set()
                go.wait(10)
            return decode_request(payload)

        with mock.patch.object(decoder, "decode_request", decode), _serving(workers=30) as port:
            self.addCleanup(go.set)
            with contextlib.ExitStack() as stack:
                socks = [stack.enter_context(_connect(port)) for _ in range(decoder._MOST_LARGE + 4)]
                for sock in socks:
                    sock.sendall(large)
                    sock.shutdown(socket.SHUT_WR)
                self.assertTrue(decoding.wait(10))
                self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)
                waiting = threading.Timer(0.5, go.set)
                waiting.start()
                codes = [code for sock in socks for code in _codes(_replies(sock))]
        self.assertEqual((codes.count("OK"), codes.count("busy")), (decoder._MOST_LARGE, 4))

    def test_large_frames_are_decoded_one_at_a_time(self) -> None:
        decoding = most = 0

        def decode(payload: bytes) -> Request:
            nonlocal decoding, most
            decoding += 1
            most = max(most, decoding)
            time.sleep(0.001)  # lets another thread run
            decoding -= 1
            return decode_request(payload)

        large = _frame(b'{"email": "a@b.de", "message": "x", "more": [' + b"1e9," * 40_000 + b"1]}")
        with mock.patch.object(decoder, "decode_request", decode), _serving(workers=16) as port:
            with contextlib.ExitStack() as stack:
                socks = [stack.enter_context(_connect(port)) for _ in range(12)]
                for sock in socks:
                    sock.sendall(large)
                    sock.shutdown(socket.SHUT_WR)
                for sock in socks:
                    self.assertEqual(_codes(_replies(sock)), ["OK"])
        self.assertEqual(most, 1)

    def test_askers_without_number_are_all_answered(self) -> None:
        count = 2_000 if LONG else 300
        with _serving(workers=8, timeout=10) as port:
            outcomes: list[str] = []

            def ask() -> None:
                replies = (exchange("127.0.0.1", port, REQUEST, timeout=10) for _ in range(count // 20))
                outcomes.extend(map(_code, replies))

            threads = [threading.Thread(target=ask) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        self.assertEqual(outcomes, ["OK"] * count)


class TheEnd(unittest.TestCase):
    def start(self, handle: Callable[[Request, str], Reply], *, workers: int = 8, timeout: float = 10.0) -> int:
        listening = listen("127.0.0.1", 0)
        self.server = Listener(listening, _in_steps(handle), workers=workers, timeout=timeout)
        self.server.start()
        port: int = listening.getsockname()[1]
        return port

    def stop_meanwhile(self) -> None:
        self.stopping = threading.Thread(target=self.server.stop, args=(8,))
        self.stopping.start()
        self.addCleanup(self.stopping.join, 10)

    def test_requests_in_flight_are_answered(self) -> None:
        gate = _Gate()
        port = self.start(gate)
        self.addCleanup(gate.go.set)
        askers = [_Asker(port) for _ in range(5)]
        wait_until(lambda: gate.inside == 5)
        self.stop_meanwhile()
        wait_until(lambda: self.refused(port))
        self.assertTrue(self.stopping.is_alive())
        gate.go.set()
        self.stopping.join(5)
        self.assertFalse(self.stopping.is_alive())
        for asker in askers:
            asker.join(5)
        self.assertEqual([asker.outcome for asker in askers], ["OK"] * 5)

    def refused(self, port: int) -> bool:
        try:
            return _code(exchange("127.0.0.1", port, REQUEST, timeout=5)) == "busy"
        except TransportError:
            return True

    def test_those_who_wait_for_a_worker_hear_busy(self) -> None:
        gate = _Gate()
        port = self.start(gate, workers=2)
        self.addCleanup(gate.go.set)
        served = [_Asker(port), _Asker(port)]
        wait_until(lambda: gate.inside == 2)
        waiting = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(6)]
        for sock in waiting:
            sock.sendall(encode_request(REQUEST))
        self.stop_meanwhile()
        for sock in waiting:
            with sock:
                self.assertEqual(_codes(_replies(sock)), ["busy"])
        gate.go.set()
        self.stopping.join(5)
        for asker in served:
            asker.join(5)
        self.assertEqual([asker.outcome for asker in served], ["OK", "OK"])

    def test_idle_connections_are_closed_at_once_and_a_frame_that_has_come_is_answered(self) -> None:
        port = self.start(_ok)
        idle = [_connect(port) for _ in range(5)]
        half = _connect(port)
        half.sendall(encode_request(REQUEST)[:-1])
        self.assertTrue(exchange("127.0.0.1", port, REQUEST, timeout=5).ok)
        began = time.monotonic()
        self.stop_meanwhile()
        self.stopping.join(5)
        self.assertLess(time.monotonic() - began, 2)
        for sock in [*idle, half]:
            with sock:
                self.assertEqual(_replies(sock), [])

    def test_it_ends_at_once_when_there_is_nothing_to_do_and_every_thread_with_it(self) -> None:
        before = {thread.ident for thread in threading.enumerate()}
        for _ in range(5):
            self.start(_ok, workers=16)
            began = time.monotonic()
            self.server.stop(8)
            self.assertLess(time.monotonic() - began, 1.5)
            wait_until(lambda: {thread.ident for thread in threading.enumerate()} <= before)

    def test_the_grace_is_kept_whatever_hangs(self) -> None:
        gate = _Gate()
        port = self.start(gate, workers=2)
        self.addCleanup(gate.go.set)
        asker = _Asker(port)
        wait_until(lambda: gate.inside)
        crowd = [_connect(port) for _ in range(100)]
        began = time.monotonic()
        self.server.stop(1)
        self.assertLess(time.monotonic() - began, 2.5)
        gate.go.set()
        asker.join(5)
        for sock in crowd:
            sock.close()

    def test_the_port_is_free_again(self) -> None:
        port = self.start(_ok)
        exchange("127.0.0.1", port, REQUEST, timeout=5)
        self.server.stop(5)
        listen("127.0.0.1", port).close()


class StandingAside(unittest.TestCase):
    def test_outside_a_worker_it_does_nothing(self) -> None:
        stand_aside()

    def test_the_values_that_others_rely_on(self) -> None:
        self.assertGreater(idlers.FAIR_WAIT, 10 * patience.QUICK)


def _reset(sock: socket.socket) -> None:
    """Close with a TCP reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
