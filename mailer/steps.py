"""Work in steps: a generator that stops, with `yield WAIT`, where it has asked something and would wait for the answer.

Whoever runs it may take the steps of other work meanwhile, and so have one thread do the work of many; or take one step
after the other, as if there were no steps. A step may wait all the same; nothing is wrong then, only slower. With
`yield REST` it says that nothing is due, and that there is no hurry with its next step.
"""

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

WAIT, REST = False, True
Steps = Generator[bool, None, _T]


def finish(steps: Steps[_T]) -> _T:
    """Take all the steps that are left; what the work comes to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
