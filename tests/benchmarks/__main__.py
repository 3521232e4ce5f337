"""`python -m tests.benchmarks [--quick] [NAME …]`: run the comparisons and print what they found."""

import argparse
import importlib
import sys

from tests.benchmarks import machine

# Name: the module whose `run(quick)` prints the comparison, and what it compares.
COMPARISONS = {
    "server": ("tests.benchmarks.server", "a ticket from request to mail server, at 1, 16 and 64 clients"),
    "network": ("tests.benchmarks.network", "the same over a network of 20 ms a round trip, and over TLS"),
    "collector": ("tests.benchmarks.collector", "a mailbox read into records; a pass without new mail"),
    "reading": ("tests.benchmarks.reading", "a mail read, beside the standard library's parser"),
    "charsets": ("tests.benchmarks.charsets", "how often an undeclared Cyrillic charset is told right"),
}


def main(argv: list[str]) -> int:
    listing = "\n".join(f"  {name:12}{what}" for name, (_, what) in COMPARISONS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, epilog=f"comparisons:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, to see that it works")
    parser.add_argument("names", metavar="NAME", nargs="*", help="which comparisons (default: all)")
    flags = parser.parse_args(argv)
    unknown = [name for name in flags.names if name not in COMPARISONS]
    if unknown:
        parser.error(f"no such comparison: {', '.join(unknown)} (there are {', '.join(COMPARISONS)})")
    print(machine.facts(), flush=True)
    for name in flags.names or COMPARISONS:
        importlib.import_module(COMPARISONS[name][0]).run(flags.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
