"""A Mailer server that answers by a script: for the client, what no real server does on demand."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any] | bytes | None | Callable[[dict[str, Any]], Any]

OK: dict[str, Any] = {"status": "OK", "ticket": 12345}


def error(code: str, text: str = "Because.", retry: bool = False) -> dict[str, Any]:
    fields = {"email_invalid": "email", "recipient_refused": "email"}
    field = "message" if code.startswith("message_") else fields.get(code)
    return {"status": "ERROR", "retry": retry, "errors": [{"code": code, "field": field, "text": text}]}


def silence(_request: dict[str, Any]) -> None:
    """An answer that never comes."""
    threading.Event().wait(120)


class FakeServer:
    """Answers by the next of `answers`, the last one for ever: a reply object, raw bytes, or None to hang up.

    A callable is given the request and returns one of these. `requests` are what has come, in order.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [OK]
        self.requests: list[dict[str, Any]] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as stream:
            while len(header := stream.read(4)) == 4 and header < b"\0\x10\0\0":  # not TLS, for one
                request = json.loads(stream.read(int.from_bytes(header, "big")))
                self.requests.append(request)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if callable(answer):
                    answer = answer(request)
                if answer is None:
                    return
                payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                peer.sendall(len(payload).to_bytes(4, "big") + payload)
