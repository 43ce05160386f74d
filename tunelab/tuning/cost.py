"""What the machines of a search cost an hour: which of them are there, times what each costs.

Ray knows the node type of each machine, the side that handed the search over knows the prices
(:data:`~tunelab.spending.PRICES`). The journal is told whenever the sum changes, and
:class:`~tunelab.spending.Spending` adds it up. Machines that boot, and are not yet Ray's, are not seen.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from tunelab.journal import Journal

LOOK_SECONDS = 5.0
"""Between two looks at the machines."""
_NODE_TYPE = "ray.io/node-group"
"""Label of a machine, as Ray's launcher sets it: its node type of the cluster file."""


class Meter:
    """Looks at the machines that are there, and writes into the journal what they cost an hour.

    Args:
        journal: of the run, in its newest session.
        prices: node type -> US dollars an hour.
        machines: how many of each node type are there; None: as Ray knows.
    """

    def __init__(
        self, journal: Journal, prices: Mapping[str, float], machines: Callable[[], Mapping[str, int]] | None = None
    ) -> None:
        self._journal = journal
        self._prices = prices
        self._machines = machines or machines_there
        self._told: Mapping[str, int] | None = None
        self._looked = float("-inf")

    def look(self) -> None:
        """Look at the machines, unless that was done a moment ago."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        there = dict(self._machines())
        if there != self._told:
            self._told = there
            self._journal.append("machines", there=there, dollars=rate(there, self._prices))


def rate(there: Mapping[str, int], prices: Mapping[str, float]) -> float:
    """US dollars an hour. Machines of a type without a price count as those of the dearest.

    Args:
        there: node type -> machines.
        prices: node type -> US dollars an hour of one.
    """
    most = max(prices.values())
    return sum(count * prices.get(kind, most) for kind, count in there.items())


def machines_there() -> dict[str, int]:
    """Node type -> machines that Ray has now; those of which it knows no type have an empty one."""
    import ray

    kinds = (str(node.get("Labels", {}).get(_NODE_TYPE, "")) for node in ray.nodes() if node["Alive"])
    return dict(sorted(Counter(kinds).items()))
