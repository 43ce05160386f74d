"""What a search would do, and how long it would take: ``tunelab search --dry-run``. No search is begun, no run made.

All that a search does before its first trial is done, with the same errors, but for what leaves a trace: the run's
folder and its lease. Then a few epochs of each family are timed as trials would train them, and the rest is
arithmetic (:mod:`tunelab.forecast`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from rich.console import Console

import tunelab.tuning.run
from tunelab.errors import UsageError
from tunelab.expected import UNLIMITED, Expected, Params, expected, sized, structures
from tunelab.forecast import Limits, Pace, forecast, halved, passing, span
from tunelab.halving import Rules
from tunelab.outlook import DryRun, Timed, of_places, of_plan, of_times
from tunelab.planning import announce
from tunelab.progress import plain, progress_console
from tunelab.search import SearchOptions, planned
from tunelab.spending import HOUR, prices_here
from tunelab.stopping import halving_rules
from tunelab.task import Task
from tunelab.tuning.cluster_session import places, ray_session
from tunelab.tuning.cost import machines_there, rate
from tunelab.tuning.hold import check_new
from tunelab.tuning.plan import Plan

if TYPE_CHECKING:
    from tunelab.tuning.probe import Probed

PROBE_SECONDS = 30.0
CLOSING = 1.0
"""Seconds for the report, when the winner has answered the test split."""
_EPOCHS = 8
"""A probe's training may have so many epochs at least, so that it does not end by itself."""


def plan_search(
    space: Path | str | None = None,
    *,
    probe: float = PROBE_SECONDS,
    console: Console | None = None,
    **given: Unpack[SearchOptions],
) -> DryRun:
    """Say what a search would do and how long it would take, and begin none.

    Args:
        space: as of :func:`tunelab.search.search`.
        probe: seconds in which epochs are timed at most.
        console: where it is said; None: standard output.
        given: as of :func:`tunelab.search.search`.

    Raises:
        TunelabError: as of :func:`tunelab.search.search`; that another process is at the run is not seen.
        UsageError: no time for the probe.
    """
    if not 0 < probe < math.inf:
        raise UsageError(f"--probe: {probe:g} s is no time to train in; write such as 30s")
    console = console or progress_console()
    plan = planned(space, time.monotonic(), console, **given)
    announce(plan, console)
    check_new(plan.folder, plan.options.storage, plan.options.s3)
    families = expected(plan)
    found = _found(plan, families)
    for line in of_plan(found):
        plain(console, line)
    begun = time.monotonic()
    with ray_session(plan.address, debug=plan.debug) as there:
        started = time.monotonic() - begun
        gpus, most = tunelab.tuning.run.agreed(plan, there, console)
        free = _places(plan.cpus, gpus)
        found = replace(found, gpus=gpus, places=min(free, most) if most else free)
        for line in of_places(found):
            plain(console, line)
        if found.places:
            found = _timed(found, started, probe)
    for line in of_times(found, probe):
        plain(console, line)
    return found


def _found(plan: Plan, families: Sequence[Expected]) -> DryRun:
    """What is known before anything is timed."""
    rules = _rules(plan)
    by = passing(rules, sum(f.trials for f in families), sum(len(f.first) for f in families))
    let = [halved(by, f.trials, len(f.first), f.max_epochs) for f in families]
    sizes = sized(plan, [params for family in families for params in family.params])
    return DryRun(
        plan=plan,
        families=[
            Timed(expected=f, params=_median(plan, f), seconds=math.nan, first=math.nan, how="not timed")
            for f in families
        ],
        rungs=rules.rungs(),
        epochs=sum(one.epochs for one in let),
        most_epochs=sum(one.most for one in let),
        smallest=sizes[0] if sizes else None,
        largest=max(sizes, key=lambda one: one.cost.parameters) if sizes else None,
        places=0,
        gpus=0.0,
        forecast=None,
        end=None,
    )


def _rules(plan: Plan) -> Rules:
    """Of early stopping; what other schedulers than halving let through is not foreseen, and counted in full."""
    rules = halving_rules(plan.space.early_stopping, plan.max_epochs)
    return rules if plan.space.early_stopping.scheduler == "halving" else replace(rules, grace=plan.max_epochs)


