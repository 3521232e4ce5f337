"""The wire between client and server: bytes ↔ `Request` and `Reply`. This docstring is its specification.

A frame is 4 bytes, the length N, unsigned and big-endian, and then N bytes, 1 ≤ N ≤ 1 MiB: one JSON object in UTF-8.
A connection carries any number of requests, one after another, each answered by one reply.

    request  {"id": "6f1c…", "email": "alice@example.com", "message": "The printer is on fire"}
    OK       {"status": "OK", "ticket": 12345}
    error    {"status": "ERROR", "retry": false, "errors": [{"code": "email_invalid", "field": "email", "text": "…"}]}

`id`, optional, is 1 to 64 printable ASCII characters; `token`, optional, is a string. Unknown keys are ignored.
A request is refused as `bad_request` if it is not UTF-8, not JSON (NaN and Infinity are not), not an object, holds more
than 100 objects and lists, has a key twice, lacks `email` or `message`, or has a value of the wrong type.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from mailer.errors import Code, Problem, RequestError, TransportError

HEADER_SIZE = 4
MAX_FRAME = 1 << 20

_NO_TICKET = 10**18  # ticket numbers have at most 18 digits
# Python's decoder needs some of the stack for each level of nesting; in a thread with a small stack, that could end the
# process. A request is flat, so its lists and objects are counted before it is decoded. Replies are read in a thread
# with stack enough.
_MOST_BRACKETS = 100
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ID = re.compile(r"[\x20-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for: send this message, and a copy to the administrator, under a new ticket."""

    email: str
    message: str
    id: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer: a ticket, or problems and whether the same request may succeed later."""

    ticket: int | None = None
    problems: tuple[Problem, ...] = ()
    retry: bool = False

    @property
    def ok(self) -> bool:
        """Whether the message was accepted for both recipients."""
        return self.ticket is not None


def frame_length(header: bytes | bytearray) -> int:
    """The length that a frame's 4-byte header announces; raises RequestError (`frame_too_large`)."""
    length = int.from_bytes(header, "big")
    if not 1 <= length <= MAX_FRAME:
        text = f"A frame has 1 to {MAX_FRAME:,} bytes, not {length:,}."
        raise RequestError(Problem(Code.FRAME_TOO_LARGE, text))
    return length


def split_frame(buffer: bytes | bytearray) -> tuple[bytes, bytes] | None:
    """The first frame's payload and what follows it; None while it is incomplete. Raises like `frame_length`."""
    if len(buffer) < HEADER_SIZE:
        return None
    end = HEADER_SIZE + frame_length(buffer[:HEADER_SIZE])
    return (bytes(buffer[HEADER_SIZE:end]), bytes(buffer[end:])) if len(buffer) >= end else None


def encode_request(request: Request) -> bytes:
    """The whole frame of a request; raises RequestError when it would be too large or cannot be encoded."""
    content = {"id": request.id, "email": request.email, "message": request.message, "token": request.token}
    return _frame({key: value for key, value in content.items() if value is not None})


def decode_request(payload: bytes) -> Request:
    """The request in a frame's payload; raises RequestError (`bad_request`)."""
    if _brackets(payload) > _MOST_BRACKETS and _brackets(_STRING.sub(b"", payload)) > _MOST_BRACKETS:
        raise _bad_request("The JSON holds too many objects and lists.")
    content = _decode(payload)
    for key in ("email", "message"):
        if key not in content:
            raise _bad_request(f"The key {key!r} is missing.")
    for key in ("email", "message", "id", "token"):
        if key in content and type(content[key]) is not str:
            raise _bad_request(f"The key {key!r} is not a string.")
    request = Request(content["email"], content["message"], content.get("id"), content.get("token"))
    if request.id is not None and not _ID.fullmatch(request.id):
        raise _bad_request("The key 'id' is not 1 to 64 printable ASCII characters.")
    return request


def reply_object(reply: Reply) -> dict[str, object]:
    """The JSON object of a reply."""
    if reply.ok:
        return {"status": "OK", "ticket": reply.ticket}
    errors = [{"code": problem.code.value, "field": problem.field, "text": problem.text} for problem in reply.problems]
    return {"status": "ERROR", "retry": reply.retry, "errors": errors}


def encode_reply(reply: Reply) -> bytes:
    """The whole frame of a reply."""
    if reply.ticket is not None:  # nearly every reply, made in a fraction of the time
        return _framed(b'{"status":"OK","ticket":%d}' % reply.ticket)
    return _frame(reply_object(reply))


def decode_reply(payload: bytes) -> Reply:
    """The reply in a frame's payload; raises TransportError, with `sent` true, when the payload is not a reply."""
    try:
        content = _decode(payload)
        if content["status"] == "OK":
            return Reply(ticket=_ticket(content["ticket"]))
        problems = tuple(Problem(_code(error["code"]), str(error["text"])) for error in content["errors"])
        if content["status"] != "ERROR" or not problems:
            raise ValueError("neither OK nor an error")
        return Reply(problems=problems, retry=content["retry"] is True)
    except (RequestError, LookupError, TypeError, ValueError) as wrong:
        raise TransportError("The server's answer makes no sense; is it Mailer's server?", sent=True) from wrong


def _frame(content: dict[str, object]) -> bytes:
    try:
        payload = _ENCODER.encode(content).encode()
    except UnicodeEncodeError as wrong:
        raise _bad_request("The request holds half a surrogate pair, which UTF-8 cannot encode.") from wrong
    frame_length(len(payload).to_bytes(8, "big"))
    return _framed(payload)


def _framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(HEADER_SIZE, "big") + payload


def _decode(payload: bytes) -> dict[str, Any]:
    try:
        content = _DECODER.decode(payload.decode())
    except RecursionError:
        raise _bad_request("The JSON is nested too deeply.") from None
    except ValueError as wrong:
        raise _bad_request("The frame does not hold JSON in UTF-8, with no key twice.") from wrong
    if not isinstance(content, dict):
        raise _bad_request("The frame does not hold a JSON object.")
    return content


def _brackets(payload: bytes) -> int:
    return payload.count(b"[") + payload.count(b"{")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: with options, `json.dumps` and `json.loads` make a new encoder or decoder for each call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def _ticket(value: object) -> int:
    if type(value) is not int or not 0 < value < _NO_TICKET:
        raise ValueError("this is no ticket number")
    return value


def _code(value: object) -> Code:
    """The code of an error; one that is unknown here, from a newer server, is taken for an internal error."""
    return next((code for code in Code if code == value), Code.INTERNAL_ERROR)


def _bad_request(text: str) -> RequestError:
    return RequestError(Problem(Code.BAD_REQUEST, text))
