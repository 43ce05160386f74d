"""What a cluster costs an hour. Typical prices from a small table with its date, no quotes; a user's own go before.

Machines alone: disks, addresses, traffic and what lies in the bucket are extra, and small beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunelab.cluster.file import ClusterFile
from tunelab.cluster.findings import Notes
from tunelab.cluster.nodes import is_spot
from tunelab.errors import UsageError

PRICES_DATE = "2025-07"
"""Of the table."""
PRICES_OF = ("us-east-1", "us-west-2")
"""Regions whose list prices these are; the same in both."""

_STEPS: dict[str, float] = {"large": 0.5, "xlarge": 1, "2xlarge": 2, "4xlarge": 4, "8xlarge": 8}
_LINEAR = {"m5": 0.192, "m6i": 0.192, "m7i": 0.2016, "c5": 0.17, "t3": 0.1664}
"""US dollars for an xlarge on demand; other sizes in proportion."""
_SPOT_SHARE = 0.4
"""Of the price on demand, what spot typically is for machines without GPUs."""

_GPU = {
    "g4dn.xlarge": (0.526, 0.16),
    "g4dn.2xlarge": (0.752, 0.26),
    "g4dn.4xlarge": (1.204, 0.45),
    "g4dn.8xlarge": (2.176, 0.8),
    "g4dn.12xlarge": (3.912, 1.4),
    "g5.xlarge": (1.006, 0.4),
    "g5.2xlarge": (1.212, 0.5),
    "g5.4xlarge": (1.624, 0.65),
    "g5.12xlarge": (5.672, 2.3),
    "g6.xlarge": (0.8048, 0.32),
    "g6.2xlarge": (0.9776, 0.4),
    "g6.12xlarge": (4.6016, 1.9),
    "p3.2xlarge": (3.06, 1.0),
    "p4d.24xlarge": (21.96, 9.0),
    "p5.48xlarge": (55.04, 20.0),
}
"""US dollars an hour: list price on demand, and what spot typically is."""
_CPU_SIZES: dict[str, dict[str, float]] = {
    "t3": {"nano": 1 / 32, "micro": 1 / 16, "small": 1 / 8, "medium": 1 / 4},
    "c5": {"9xlarge": 9, "18xlarge": 18},
}


def table() -> dict[str, tuple[float, float]]:
    """Instance type -> US dollars an hour on demand, and typically on spot."""
    found = dict(_GPU)
    for family, dollars in _LINEAR.items():
        sizes = {name: step for name, step in _STEPS.items() if family in ("m5", "m6i", "m7i") or step <= 4}
        if family == "t3":
            sizes.pop("4xlarge")  # there is none
        for size, step in {**sizes, **_CPU_SIZES.get(family, {})}.items():
            found[f"{family}.{size}"] = (round(dollars * step, 4), round(dollars * step * _SPOT_SHARE, 4))
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class NodePrice:
    """What the machines of one node type cost."""

    name: str
    """Of the node type."""
    kind: str
    """Instance type, such as ``g4dn.xlarge``."""
    spot: bool
    """Whether they may be taken away at any time."""
    least: int
    """Machines that always run."""
    most: int
    """Machines at once."""
    dollars: float | None
    """US dollars an hour for one; None where nothing is known."""
    given: bool
    """Whether the price is the user's."""

    def text(self) -> str:
        """``g4dn.xlarge spot 0.16``."""
        cost = "price unknown" if self.dollars is None else f"{self.dollars:.2f}"
        return f"{self.kind or 'machine'}{' spot' if self.spot else ''} {cost}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterPrice:
    """What a cluster costs an hour, in US dollars; machines alone."""

    head: NodePrice
    """The head."""
    workers: tuple[NodePrice, ...]
    """The worker types that may run at all."""
    max_workers: int
    """Workers at once, of all types."""
    region: str
    """Where they run."""

    @property
    def low(self) -> float | None:
        """With no trial waiting: the head, and workers that always run."""
        costs = [(node.dollars, node.least) for node in (self.head, *self.workers) if node.least]
        return math.fsum(cost * count for cost, count in costs if cost is not None) if _all(costs) else None

    @property
    def high(self) -> float | None:
        """With as many workers as there may be, of the dearest types."""
        nodes = [node for node in self.workers if node.most]
        if self.head.dollars is None or any(node.dollars is None for node in nodes):
            return None
        left, total = self.max_workers, self.head.dollars
        for node in sorted(nodes, key=lambda node: -(node.dollars or 0)):
            count = min(node.most, left)
            total += count * (node.dollars or 0)
            left -= count
        return total

    @property
    def unknown(self) -> tuple[str, ...]:
        """Instance types without a price."""
        nodes = (self.head, *self.workers)
        return tuple(dict.fromkeys(node.kind for node in nodes if node.dollars is None))

    def estimate(self, hours: float) -> tuple[float, float] | None:
        """US dollars for a time, at least and at most; None where a price is unknown.

        Args:
            hours: how long the cluster is up.
        """
        return None if self.low is None or self.high is None else (self.low * hours, self.high * hours)

    def line(self) -> str:
        """One line to show before a search starts."""
        groups = [f"up to {node.most} x {node.text()}" for node in self.workers]
        several = f", {self.max_workers} at once" if len(groups) > 1 else ""
        said = f"head {self.head.text()}{''.join(f', {group}' for group in groups)}{several}"
        if self.low is None or self.high is None:
            known = "" if self.low is None else f"{self.low:.2f} US dollars an hour and more; "
            fields = ", ".join(f"{kind or 'INSTANCE_TYPE'}: dollars an hour" for kind in self.unknown)
            return f"{said} ({self._source()}): {known}add provider.prices: {{{fields}}} to the cluster file"
        return f"{said} ({self._source()}): {self.low:.2f} to {self.high:.2f} US dollars an hour"

    def _source(self) -> str:
        nodes = [node for node in (self.head, *self.workers) if node.dollars is not None]
        parts = ["prices of provider.prices"] if any(node.given for node in nodes) else []
        if any(not node.given for node in nodes):
            elsewhere = "" if self.region in PRICES_OF else f" in us-west-2, {self.region or 'elsewhere'} differs"
            parts.append(f"prices of {PRICES_DATE}{elsewhere}, typical, not a quote")
        return "; ".join(parts) or "no prices known"


