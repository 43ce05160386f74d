"""The trials that a search is expected to make, before it makes any: by family, with what their models cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunelab.errors import ModelError, SpaceError
from tunelab.models import check_fit, cost_of, normalise, starts, structure
from tunelab.models.tally import Cost
from tunelab.preprocessing import chain_of
from tunelab.tuning.plan import Plan

SAMPLES = 200
"""Drawn of a space, evenly over its families."""
FEWEST = 20
"""Drawn of each family, however many there are."""
ASKS = 100
"""So many proposals that do not fit in a row give a space up, as its search would."""
UNLIMITED = 100
"""Trials to take a mean of, where their number has no limit."""
_FLOAT = 4
"""Bytes."""

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The trials of one family."""

    family: str
    dimensions: int
    """Those shared with others among them."""
    first: Sequence[tuple[str, Params]]
    """Configurations to try first that a search comes to, by name."""
    drawn: Sequence[Params]
    """Of its space, all of which fit; none where there are only configurations to try first."""
    trials: float
    max_epochs: int

    @property
    def params(self) -> list[Params]:
        """All that is known of it."""
        return [*(params for _, params in self.first), *self.drawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """Params, and what a model of them costs."""

    params: Params
    cost: Cost


def expected(plan: Plan) -> list[Expected]:
    """The trials of a plan by family; families of which nothing fits are left out.

    Args:
        plan: its trials are taken to be :data:`UNLIMITED` where they have no limit.

    Raises:
        SpaceError: nothing of the space fits the data.
    """
    space, total = plan.space, plan.trials or UNLIMITED
    first = [(start.name, params) for start, params in starts(space)][:total]
    if not space.families:
        names = list(dict.fromkeys(str(params["family"]) for _, params in first))
        drawn: dict[str, list[Params]] = {name: [] for name in names}
    else:
        drawn = _drawn(plan)
    found = []
    for name, samples in drawn.items():
        own = [(start, params) for start, params in first if params["family"] == name]
        proposed = (total - len(first)) / len(drawn) if space.families else 0.0
        params = [*(one for _, one in own), *samples]
        found.append(
            Expected(
                family=name,
                dimensions=_dimensions(plan, name),
                first=own,
                drawn=samples,
                trials=len(own) + proposed,
                max_epochs=_max_epochs(plan, params),
            )
        )
    return found


def sized(plan: Plan, params: Sequence[Params]) -> list[Sized]:
    """Params that fit and whose cost can be told without building a model, the cheapest first."""
    found = []
    for one in params:
        try:
            cost = cost_of(one, plan.samples[chain_of(one)])
        except ModelError:  # of a configuration to try first: its trial will say so
            continue
        if cost is not None:
            found.append(Sized(params=one, cost=cost))
    return sorted(found, key=lambda one: (one.cost.multiplications, one.cost.parameters))


def structures(families: Sequence[Expected], *, places: int, trials: int, seed: int) -> Counter[str]:
    """How often a process meets a model of a structure that is new to it, by family: it is compiled then.

    Args:
        families: what trials are drawn from.
        places: processes, which share the trials as they come.
        trials: as many of them as were drawn at most; by then a process has met what it will meet.
        seed: of the order in which they come.
    """
    first = [params for one in families for _, params in one.first]
    pool = [params for one in families for params in one.drawn]
    order = np.random.default_rng(seed).permutation(len(pool))[: max(trials - len(first), 0)]
    dealt = [*first[:trials], *(pool[i] for i in order)]
    met = {(i % places, str(params["family"]), structure(params)) for i, params in enumerate(dealt)}
    return Counter(family for _, family, _ in met)


def checkpoint_bytes(one: Sized) -> int:
    """Bytes of a checkpoint: the model, what its optimizer keeps of it, its best weights, its average over epochs."""
    optimizer = one.params["optimizer"]
    kept = {"sgd": 1}.get(optimizer["kind"], 2)
    copies = 2 + kept + (1 if one.params["averaging"] else 0)
    return one.cost.parameters * _FLOAT * copies


def _drawn(plan: Plan) -> dict[str, list[Params]]:
    space = plan.space
    rng = np.random.default_rng(plan.options.seed)
    each = max(FEWEST, SAMPLES // len(space.families))
    found: dict[str, list[Params]] = {}
    why: ModelError | None = None
    for name in space.families:
        fitting: list[Params] = []
        missed = 0
        while len(fitting) < each and missed < ASKS:
            params = normalise(space.sample(rng, name), space.source)
            try:
                check_fit(params, plan.samples[chain_of(params)])
            except ModelError as error:
                why, missed = error, missed + 1
            else:
                fitting.append(params)
                missed = 0
        if fitting:
            found[name] = fitting
    if not found:
        raise SpaceError(f"{space.source}: {ASKS} proposals in a row do not fit the data; the last: {why}")
    return found


def _dimensions(plan: Plan, family: str) -> int:
    space = plan.space
    if family not in space.families:
        return 0
    own = space.families[family]
    shared = [node for key, node in space.shared.children.items() if key not in own.children]
    return len(list(own.dimensions(""))) + sum(len(list(node.dimensions(""))) for node in shared)


def _max_epochs(plan: Plan, params: Sequence[Params]) -> int:
    """The mean, as shard after shard a training is over with its shards."""
    shards = len(np.unique(plan.data.part("train").shards))
    most = [min(plan.max_epochs, shards) if one["protocol"] == "incremental" else plan.max_epochs for one in params]
    return max(round(sum(most) / len(most)), 1)
