"""The wire: every decoder on whole, split, overlong and hostile input, and a fuzz test."""

import contextlib
import json
import os
import random
import unittest
from collections.abc import Callable, Iterator

from mailer.errors import Code, Problem, RequestError, TransportError
from mailer.protocol import (
    HEADER_SIZE,
    MAX_FRAME,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    frame_length,
    reply_object,
    split_frame,
)

CASES = 100_000 if os.environ.get("MAILER_LONG") else 4_000
_WHOLE = b'{"email":"a@b.de","message":"x"}'
_DEEP = 100_000


def _header(length: int) -> bytes:
    return length.to_bytes(HEADER_SIZE, "big")


def _code(call: Callable[..., object], *arguments: object) -> str:
    """The code of the one problem that the call is refused with."""
    try:
        call(*arguments)
    except RequestError as refused:
        (problem,) = refused.problems
        assert refused.retry is False
        assert problem.text.isprintable() and len(problem.text) < 200, problem.text
        return problem.code.value
    return "none"


@contextlib.contextmanager
def _shown(case: int, payload: bytes) -> Iterator[None]:
    """Name the case when anything but a skipped turn comes of it."""
    try:
        yield
    except Exception as failure:
        raise AssertionError(f"case {case}, {payload[:300]!r}: {failure!r}") from failure


class Frames(unittest.TestCase):
    def test_the_length_is_from_1_to_1_mebibyte(self) -> None:
        for length in (1, 2, 255, 256, 65_536, MAX_FRAME - 1, MAX_FRAME):
            with self.subTest(length):
                self.assertEqual(frame_length(_header(length)), length)
                self.assertEqual(frame_length(bytearray(_header(length))), length)
        for length in (0, MAX_FRAME + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, int.from_bytes(b"GET ", "big")):
            with self.subTest(length):
                self.assertEqual(_code(frame_length, _header(length)), "frame_too_large")
                self.assertEqual(_code(split_frame, _header(length)), "frame_too_large")

    def test_a_frame_is_whole_at_its_last_byte_and_not_before(self) -> None:
        frame = _header(len(_WHOLE)) + _WHOLE
        for end in range(len(frame)):
            self.assertIsNone(split_frame(frame[:end]), end)
        self.assertEqual(split_frame(frame), (_WHOLE, b""))
        self.assertEqual(split_frame(bytearray(frame)), (_WHOLE, b""))

    def test_what_follows_a_frame_is_left_alone(self) -> None:
        frame = _header(len(_WHOLE)) + _WHOLE
        for rest in (b"x", b"\0\0\0\0", b"\xff" * 10, frame, frame + frame[:7]):
            with self.subTest(rest[:8]):
                self.assertEqual(split_frame(frame + rest), (_WHOLE, rest))

    def test_the_longest_frame_fits_and_one_byte_more_does_not(self) -> None:
        empty = len(encode_request(Request("a@b.de", ""))) - HEADER_SIZE
        message = "x" * (MAX_FRAME - empty)
        frame = encode_request(Request("a@b.de", message))
        self.assertEqual(len(frame), HEADER_SIZE + MAX_FRAME)
        split = split_frame(frame)
        assert split
        self.assertEqual(decode_request(split[0]), Request("a@b.de", message))
        self.assertEqual(_code(lambda: encode_request(Request("a@b.de", message + "x"))), "frame_too_large")
        self.assertEqual(_code(lambda: encode_request(Request("a@b.de", "x" * (1 << 24)))), "frame_too_large")