def price(file: ClusterFile) -> ClusterPrice | None:
    """What the machines of a cluster file cost; None where they are one's own.

    Args:
        file: the cluster file.

    Raises:
        UsageError: ``provider.prices`` holds what is no price.
    """
    for key, value in file.mapping("provider", "prices").items():
        if (fault := _fault(value)) is not None:
            line = file.line("provider", "prices", key)
            raise UsageError(f"{file.path}: line {line}: provider.prices.{key}: {fault}; {_REMEDY}")
    if file.provider == "local" or not file.node_types:
        return None
    head = _node(file, file.head)
    workers = [_node(file, name) for name in file.workers if file.most_of(name)]
    return ClusterPrice(head=head, workers=tuple(workers), max_workers=file.max_workers, region=file.region)


def check_prices(notes: Notes) -> None:
    """Note prices of the user's that are none.

    Args:
        notes: of the file.
    """
    at = ("provider", "prices")
    given = notes.file.value(*at)
    if given is not None and not isinstance(given, Mapping):
        notes.error(at, f"{given!r:.60} is no mapping of instance types to prices", _REMEDY)
    for key, value in notes.file.mapping(*at).items():
        if (fault := _fault(value)) is not None:
            notes.error((*at, key), fault, _REMEDY)


_REMEDY = "write g4dn.xlarge: 0.526, or g4dn.xlarge: {on_demand: 0.526, spot: 0.16}"
_MARKETS = ("on_demand", "spot")


def _fault(value: Any) -> str | None:
    if isinstance(value, Mapping):
        odd = [key for key in value if key not in _MARKETS]
        if odd or not value:
            return f"{odd[0]!r} is none of on_demand and spot" if odd else "holds no price"
        return next((fault for one in value.values() if (fault := _fault_of_number(one))), None)
    return _fault_of_number(value)


def _fault_of_number(value: Any) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return None if good else f"{value!r:.60} is no price in US dollars an hour"


def _node(file: ClusterFile, name: str) -> NodePrice:
    node_type = file.node_types.get(name, {})
    kind = str(file.value("available_node_types", name, "node_config", "InstanceType") or "")
    spot = is_spot(node_type)
    market = "spot" if spot else "on_demand"
    own = file.mapping("provider", "prices").get(kind)
    mine = own.get(market) if isinstance(own, Mapping) else own
    known = table().get(kind)
    dollars = float(mine) if mine is not None else known[spot] if known and file.provider == "aws" else None
    return NodePrice(
        name=name,
        kind=kind,
        spot=spot,
        least=file.least_of(name),
        most=file.most_of(name),
        dollars=dollars,
        given=mine is not None,
    )


def _all(costs: list[tuple[float | None, int]]) -> bool:
    return all(cost is not None for cost, _ in costs)
