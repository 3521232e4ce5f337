"""Send a message to the helpdesk: ask for an address and a text, or take them from flags or standard input."""

import sys
from pathlib import Path

from mailer import console, tls
from mailer.config import client_settings
from mailer.console import courier
from mailer.environment import BASE, values
from mailer.launch import Parser, guard
from mailer.protocol import Reply, Request
from mailer.settings import spelled
from mailer.transport.exchange import exchange

EXAMPLE = 'example:  client.py --email alice@example.com --message "The printer is on fire"'


def main(argv: list[str] | None = None) -> int:
    """Run the client; returns its exit code."""
    parser = Parser(
        prog="client.py",
        description="Send a message to the helpdesk. Asks for what no flag gives; without a terminal, reads the address"
        " from the first line of standard input and the message from the rest.",
        epilog=EXAMPLE,
    )
    parser.add_argument("--env", metavar="FILE", help="settings file (default: .env beside the scripts)")
    parser.add_argument("--host", help="where Mailer's server is (SERVER_HOST)")
    parser.add_argument("--port", help="its port (SERVER_PORT)")
    parser.add_argument("--email", metavar="ADDRESS", help="your e-mail address")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--message", metavar="TEXT", help="the message")
    text.add_argument("--file", metavar="FILE", type=Path, help="a file that holds the message; - is standard input")
    parser.add_argument("--json", action="store_true", help="print the reply as one line of JSON")
    flags = parser.parse_args(argv)

    def run() -> int:
        place = {"SERVER_HOST": flags.host, "SERVER_PORT": flags.port}
        settings = client_settings(values(flags.env, place, optional=True), BASE)
        context = tls.client_context(settings.tls_ca, "SERVER_TLS_CA") if settings.tls_ca else None

        def send(request: Request) -> Reply:
            request = Request(request.email, request.message, request.id, settings.token)
            return exchange(settings.host, settings.port, request, timeout=settings.timeout, context=context)

        way = courier.Courier(spelled(settings.host, settings.port), settings.timeout, send, tls=context is not None)
        return console.run(way, email=flags.email, message=flags.message, file=flags.file, as_json=flags.json)

    return guard(run)


if __name__ == "__main__":
    sys.exit(main())