class Requests(unittest.TestCase):
    def test_what_is_encoded_is_decoded(self) -> None:
        table = (
            Request("a@b.de", "x"),
            Request("a@b.de", "x", "6f1c"),
            Request("a@b.de", "x", "6f1c", "secret"),
            Request("", "", " ", ""),
            Request("почта@пример.рф", "日本\n\r\t\0\x1b\u2028😀\"\\/", "~" * 64, "ключ"),
        )
        for request in table:
            with self.subTest(request.email):
                frame = encode_request(request)
                self.assertEqual(frame_length(frame[:HEADER_SIZE]), len(frame) - HEADER_SIZE)
                self.assertEqual(decode_request(frame[HEADER_SIZE:]), request)

    def test_the_bytes_are_utf_8_and_hold_only_what_is_given(self) -> None:
        frame = encode_request(Request("a@b.de", "é"))
        self.assertEqual(frame, b'\0\0\0\x21{"email":"a@b.de","message":"\xc3\xa9"}')

    def test_json_written_by_others_is_taken(self) -> None:
        plain = Request("a@b.de", "x")
        table = {
            "blanks": (b' \t\r\n{ "email" : "a@b.de" ,\n"message":"x" } \n', plain),
            "order": (b'{"message":"x","email":"a@b.de"}', plain),
            "escapes": (rb'{"\u0065mail":"a\u0040b.de","message":"\u0078"}', plain),
            "a surrogate pair": (rb'{"email":"a@b.de","message":"\ud83d\ude00"}', Request("a@b.de", "😀")),
            "unknown keys": (b'{"email":"a@b.de","message":"x","v":2,"to":["c@d.de"],"n":null,"o":{"email":1}}', plain),
            "extreme numbers": (b'{"email":"a@b.de","message":"x","a":-1e999,"b":' + b"9" * 4000 + b"}", plain),
            "NUL": (b'{"email":"a@b.de","message":"\\u0000"}', Request("a@b.de", "\0")),
        }  # fmt: skip
        for name, (payload, request) in table.items():
            with self.subTest(name):
                self.assertEqual(decode_request(payload), request)

    def test_half_a_surrogate_pair_reaches_validation_which_refuses_it(self) -> None:
        request = decode_request(rb'{"email":"a@b.de","message":"\ud800","token":"\udfff"}')
        self.assertEqual((request.message, request.token), ("\ud800", "\udfff"))

    def test_half_a_surrogate_pair_is_not_sent(self) -> None:
        self.assertEqual(_code(lambda: encode_request(Request("a@b.de", "\ud800"))), "bad_request")

    def test_bad_requests(self) -> None:
        def having(more: str) -> bytes:
            return f'{{"email":"a@b.de","message":"x",{more}}}'.encode()

        table: dict[str, bytes] = {
            "nothing": b"",
            "blanks": b"  ",
            "not JSON": b"hello",
            "another protocol": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "cut off": _WHOLE[:-1],
            "trailing bytes": _WHOLE + b"x",
            "a second object": _WHOLE + _WHOLE,
            "a trailing NUL": _WHOLE + b"\0",
            "a trailing comma": b'{"email":"a@b.de","message":"x",}',
            "single quotes": b"{'email':'a@b.de','message':'x'}",
            "a comment": b'{"email":"a@b.de","message":"x"/**/}',
            "a newline inside a string": b'{"email":"a@b.de","message":"a\nb"}',
            "a NUL inside a string": b'{"email":"a@b.de","message":"a\0b"}',
            "an unknown escape": rb'{"email":"a@b.de","message":"\x41"}',
            "half an escape": rb'{"email":"a@b.de","message":"\u00"}',
            "an array": b"[]",
            "a string": b'"email"',
            "a number": b"1",
            "null": b"null",
            "true": b"true",
            "an array of a request": b"[" + _WHOLE + b"]",
            "UTF-8 with a BOM": b"\xef\xbb\xbf" + _WHOLE,
            "UTF-16": _WHOLE.decode().encode("utf-16"),
            "UTF-16-LE": _WHOLE.decode().encode("utf-16-le"),
            "UTF-16-BE": _WHOLE.decode().encode("utf-16-be"),
            "UTF-32": _WHOLE.decode().encode("utf-32"),
            "Latin-1": '{"email":"a@b.de","message":"é"}'.encode("latin-1"),
            "overlong UTF-8": b'{"email":"a@b.de","message":"\xc0\x80"}',
            "a surrogate in UTF-8": b'{"email":"a@b.de","message":"\xed\xa0\x80"}',
            "UTF-8 cut off": b'{"email":"a@b.de","message":"\xf0\x9f\x98',
            "above U+10FFFF": b'{"email":"a@b.de","message":"\xf4\x90\x80\x80"}',
            "no e-mail": b'{"message":"x"}',
            "no message": b'{"email":"a@b.de"}',
            "no keys": b"{}",
            "keys in another case": b'{"Email":"a@b.de","MESSAGE":"x"}',
            "e-mail null": b'{"email":null,"message":"x"}',
            "e-mail a list": b'{"email":["a@b.de"],"message":"x"}',
            "e-mail an object": b'{"email":{"a":1},"message":"x"}',
            "message a number": b'{"email":"a@b.de","message":1}',
            "message false": b'{"email":"a@b.de","message":false}',
            "token a number": having('"token":1'),
            "token null": having('"token":null'),
            "id a number": having('"id":1'),
            "id null": having('"id":null'),
            "id a list": having('"id":[]'),
            "id empty": having('"id":""'),
            "id of 65 characters": having(f'"id":"{"x" * 65}"'),
            "id with a newline at its end": having(r'"id":"x\n"'),
            "id with a control character": having(r'"id":"x\u001b"'),
            "id with DEL": having('"id":"x\x7f"'),
            "id beyond ASCII": having('"id":"é"'),
            "id half a surrogate pair": having(r'"id":"\ud800"'),
            "a key twice": b'{"email":"a@b.de","email":"c@d.de","message":"x"}',
            "a key twice, in other spelling": rb'{"email":"a@b.de","\u0065mail":"c@d.de","message":"x"}',
            "an unknown key twice": having('"z":1,"z":2'),
            "a key twice within": having('"z":{"a":1,"a":1}'),
            "NaN": having('"z":NaN'),
            "Infinity": having('"z":Infinity'),
            "minus Infinity": having('"z":[-Infinity]'),
            "an integer of 5,000 digits": having(f'"z":{"9" * 5000}'),
            "an integer of 1,000,000 digits": having(f'"z":{"9" * 1_000_000}'),
            "a negative integer of 5,000 digits": having(f'"z":-{"9" * 5000}'),
            "arrays nested 100,000 deep": having(f'"z":{"[" * _DEEP}{"]" * _DEEP}'),
            "arrays nested 100,000 deep and never closed": b"[" * _DEEP,
            "objects nested 100,000 deep": having('"z":' + '{"a":' * _DEEP + "1" + "}" * _DEEP),
        }
        for name, payload in table.items():
            with self.subTest(name):
                self.assertEqual(_code(decode_request, payload), "bad_request")

    def test_json_holds_few_objects_and_lists(self) -> None:
        strings = json.dumps('[{"\\' * 300)
        table = {"[": "]", '{"a":': "}", f"[{strings},": "]", f'{{"b":{strings},"c":': "}"}
        for begin, end in table.items():
            for count, outcome in ((99, "none"), (100, "bad_request")):  # beside the object that the request is
                with self.subTest(begin[:9], count=count):
                    payload = f'{{"email":"a@b.de","message":"x","z":{begin * count}1{end * count}}}'
                    self.assertEqual(_code(decode_request, payload.encode()), outcome)
        wide = f'{{"email":"a@b.de","message":"x","z":[{"[]," * 98}1]}}'
        self.assertEqual(_code(decode_request, wide.encode()), "none")
        self.assertEqual(_code(decode_request, wide.replace("1", "[1]").encode()), "bad_request")

    def test_every_printable_ascii_character_may_be_in_an_id(self) -> None:
        for number in range(256):
            payload = json.dumps({"email": "a@b.de", "message": "x", "id": chr(number)}).encode()
            expected = "none" if 0x20 <= number <= 0x7E else "bad_request"
            self.assertEqual(_code(decode_request, payload), expected, number)

    def test_the_token_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(Request("a@b.de", "x", "id", "secret")))


