"""Rounds in turns, and what they gave as a table and a bar chart."""

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

Figures = dict[str, float]  # what one round of one contestant gave, by column
Measure = Callable[[], Figures]

_BAR = 48  # characters of the longest bar


def in_turns(contestants: Mapping[str, Measure], rounds: int) -> dict[str, list[Figures]]:
    """Each contestant once a round, in the same order every round."""
    results: dict[str, list[Figures]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, measure in contestants.items():
            if sys.stderr.isatty():
                print(f"\r\x1b[K  round {number + 1} of {rounds}: {name}", end="", file=sys.stderr, flush=True)
            results[name].append(measure())
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return results


def median(rounds: Sequence[Figures], column: str) -> float:
    return statistics.median(figures[column] for figures in rounds)


def show(title: str, results: Mapping[str, Sequence[Figures]], *, base: str | None = None) -> None:
    """A table of medians (the first column with minimum and maximum) and a bar chart of the first column.

    `base`: the contestant that the others are compared with in a last column, "× base".
    """
    columns = list(next(iter(results.values()))[0])
    base = base if base in results else None
    head = ["", columns[0], "min – max", *columns[1:], *([f"× {base}"] if base else [])]
    rows = [head]
    for name, rounds in results.items():
        values = [figures[columns[0]] for figures in rounds]
        row = [name, number(median(rounds, columns[0])), f"{number(min(values))} – {number(max(values))}"]
        row += [number(median(rounds, column)) for column in columns[1:]]
        if base:
            row.append(f"{median(rounds, columns[0]) / median(results[base], columns[0]):.1f}")
        rows.append(row)
    print(f"\n{title}\n")
    _table(rows)
    print()
    _bars({name: median(rounds, columns[0]) for name, rounds in results.items()}, columns[0])
    sys.stdout.flush()


def number(value: float) -> str:
    """Three digits that count; a dash for what could not be measured."""
    if math.isnan(value):
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for index, row in enumerate(rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        print("  " + "  ".join(cells).rstrip())
        if index == 0:
            print("  " + "  ".join("-" * width for width in widths))


def _bars(values: Mapping[str, float], unit: str) -> None:
    width = max(map(len, values))
    longest = max(values.values()) or 1.0
    for name, value in values.items():
        bar = "#" * max(1, round(_BAR * value / longest))
        print(f"  {name.ljust(width)} {bar} {number(value)}")
    print(f"  {' ' * width} ({unit})")
