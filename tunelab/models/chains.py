"""The chains of preprocessing that the dimensions of one family come to: finite choices only.

What a chain may say is in :mod:`tunelab.preprocessing`; how a space is walked otherwise, in :mod:`tunelab.domains`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from tunelab.domains import Choice, Domain, Node
from tunelab.errors import SpaceError
from tunelab.faults import explain
from tunelab.models.family import Section
from tunelab.preprocessing import Preprocessing
from tunelab.space import Space

MOST_CHAINS = 64
"""Of a space; each is computed and kept on every node."""


class _Chain(Section):
    """What a chain is checked in, so that a message names the key."""

    preprocessing: Preprocessing


def chains_of(space: Space, family: str) -> list[Preprocessing]:
    """Every chain that a family's dimensions, its own or shared ones, come to; equal ones may stand twice.

    Raises:
        SpaceError: a dimension that is no choice, a chain that is none, or more than :data:`MOST_CHAINS`; names the
            file, the key and the remedy.
    """
    own = space.families[family].children
    place = f"{space.source}: {f'families.{family}' if 'preprocessing' in own else 'shared'}"
    node = {**space.shared.children, **own}.get("preprocessing")
    if node is None:
        return [Preprocessing()]
    counts = []
    for key, domain in node.dimensions("preprocessing"):
        if not isinstance(domain, Choice):
            raise SpaceError(
                f"{place}.{key}: {domain} has no end of chains, each of which is computed once and kept; write "
                "choice: [...]"
            )
        counts.append(len(domain.options))
    if (product := math.prod(counts)) > MOST_CHAINS:
        raise SpaceError(
            f"{place}.preprocessing: {' x '.join(map(str, counts))} = {product:,} chains are more than {MOST_CHAINS}; "
            "offer fewer choices, or whole mappings in one choice"
        )
    try:
        return [_Chain.model_validate({"preprocessing": value}).preprocessing for value in _every(node)]
    except ValidationError as error:
        raise SpaceError(f"{place}.{explain(error, _Chain)}") from None


def _every(node: Node) -> Iterator[Any]:
    """All that a node of choices can build, the last dimension turning fastest."""
    turn: list[int] = []
    while True:
        turn, made, counts = _build(node, turn)
        yield made
        while turn and turn[-1] + 1 == counts[len(turn) - 1]:
            turn.pop()
        if not turn:
            return
        turn[-1] += 1


def _build(node: Node, turn: list[int]) -> tuple[list[int], Any, list[int]]:
    """Which option each dimension took, the value, and how many options each has; first options beyond ``turn``."""
    taken: list[int] = []
    counts: list[int] = []

    def ask(_: str, domain: Domain) -> Any:
        options = domain.corners()
        taken.append(turn[len(taken)] if len(taken) < len(turn) else 0)
        counts.append(len(options))
        return options[taken[-1]]

    made = node.propose("preprocessing", ask, {})
    return taken, made, counts