class Replies(unittest.TestCase):
    def test_the_bytes_are_those_of_the_specification(self) -> None:
        problem = Problem(Code.EMAIL_INVALID, "No, é.")
        table = (
            (Reply(ticket=12345), '{"status":"OK","ticket":12345}'),
            (
                Reply(problems=(problem,), retry=False),
                '{"status":"ERROR","retry":false,"errors":[{"code":"email_invalid","field":"email","text":"No, é."}]}',
            ),
            (
                Reply(problems=(Problem(Code.BUSY, "Wait."), Problem(Code.MESSAGE_EMPTY, "")), retry=True),
                '{"status":"ERROR","retry":true,"errors":[{"code":"busy","field":null,"text":"Wait."},'
                '{"code":"message_empty","field":"message","text":""}]}',
            ),
        )
        for reply, text in table:
            with self.subTest(text[:20]):
                frame = encode_reply(reply)
                self.assertEqual(frame[HEADER_SIZE:].decode(), text)
                self.assertEqual(frame_length(frame[:HEADER_SIZE]), len(text.encode()))
                self.assertEqual(decode_reply(frame[HEADER_SIZE:]), reply)
                self.assertEqual(reply_object(reply), json.loads(text))

    def test_every_code_arrives(self) -> None:
        for code in Code:
            for retry in (False, True):
                reply = Reply(problems=(Problem(code, "text"),), retry=retry)
                self.assertEqual(decode_reply(encode_reply(reply)[HEADER_SIZE:]), reply)

    def test_what_a_newer_server_may_say(self) -> None:
        reply = decode_reply(b'{"status":"ERROR","retry":true,"later":1,"errors":[{"code":"new","text":"Hm.","x":[]}]}')
        self.assertEqual(reply, Reply(problems=(Problem(Code.INTERNAL_ERROR, "Hm."),), retry=True))
        self.assertEqual(decode_reply(b'{"status":"OK","ticket":7,"more":null}'), Reply(ticket=7))

    def test_only_true_means_retry(self) -> None:
        for value in ("false", '"true"', "1", "null", "[]"):
            payload = f'{{"status":"ERROR","retry":{value},"errors":[{{"code":"busy","text":"x"}}]}}'.encode()
            self.assertFalse(decode_reply(payload).retry, value)

    def test_what_is_no_reply_says_that_the_request_was_sent(self) -> None:
        error = '"errors":[{"code":"busy","text":"x"}]'
        table = [
            "", "x", "[]", "null", "1", '"OK"', "{}", '{"status":"OK"}', '{"ticket":1}', '{"status":"OK","ticket":"1"}',
            '{"status":"OK","ticket":1.0}', '{"status":"OK","ticket":true}', '{"status":"OK","ticket":null}',
            '{"status":"OK","ticket":NaN}', '{"status":"OK","ticket":[1]}', '{"status":"ok","ticket":1}',
            '{"status":["OK"],"ticket":1}', '{"status":{},"ticket":1}', '{"status":"OK","status":"OK","ticket":1}',
            f'{{"status":"FINE","retry":false,{error}}}', f'{{"status":"ERROR",{error}}}',
            '{"status":"ERROR","retry":false}', '{"status":"ERROR","retry":false,"errors":[]}',
            '{"status":"ERROR","retry":false,"errors":{}}', '{"status":"ERROR","retry":false,"errors":"busy"}',
            '{"status":"ERROR","retry":false,"errors":null}', '{"status":"ERROR","retry":false,"errors":[1]}',
            '{"status":"ERROR","retry":false,"errors":["busy"]}', '{"status":"ERROR","retry":false,"errors":[{}]}',
            '{"status":"ERROR","retry":false,"errors":[{"code":"busy"}]}', "[" * _DEEP, '{"a":' * _DEEP,
            '{"status":"OK","ticket":' + "1" * 5000 + "}", '{"status":"OK","ticket":1' + "0" * 18 + "}",
            '{"status":"OK","ticket":0}', '{"status":"OK","ticket":-1}',
        ]  # fmt: skip
        for text in table:
            with self.subTest(text[:70]):
                with self.assertRaises(TransportError) as failure:
                    decode_reply(text.encode())
                self.assertTrue(failure.exception.sent)
        for payload in (b"\xff\xfe", '{"status":"OK","ticket":1}'.encode("utf-16")):
            self.assertRaises(TransportError, decode_reply, payload)


