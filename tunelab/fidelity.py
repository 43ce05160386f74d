"""What a space says of fidelity: by what trials are made cheap before the best of them are trained in full.

A trial's own fidelity is a mapping of one key: ``{"data": 0.1}`` is trained on a tenth of the training scans,
``{"decimation": 4}`` on every fourth sample, and the empty mapping in full. How the scans are chosen, or the samples
thinned, is not here but in :mod:`tunelab.data.shares` and :mod:`tunelab.preprocessing`; who goes on from one step to
the next, in :mod:`tunelab.ladder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

At = Mapping[str, float]
"""The fidelity of a trial; empty: full."""
FULL: At = {}


class Fidelity(BaseModel):
    """What trials are compared by before they are trained in full: ``epochs``, or steps of one kind."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: tuple[Annotated[float, Field(strict=True, gt=0, lt=1)], ...] = ()
    """Shares of the training scans, ascending, on which a configuration is trained before all of them."""
    decimation: tuple[Annotated[int, Field(strict=True, ge=2)], ...] = ()
    """Factors, descending, by which samples are thinned after preprocessing, before all of them are used."""

    @model_validator(mode="before")
    @classmethod
    def _epochs(cls, raw: Any) -> Any:
        if raw == "epochs":
            return {}
        if not isinstance(raw, Mapping | cls):
            raise ValueError("is epochs, or steps such as {data: [0.1, 0.3]} or {decimation: [4, 2]}")
        return raw

    @model_validator(mode="after")
    def _one_kind(self) -> Fidelity:
        for kind in sorted(self.model_fields_set):
            if not getattr(self, kind):
                raise ValueError(f"{kind} names no step; write one, or fidelity: epochs")
        if self.data and self.decimation:
            raise ValueError("data and decimation both stand there, and trials are compared by one of them; keep one")
        if not all(one < other for one, other in pairwise(self.data)):
            raise ValueError(f"data: {list(self.data)} do not ascend; a step has more of the data than the one before")
        if not all(one > other for one, other in pairwise(self.decimation)):
            raise ValueError(
                f"decimation: {list(self.decimation)} do not descend; a step thins less than the one before"
            )
        return self

    @property
    def steps(self) -> list[At]:
        """The fidelities below the full one, the lowest first; none where trials are compared over epochs."""
        return [*({"data": share} for share in self.data), *({"decimation": factor} for factor in self.decimation)]

    def check_alone(self, rules: Set[str], *, searched: bool) -> None:
        """Whether nothing beside the steps in a space compares trials too, and there are trials to compare.

        Args:
            rules: keys of early stopping that the space sets.
            searched: whether any family is.

        Raises:
            ValueError: names the key and the remedy.
        """
        if not self.steps:
            return
        if not searched:
            raise ValueError(
                "fidelity: no family is searched, and configurations to try first are trained in full; leave it out"
            )
        for key in sorted(rules - {"reduction"}):
            raise ValueError(
                f"early_stopping.{key}: compares trials over epochs, and fidelity by steps of "
                f"{'data' if self.data else 'decimation'}, where reduction alone counts; leave one of them out"
            )

    @property
    def first(self) -> At:
        """That of a new configuration."""
        return next(iter(self.steps), FULL)

    def number(self, at: At) -> int | None:
        """The place of a fidelity among the steps, from 0; the full one is behind them. None: it is none of them."""
        every = [*self.steps, FULL]
        return every.index(dict(at)) if dict(at) in every else None

    def above(self, number: int) -> At:
        """The fidelity at a place, as :meth:`number` counts."""
        return [*self.steps, FULL][number]


def checked(raw: Any) -> At:
    """A trial's fidelity as a journal holds it.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(raw, Mapping) or len(raw) > 1:
        raise ValueError(f"{raw!r:.60} is no fidelity")
    Fidelity.model_validate({kind: [value] for kind, value in raw.items()})
    return dict(raw)


def lessened(at: At) -> float:
    """How many times less a trial was given than one in full, at which it is 1: trials rank by this first."""
    for kind, value in at.items():
        return 1 / value if kind == "data" else value
    return 1.0


def words(at: At) -> str:
    """``at 10 % of the data``, ``at 1/4 of the samples``; empty: in full."""
    for kind, value in at.items():
        return f"at {100 * value:g} % of the data" if kind == "data" else f"at 1/{value:g} of the samples"
    return ""
