"""What a search policy is worth: regret of searches simulated on recorded learning curves.

    python -m benchmarks.policy --curves taskset_rnn.npz --seeds 20 --json policy.json

Each policy searches each task with each seed, in virtual time (:mod:`benchmarks.simulation`); a budget is counted in
full runs, epochs spent over the epochs of one trial. Regret at a budget is the lowest loss seen by then less the
lowest of the task, as a share of ln 2 less the lowest of the task: 0 found the best, 1 is chance. Epochs of trials
that are under way count, both as spent and as seen; NaN is never the lowest.

What is printed and written is the mean over tasks of the mean over seeds, and its standard error with the tasks as
given, no sample of others: the square root of the sum over tasks of (variance over seeds / number of seeds), divided
by the number of tasks. The variance is that of a sample (seeds - 1), and seeds of one task draw differently from those
of another. Tasks that are kept back from every choice made by looking at results stand apart from the others.

The first column of TaskSet's curves is the loss before any training: what compares trials there compares noise, and
``one_epoch_top_k`` chooses by nothing else. ``--skip 1`` leaves it out of all that is counted.

Each finished (policy, task, seed) is a line of a file beside the JSON, named like it with ``.lines`` behind, and one
that is there is not searched again: stop it, and call it again. Lines know curves, arguments and the versions of Ray
and Optuna that they come from, not the code of a policy: after changing that, use another file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from benchmarks.baselines import BASELINES, Kind
from benchmarks.lines import accumulate, lines_of
from benchmarks.searching import Searching
from benchmarks.simulation import Curves, read_curves, regret, setting_of, simulate
from tunelab.files import write_file
from tunelab.sections import EarlyStopping

BUDGETS = (16, 40)
"""In full runs."""
KEPT_BACK = ("patch32_GRU64_avg_bs128", "patch32_IRNN64_relu_last_bs128")
"""Tasks that no policy may be tuned on."""
COMPARED: Mapping[str, Kind] = {"tunelab": Kind(make=Searching), **BASELINES}
"""What is compared unless something else is asked for, by name."""
VARIANTS: Mapping[str, Kind] = {
    "tunelab_stopping": Kind(make=partial(Searching, rules=EarlyStopping(promote=False))),
    "tunelab_random": Kind(make=partial(Searching, sampler="random")),
    "tunelab_unbounded": Kind(make=partial(Searching, history=10**9)),
    "tunelab_history_100": Kind(make=partial(Searching, history=100)),
}
"""tunelab with one part otherwise: trials end in place of waiting, even draws, and what the bound of the sampler's
history does; 40 full runs are about 300 trials, so that a tighter one than that of a search says more."""
POLICIES: Mapping[str, Kind] = {**COMPARED, **VARIANTS}
"""All that can be compared, by name."""

Line = Mapping[str, Any]


def searched(curves: Curves, policy: str, task: str, seed: int, workers: int) -> dict[str, float]:
    """Regret at each budget of one policy on one task; one search for all budgets where the policy knows of none."""
    kind, losses = POLICIES[policy], curves.tasks[task]
    found: dict[str, float] = {}
    for budget in BUDGETS if kind.per_budget else (max(BUDGETS),):
        setting = setting_of(curves, task, seed=seed, workers=workers, budget=budget)
        spent = simulate(losses, kind.make(setting), setting)
        for at in (budget,) if kind.per_budget else BUDGETS:
            found[f"regret_{at}"] = regret(losses, spent, at)
    return found


def summary(lines: Iterable[Line]) -> dict[str, float | None]:
    """Mean regret of some lines of one policy and its standard error at each budget; None for an error of one seed."""
    by_task: dict[str, list[Line]] = {}
    for line in lines:
        by_task.setdefault(line["task"], []).append(line)
    found: dict[str, float | None] = {}
    for budget in BUDGETS:
        values = [[float(line[f"regret_{budget}"]) for line in of_task] for of_task in by_task.values()]
        found[f"regret_{budget}"] = fmean(fmean(of_seeds) for of_seeds in values)
        alone = any(len(of_seeds) < 2 for of_seeds in values)
        squares = sum(variance(of_seeds) / len(of_seeds) for of_seeds in values) if not alone else math.nan
        found[f"se_{budget}"] = None if alone else math.sqrt(squares) / len(values)
    return found


def document(lines: Sequence[Line], made_with: Line, seeds: int) -> dict[str, Any]:
    """What is written: ``results`` over all tasks, ``kept_back`` and ``others`` apart, and each task by itself."""
    policies = list(dict.fromkeys(line["policy"] for line in lines))
    tasks = list(dict.fromkeys(line["task"] for line in lines))

    def over(chosen: Sequence[str]) -> list[dict[str, Any]]:
        of_policy = {p: [one for one in lines if one["policy"] == p and one["task"] in chosen] for p in policies}
        return [{"policy": policy, **summary(of_policy[policy])} for policy in policies] if chosen else []

    return {
        "results": over(tasks),
        "others": over([task for task in tasks if task not in KEPT_BACK]),
        "kept_back": over([task for task in tasks if task in KEPT_BACK]),
        "tasks": [{"task": task, "kept_back": task in KEPT_BACK, **one} for task in tasks for one in over([task])],
        "seeds": seeds,
        **made_with,
    }


def show(document: Mapping[str, Any]) -> None:
    """The table."""
    tasks = list(dict.fromkeys(one["task"] for one in document["tasks"]))
    kept = [task for task in tasks if task in KEPT_BACK]
    for part, names in (("others", [task for task in tasks if task not in kept]), ("kept_back", kept)):
        if names:
            title = "kept back" if part == "kept_back" else "tasks"
            print(f"{title}: {', '.join(names)}; {document['seeds']} seeds")
            print(f"{'policy':20}" + "".join(f"{f'regret at {budget}':>18}" for budget in BUDGETS))
            for one in document[part]:
                print(f"{one['policy']:20}" + "".join(f"{_cell(one, budget):>18}" for budget in BUDGETS))


def _cell(one: Line, budget: int) -> str:
    error = one[f"se_{budget}"]
    return f"{one[f'regret_{budget}']:.3f}" + ("" if error is None else f" ± {error:.3f}")


def check_lines(file: Path, made_with: Line) -> None:
    """Refuse to go on with lines that come from something else."""
    for line in lines_of(file):
        for name, value in made_with.items():
            if line.get(name) != value:
                say = f"{name}: made with {line.get(name)}, not with {value}; use another --json, or remove the file"
                raise SystemExit(f"{file}: {say}")


def _names(given: Sequence[str] | None, known: Iterable[str], option: str) -> list[str]:
    """The names asked for, in the order of those there are."""
    known = list(known)
    if unknown := [name for name in given or () if name not in known]:
        raise SystemExit(f"{option}: {', '.join(unknown)}: unknown; there are {', '.join(known)}")
    return [name for name in known if given is None or name in given]


def main(argv: Sequence[str] | None = None) -> None:
    """Search what is missing, then write the JSON and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, required=True, metavar="FILE", help="npz of recorded learning curves")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="results")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each task (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="trials at the same time (default: %(default)s)")
    parser.add_argument("--skip", type=int, default=0, help="epochs left out in front of curves (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", metavar="NAME", help="(default: all of the file)")
    parser.add_argument(
        "--policies", nargs="+", metavar="NAME", help=f"of {', '.join(POLICIES)} (default: {', '.join(COMPARED)})"
    )
    args = parser.parse_args(argv)
    for option, least in (("seeds", 1), ("workers", 1), ("skip", 0)):
        if (value := getattr(args, option)) < least:
            parser.error(f"--{option} {value}: {least} at least")
    policies = _names(args.policies or list(COMPARED), POLICIES, "--policies")
    curves = read_curves(args.curves, args.skip)
    tasks = _names(args.tasks, curves.tasks, f"--tasks: {args.curves}")
    made_with = {"curves": curves.digest, "skip": args.skip, "workers": args.workers}
    made_with |= {name: version(name) for name in ("ray", "optuna")}
    file = args.json.with_name(args.json.name + ".lines")
    file.parent.mkdir(parents=True, exist_ok=True)
    check_lines(file, made_with)
    lines: list[Line] = []
    for policy in policies:
        for task in tasks:
            wanted = ({"policy": policy, "task": task, "seed": seed, **made_with} for seed in range(args.seeds))
            lines += accumulate(
                file, wanted, lambda key: searched(curves, key["policy"], key["task"], key["seed"], args.workers)
            )
            print(f"{policy} {task}: done", file=sys.stderr, flush=True)
    found = document(lines, made_with, args.seeds)
    write_file(args.json, json.dumps(found, indent=1, allow_nan=False).encode())
    show(found)


if __name__ == "__main__":
    main()
