"""Watches the administrator's mailbox and sorts its mail into success_request.log and error_request.log."""

import sys

from mailer import environment, history, launch, mailroom
from mailer.config import collector_settings, logs

_LATEST = object()  # for --show without a ticket


def main(argv: list[str]) -> int:
    parser = launch.Parser("collector.py", description=__doc__, epilog="example: collector.py --once")
    parser.add_argument("--env", metavar="FILE", help="the settings (default: .env beside this script)")
    parser.add_argument("--once", action="store_true", help="make one pass over the new mail, and end")
    parser.add_argument("--check", action="store_true", help="prove the settings without changing anything, and end")
    parser.add_argument("--read", nargs="+", metavar="FILE", help="print the record of each raw mail file, and end")
    parser.add_argument("--show", nargs="?", type=ticket, const=_LATEST, metavar="TICKET",
                        help="show the conversation of a ticket, or the latest tickets, and end")
    parser.add_argument("--verbose", action="store_true", help="log more")
    flags = parser.parse_args(argv)

    def run() -> int:
        launch.start_logging(flags.verbose)
        if flags.read:
            return mailroom.read_files(flags.read)
        values = environment.values(flags.env, {}, optional=flags.show is not None)
        if flags.show is not None:
            which = None if flags.show is _LATEST else flags.show
            return history.show(*logs(values, environment.BASE), which, sys.stdout)
        settings = environment.settings(collector_settings, values)
        if flags.check:
            return mailroom.check(settings)
        return mailroom.collect(settings, launch.stop_on_signals(), once=flags.once)

    return launch.guard(run)


def ticket(text: str) -> int:
    """A ticket's number, with or without its #; argparse calls what is none an invalid ticket."""
    number = text.removeprefix("#")
    if not number.isdecimal():
        raise ValueError
    return int(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
