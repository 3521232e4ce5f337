"""Work in steps: a generator that yields WAIT where it has asked something and would have to wait for the answer.

Its caller may take steps of other work meanwhile, so that one thread does the work of many; or take all steps in a row,
as if there were none. A step may wait nevertheless: that is not wrong, only slower. The generator yields REST where
nothing is due, and its next step is in no hurry.
"""

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

WAIT, REST = False, True
Steps = Generator[bool, None, _T]


def finish(steps: Steps[_T]) -> _T:
    """Take all the steps that are left; returns the result of the work."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
