"""An OAuth 2 provider on loopback for tests: a token endpoint over TLS, and an introspection endpoint for Dovecot."""

import json
import secrets
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class Provider:
    """Gives out access tokens for one refresh token, and tells whose they are.

    refused: makes the token endpoint answer with this error instead. dead: how many of the next tokens given out are
    not valid, as if they had been revoked at once.
    """

    REFRESH_TOKEN = "refresh-token-of-the-tests"
    CLIENT = ("the-client", "the-client-secret")

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        self.address = address
        self.valid: set[str] = set()
        self.given: list[str] = []
        self.asked_about: list[str] = []
        self.refused: tuple[str, str] | None = None
        self.dead = 0
        self._lock = threading.Lock()
        self._token = _Endpoint(self._give)
        self._token.socket = context.wrap_socket(self._token.socket, server_side=True)
        self._introspection = _Endpoint(self._introspect)
        self.token_url = f"https://127.0.0.1:{self._token.server_port}/token"
        self.introspection_url = f"http://127.0.0.1:{self._introspection.server_port}/introspect"

    def __enter__(self) -> "Provider":
        for endpoint in (self._token, self._introspection):
            threading.Thread(target=endpoint.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for endpoint in (self._token, self._introspection):
            endpoint.shutdown()
            endpoint.server_close()

    def new_token(self, length: int = 0) -> str:
        """A valid access token, of so many characters if that is more than usual."""
        with self._lock:
            token = f"access-token-{secrets.token_hex(8)}".ljust(length, "x")
            self.given.append(token)
            if self.dead:
                self.dead -= 1
            else:
                self.valid.add(token)
        return token

    def _give(self, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        """The refresh grant (RFC 6749, section 6)."""
        if self.refused:
            return 400, {"error": self.refused[0], "error_description": self.refused[1]}
        expected = {
            "grant_type": "refresh_token", "refresh_token": self.REFRESH_TOKEN,
            "client_id": self.CLIENT[0], "client_secret": self.CLIENT[1],
        }
        if form != expected:
            return 400, {"error": "invalid_request", "error_description": f"unexpected: {sorted(form)}"}
        return 200, {"access_token": self.new_token(), "token_type": "Bearer", "expires_in": 3600}

    def _introspect(self, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        """Token introspection (RFC 7662)."""
        self.asked_about.append(form.get("token", ""))
        if form.get("token") in self.valid:
            return 200, {"active": True, "username": self.address}
        return 200, {"active": False}


class _Endpoint(ThreadingHTTPServer):
    """Answers every POST of a form with the JSON that `answer` makes of it."""

    daemon_threads = True

    def __init__(self, answer: Callable[[dict[str, str]], tuple[int, dict[str, object]]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                code, data = answer({name: values[0] for name, values in fields.items()})
                body = json.dumps(data).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