class Fuzz(unittest.TestCase):
    """Whatever the bytes, a decoder returns what its type says or raises the one error that its docstring names."""

    def test_mutated_requests(self) -> None:
        """A request whose parts are strings and whose id is 1 to 64 printable ASCII characters, or `bad_request`."""
        dice = random.Random(1)
        good = 0
        for case in range(CASES):
            payload = _mutated(dice)
            with _shown(case, payload):
                try:
                    request = decode_request(payload)
                except RequestError as refused:
                    self.assertEqual([problem.code for problem in refused.problems], [Code.BAD_REQUEST])
                    continue
                good += 1
                parts = (request.email, request.message, request.id, request.token)
                self.assertTrue(all(part is None or type(part) is str for part in parts))
                self.assertTrue(request.id is None or (0 < len(request.id) <= 64 and request.id.isascii()))
        self.assertGreater(good, CASES // 100)
        self.assertLess(good, CASES)

    def test_mutated_replies(self) -> None:
        """A ticket or at least one problem, or a TransportError that says the request was sent."""
        dice = random.Random(2)
        for case in range(CASES):
            payload = _mutated(dice)
            with _shown(case, payload):
                try:
                    reply = decode_reply(payload)
                except TransportError as failure:
                    self.assertTrue(failure.sent)
                    continue
                self.assertTrue(reply.ok if reply.ticket is not None else reply.problems)

    def test_frames_cut_anywhere(self) -> None:
        """However a stream of frames is cut into pieces, the payloads that come out are those that went in."""
        dice = random.Random(3)
        for case in range(CASES // 20):
            sizes = dice.choices((1, 2, 3, 255, 256, 257, 5000), k=dice.randrange(1, 6))
            payloads = [dice.randbytes(size) for size in sizes]
            stream = b"".join(_header(len(payload)) + payload for payload in payloads)
            found: list[bytes] = []
            buffer = b""
            while stream:
                size = dice.choice((1, 2, 3, 4, 5, 300, 10_000))
                buffer, stream = buffer + stream[:size], stream[size:]
                while frame := split_frame(buffer):
                    payload, buffer = frame
                    found.append(payload)
            self.assertEqual((found, buffer), (payloads, b""), case)


_SEEDS = (
    encode_request(Request("alice@example.com", "The printer is on fire 🔥\n", "6f1c", "secret"))[HEADER_SIZE:],
    _WHOLE,
    encode_reply(Reply(ticket=12345))[HEADER_SIZE:],
    encode_reply(Reply(problems=(Problem(Code.BUSY, "é"),), retry=True))[HEADER_SIZE:],
)
_PIECES = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\0", b" ", b"\n", b"-", b"\xff", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b"null", b"NaN", b"1e999", b"9" * 5000, b"[" * 5000,
    b'"id":', b'"email":', b'"errors":', b'"ticket":1,',
)  # fmt: skip


def _mutated(dice: random.Random) -> bytes:
    payload = bytearray(dice.choice(_SEEDS))
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 8))):
        place = dice.randrange(len(payload) + 1)
        match dice.randrange(5):
            case 0:
                payload[place:place] = dice.choice(_PIECES)
            case 1:
                del payload[place : place + dice.randrange(1, 6)]
            case 2:
                payload[place : place + 1] = dice.randbytes(1)
            case 3:
                payload[place : place + dice.randrange(1, 9)] = dice.choice(_PIECES)
            case _:
                other = dice.choice(_SEEDS)
                payload[place:] = other[dice.randrange(len(other)) :]
    return bytes(payload)
