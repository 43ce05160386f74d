"""Whether what wins on the embedded set wins on other scans: the same configurations trained on both, and their ranks.

    python -m benchmarks.transfer --data gprmax-small --file transfer.jsonl --minutes 20

Configurations are drawn from a space with a fixed seed, as many of each family, and trained for a fixed number of
epochs; what counts is the validation split at the epoch that the tune split chose. Validation splits of a small folder
are thin, so it is dealt several times and averaged; how well its deals agree with each other is the most that the
other set can reach. The folder's scans are brought to the embedded set's number of samples. Each (configuration, set)
is a line of the file, and one that is there is not trained again: stop it, and call it again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.fitting import fit
from benchmarks.lines import append, lines_of
from benchmarks.sources import scratch
from tunelab.backend import configure
from tunelab.data.access import Access
from tunelab.data.generated import Generated
from tunelab.data.prepared import CacheOptions, prepared_from
from tunelab.data.preprocess import outcome
from tunelab.data.splits import assign_splits
from tunelab.data.synthetic import EMBEDDED, embedded
from tunelab.errors import DataError, ModelError
from tunelab.models import chains, check_fit, check_space, cost_of, normalise, outline
from tunelab.preprocessing import chain_of
from tunelab.sections import DataOptions
from tunelab.space import Space, load_space, shipped

METRICS = ("average_precision", "f1")
SIDES = ("synthetic", "data")
DRAWS = 2000
"""Of the bootstrap over configurations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A set of scans, and how it is dealt."""

    name: str
    access: Access
    deals: int
    """1: its own splits."""


def configurations(space: Space, count: int, seed: int, most: int) -> list[dict[str, Any]]:
    """Params that fit the embedded set's samples and have no more than so many parameters, the families in turn."""
    found = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        family = list(space.families)[i % len(space.families)]
        for _ in range(1000):
            params = normalise(space.sample(rng, family), space.source) | {"protocol": "pooled"}
            try:
                samples, _ = outcome(EMBEDDED.samples, EMBEDDED.dt, chain_of(params))
                check_fit(params, samples)
            except (ModelError, DataError):
                continue
            cost = cost_of(params, samples)
            if cost is not None and cost.parameters <= most:
                found.append(params)
                break
        else:
            raise SystemExit(f"{family}: none of 1000 draws fits {EMBEDDED.samples} samples and {most:,} parameters")
    return found


def trained(params: Mapping[str, Any], side: Side, epochs: int) -> dict[str, list[float]]:
    """Each metric at the chosen epoch, a number a deal; one whose loss is no number any more ranks last, with 0."""
    data = side.access.open(chain_of(params))
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for deal in range(side.deals):
        dealt = data
        if side.deals > 1:
            positives, lengths = data.positives_of_scans().tolist(), data.lengths.tolist()
            dealt = data.with_splits(assign_splits(data.groups, positives, lengths, deal))
        ended = fit(params, dealt, epochs=epochs, seed=deal)
        for name in METRICS:
            found[name].append(float(np.nan_to_num(ended.get(name, 0.0))))
    return found


def key_of(params: Mapping[str, Any], side: Side, fingerprint: str, epochs: int) -> str:
    """What a line of the file is found by."""
    what = json.dumps([params, side.name, fingerprint, side.deals, epochs], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def ranked(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN where one side is all the same."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def interval(one: NDArray[np.float64], other: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap over the configurations, 95 %; draws without two different values are left out."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(one), size=len(one)) for _ in range(DRAWS))
    values = np.array([ranked(one[i].tolist(), other[i].tolist()) for i in drawn])
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def show(records: Sequence[Mapping[str, Mapping[str, Any]]], names: Sequence[str]) -> None:
    """The table, and the correlations over the configurations that both sides have."""
    print(f"{'configuration':36}" + "".join(f"{side + ' ' + m:>16}" for m in ("AP", "F1") for side in SIDES))
    for name, record in zip(names, records, strict=True):
        cells = (np.mean(record[side][m]) if side in record else np.nan for m in METRICS for side in SIDES)
        print(f"{name[:35]:36}" + "".join(f"{'-' if np.isnan(cell) else f'{cell:.3f}':>16}" for cell in cells))
    both = [record for record in records if len(record) == len(SIDES)]
    if len(both) < 3:
        print(f"{len(both)} configurations on both sides: too few for a correlation")
        return
    for metric in METRICS:
        one, other = (np.array([np.mean(record[side][metric]) for record in both]) for side in SIDES)
        low, high = interval(one, other)
        text = f"{metric}: Spearman {ranked(one.tolist(), other.tolist()):.2f} (95 % {low:.2f} to {high:.2f})"
        dealt = np.array([record["data"][metric] for record in both])
        if dealt.shape[1] > 1:
            text += f"; between the first two deals of data {ranked(dealt[:, 0].tolist(), dealt[:, 1].tolist()):.2f}"
        print(f"{text}, {len(both)} configurations")


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help="folder of scans")
    parser.add_argument("--file", type=Path, required=True, metavar="FILE", help="results, a line each; added to")
    parser.add_argument("--space", type=Path, default=shipped("families.yaml"), help="(default: families.yaml)")
    parser.add_argument("--count", type=int, default=20, help="configurations (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="of each training (default: %(default)s)")
    parser.add_argument("--deals", type=int, default=2, help="of the folder's scans (default: %(default)s)")
    parser.add_argument("--most-parameters", type=int, default=300_000, help="of a model (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="start no training after so many (default: until all is done)")
    parser.add_argument("--threads", type=int, default=1, help="cores (default: %(default)s)")
    args = parser.parse_args()
    begun = time.monotonic()
    configure(args.threads, 0)
    space = load_space(args.space)
    check_space(space)
    wanted = chains(space)
    folder = prepared_from(
        args.data,
        options=DataOptions(resample=EMBEDDED.samples),
        chains=wanted,
        seed=0,
        cache=CacheOptions(cache=scratch() / "transfer", workers=args.threads),
    )
    sides = (
        Side(name="synthetic", access=Generated(dataset=embedded(), chains=tuple(wanted)), deals=1),
        Side(name="data", access=folder, deals=args.deals),
    )
    drawn = configurations(space, args.count, args.seed, args.most_parameters)
    done, records = {line["key"]: line for line in lines_of(args.file)}, []
    for i, params in enumerate(drawn):
        records.append({})
        for side in sides:
            key = key_of(params, side, side.access.open(chain_of(params)).fingerprint, args.epochs)
            if key not in done:
                if args.minutes is not None and time.monotonic() - begun > 60 * args.minutes:
                    continue
                start = time.monotonic()
                found = trained(params, side, args.epochs)
                seconds = round(time.monotonic() - start, 1)
                done[key] = {"key": key, "number": i, "side": side.name, **found, "seconds": seconds, "params": params}
                append(args.file, done[key])
                print(f"{i:2} {side.name:10} {outline(params):30.30} {found} {seconds} s", flush=True)
            records[-1][side.name] = done[key]
    show(records, [f"{i} {params['family']} {outline(params)}" for i, params in enumerate(drawn)])


if __name__ == "__main__":
    main()
