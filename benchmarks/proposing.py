"""What a proposal costs after many trials: with all of them in the model's history, and with the history bounded.

    python -m benchmarks.proposing --trials 200 1000 3000 10000

Trials of a shipped space with made-up values; both sides are asked in turn for the same proposals, and the median of
each is printed. Whether a bound changes what is found is for :mod:`benchmarks.policy` to say (``tunelab_unbounded``).
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import numpy as np

from tunelab.models import chains, normalise, open_space
from tunelab.ranking import Epoch, Trial
from tunelab.space import Space, shipped
from tunelab.tuning.proposals import HISTORY, Proposals, key_of
from tunelab.tuning.searcher import fitting


def trials_of(space: Space, count: int) -> list[Trial]:
    """Trials as a search with early stopping leaves them: one in nine finished, the others stopped on the way."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(1, count + 1):
        params = normalise(space.sample(rng), space.source)
        epochs = int(rng.choice([3, 9, 27], p=[2 / 3, 2 / 9, 1 / 9]))
        told = [Epoch(epoch=epochs, seconds=1.0, metrics={"tune_average_precision": float(rng.random())})]
        status = "finished" if epochs == 27 else "stopped"
        one = {"trial": f"{number:04d}", "name": "", "family": params["family"], "params": params, "point": {}}
        made.append(Trial(**one, status=status, epochs=told))
    return made


def main() -> None:
    """Print seconds a proposal, a line for each number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="families.yaml", help="that comes with tunelab (default: %(default)s)")
    parser.add_argument("--trials", type=int, nargs="+", default=[200, 1000, 3000, 10000])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    space = open_space(shipped(args.space))
    fit = fitting(space, dict.fromkeys(chains(space), 1700))
    known = trials_of(space, max(args.trials))
    sides = [
        Proposals(space, 0, lambda trial: [trial.epochs[-1]["tune_average_precision"]], lambda trial: False, history)
        for history in (HISTORY, 10**9)
    ]
    entered = 0
    print(f"{'trials':>8}{'bounded':>12}{'unbounded':>12}{'ratio':>8}   seconds a proposal, {space.name}")
    for count in args.trials:
        tried = {key_of(trial.params) for trial in known[:count]}
        for trial in known[entered:count]:
            for proposals in sides:
                proposals.enter(trial)
        entered = count
        took: list[list[float]] = [[], []]
        for repeat in range(args.repeats):
            for proposals, seconds in zip(sides, took, strict=True):
                begun = time.perf_counter()
                proposals.propose(f"{count + 1 + repeat}", fit, lambda params, tried=tried: _in(params, tried))
                seconds.append(time.perf_counter() - begun)
        bounded, whole = map(median, took)
        print(f"{count:>8}{bounded:>12.3f}{whole:>12.3f}{whole / bounded:>8.1f}", flush=True)


def _in(params: dict[str, Any], tried: set[str]) -> bool:
    return key_of(params) in tried


if __name__ == "__main__":
    main()
