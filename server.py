"""Takes requests from client.py, gives each a ticket, and mails it to the person and to the administrator."""

import sys

from mailer import desk, environment, launch
from mailer.config import server_settings


def main(argv: list[str]) -> int:
    parser = launch.Parser("server.py", description=__doc__, epilog="example: server.py --port 50007 --verbose")
    parser.add_argument("--env", metavar="FILE", help="the settings (default: .env beside this script)")
    parser.add_argument("--host", metavar="H", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", metavar="P", help="the port to listen on; 0 takes any free one (default: 50007)")
    parser.add_argument("--check", action="store_true", help="prove the settings without sending anything, and end")
    parser.add_argument("--verbose", action="store_true", help="log more, whole addresses included")
    flags = parser.parse_args(argv)

    def run() -> int:
        launch.start_logging(flags.verbose)
        values = environment.values(flags.env, {"SERVER_HOST": flags.host, "SERVER_PORT": flags.port})
        settings = environment.settings(server_settings, values)
        return desk.check(settings) if flags.check else desk.serve(settings, launch.stop_on_signals())

    return launch.guard(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