def _median(plan: Plan, family: Expected) -> Params:
    sizes = sized(plan, family.params)
    return sizes[len(sizes) // 2].params if sizes else family.params[0]


def _places(cpus: float, gpus: float) -> int:
    """Trials that the nodes there are now carry, each on one node."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(places(cpus, gpus, {"CPU": 0.0, "GPU": 0.0, **node}) for node in nodes)


def _timed(found: DryRun, started: float, limit: float) -> DryRun:
    """With times that were measured, and what follows from them."""
    from tunelab.tuning.probe import Probed, probe

    plan = found.plan
    order = sorted(range(len(found.families)), key=lambda i: _cost(found, i))
    tasks = [
        Task(
            trial=f"{number:04d}",
            seed=plan.options.seed,
            params=found.families[i].params,
            data=plan.access,
            max_epochs=max(plan.max_epochs, _EPOCHS),
            patience=max(plan.max_epochs, _EPOCHS),
            cpus=plan.cpus,
            gpus=found.gpus,
            debug=plan.debug,
        )
        for number, i in enumerate(order, start=1)
    ]
    probes = probe(tasks, trainer=tunelab.tuning.run.TRAINER, places=found.places, limit=limit, custom=plan.custom)
    probed = dict(zip(order, probes.probed if probes else [Probed()] * len(order), strict=True))
    families = [_with_times(found.families[i], probed[i]) for i in range(len(found.families))]
    families = [_estimated(found, families, i, probed[i]) for i in range(len(families))]
    found = replace(found, families=families)
    known = [family for family in families if not math.isnan(family.seconds)]
    if probes is None or len(known) < len(families):
        return found
    total = plan.trials or UNLIMITED
    new = structures([f.expected for f in families], places=found.places, trials=total, seed=plan.options.seed)
    ahead = forecast(
        [
            Pace(
                trials=f.expected.trials,
                spared=len(f.expected.first),
                max_epochs=f.expected.max_epochs,
                seconds=f.seconds,
                first=max(f.first - f.seconds, 0.0),
                structures=new[f.expected.family],
            )
            for f in families
        ],
        _rules(plan),
        Limits(
            trials=plan.trials,
            seconds=plan.options.time_budget,
            gpu_hours=plan.options.gpu_hours,
            paid=_paid(plan.options.max_cost),
        ),
        folds=plan.data.n_folds,
        places=found.places,
        gpus=found.gpus,
        before=started + probes.start,
        after=probes.start + CLOSING,  # the winner answers the test split in a process of its own
    )
    return replace(found, forecast=ahead, end=datetime.now() + timedelta(seconds=ahead.seconds))


def _paid(limit: float | None) -> float | None:
    """Seconds that so many dollars last with the machines that are there now, of which trials need one at least."""
    if limit is None:
        return None
    prices = prices_here()
    return limit / max(rate(machines_there(), prices), *prices.values()) * HOUR


def _cost(found: DryRun, i: int) -> float:
    """Multiplications of what is timed; those of one's own families come last."""
    sizes = sized(found.plan, [found.families[i].params])
    return float(sizes[0].cost.multiplications) if sizes else math.inf


def _with_times(family: Timed, one: Probed) -> Timed:
    if not math.isnan(one.seconds):
        return replace(family, seconds=one.seconds, first=one.first, how="")
    if not math.isnan(one.first) and not one.least:
        return replace(family, seconds=one.first, first=one.first, how="its first epoch alone, with its making")
    if one.fault:
        return replace(family, how=one.fault)
    return replace(family, how=f"no epoch ended in {span(one.least)}" if one.least else "there was no time for it")


def _estimated(found: DryRun, families: Sequence[Timed], i: int, one: Probed) -> Timed:
    """A family that was not timed, by that of the others whose model is nearest in its multiplications."""
    mine, known = _cost(found, i), [k for k, one in enumerate(families) if not math.isnan(one.seconds)]
    near = [k for k in known if math.isfinite(_cost(found, k))]
    if i in known or not near or not math.isfinite(mine):
        return families[i]
    by = min(near, key=lambda k: abs(math.log(_cost(found, k) / mine)))
    times = mine / _cost(found, by)
    how = f"{families[i].how}; estimated from {families[by].expected.family} by their multiplications"
    seconds, first = families[by].seconds * times, families[by].first * times
    if math.isnan(one.first):  # what went on when time was up was its first epoch, or none
        first = max(first, one.least)
    else:
        seconds, first = max(seconds, one.least), one.first
    return replace(families[i], seconds=seconds, first=first, how=how)
