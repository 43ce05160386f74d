"""Which configurations go on from one step of fidelity to the next: the best of each, and in the end the best one.

A configuration is trained at the lowest step first. The best 1/reduction of those that came to a step go on to the
next one, where they are trained anew and compared with each other alone; values of two steps are never compared.
Nobody waits for a step to be complete, as in asynchronous successive halving (Li et al. 2020): who is among the best of
those that have come so far may go on. Equal values: who came earlier. One without a value (NaN) never goes on.

What is decided depends on what was told, in its order, and on nothing else, so a journal brings it back. No Ray, no
clock and no chance in here.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

Place = tuple[bool, float, int, str]
"""Of a configuration at a step: whether it is on the floor, minus its value, the number of its arrival, its name; the
best one is the smallest."""


@dataclass(slots=True)
class _Step:
    """Who began at a step, and who came to what."""

    begun: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    failed: int = 0
    """How many came to nothing."""
    order: list[Place] = field(default_factory=list)
    """Of those that came to something, the best one first."""


class Ladder:
    """The steps of one search.

    Args:
        steps: how many there are below full fidelity; with none nobody ever goes on.
        reduction: the best 1/reduction of a step go on.
    """

    def __init__(self, steps: int, reduction: float) -> None:
        self._steps = [_Step() for _ in range(steps + 1)]  # the last one is full fidelity
        self._reduction = reduction

    def begun(self, one: str, step: int) -> None:
        """A configuration is being trained at a step.

        Args:
            one: which.
            step: from 0; the number of steps is full fidelity.
        """
        self._steps[step].begun.add(one)

    def told(self, one: str, step: int, value: float, *, floored: bool = False) -> None:
        """What a configuration came to at a step; what is told of it there a second time passes by.

        Args:
            one: which.
            step: as of :meth:`begun`.
            value: more is better; NaN: it came to nothing.
            floored: whether that is no better than having learned nothing; such are worse than all others.
        """
        at = self._steps[step]
        at.begun.add(one)
        if one in at.told:
            return
        at.told.add(one)
        if math.isnan(value):
            at.failed += 1
        else:
            insort(at.order, (floored, -value, len(at.told), one))

    def promotable(self, *, last: bool = False) -> tuple[str, int] | None:
        """The configuration that may go on and has come furthest, and the step it goes on at; the best one of those.

        Args:
            last: whether no new configurations will come. Then, once all others have gone on, the best one of a step
                does even where so few came there that it is not among the best 1/reduction, if nobody is on the way to
                that step any more; and the next best ones in place of those that came to nothing at a step above. So
                one at least comes to full fidelity, if any can.
        """
        for step in reversed(range(len(self._steps) - 1)):
            if (one := self._next(step, int(len(self._steps[step].told) / self._reduction))) is not None:
                return one, step + 1
        for step, at in enumerate(self._steps[:-1] if last else ()):
            if at.begun - at.told:
                return None
            if (one := self._next(step, 1 + sum(above.failed for above in self._steps[step + 1 :]))) is not None:
                return one, step + 1
        return None

    def _next(self, step: int, best: int) -> str | None:
        """Of so many of the best of a step the first one that has not gone on."""
        above = self._steps[step + 1]
        return next((one for *_, one in self._steps[step].order[:best] if one not in above.begun), None)
