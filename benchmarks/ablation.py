"""What each dimension of a configuration is worth: the configuration with one thing changed, against itself.

``python -m benchmarks.ablation CONFIG.yaml --data PATH --file FILE.jsonl [--deals 4] [--minutes M]``

CONFIG is a best_config.yaml as a search exports it. Every change is trained on the same deals of the scans with the
same seed, and its F1 on validation, at the threshold that is best on tune, compared scan by scan. "Another seed" is the
configuration itself, trained from other weights: what differs less than that is noise. The file is appended to, and a
run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fitting import deal_of, fit, paired
from benchmarks.lines import accumulate
from tunelab import backend
from tunelab.configuration import load_configuration
from tunelab.models import normalise
from tunelab.preprocessing import chain_of

CHANGES: Mapping[str, Mapping[str, Any]] = {
    "another seed": {},
    "background left in": {"preprocessing": {"background": "none"}},
    "background of 31 traces": {"preprocessing": {"background": 31}},
    "no gain with time": {"preprocessing": {"gain": 0.0}},
    "gain 2.5 with time": {"preprocessing": {"gain": 2.5}},
    "strong echoes compressed, 100": {"preprocessing": {"compression": 100.0}},
    "scans brought to one level": {"preprocessing": {"compression": 0.01}},
    "no mirrored scans": {"augmentation": {"mirror": 0.0}},
    "no flipped polarity": {"augmentation": {"polarity": 0.0}},
    "no jitter of gain": {"augmentation": {"gain_db": 0.0}},
    "jitter of gain, 6 dB": {"augmentation": {"gain_db": 6.0}},
    "no noise": {"augmentation": {"noise_db": None}},
    "noise at 20 dB": {"augmentation": {"noise_db": 20.0}},
    "no other backgrounds": {"augmentation": {"background": 0.0}},
    "other backgrounds, 0.3": {"augmentation": {"background": 0.3}},
    "shifts in time, 0.03": {"augmentation": {"shift": 0.03}},
    "silent traces, 0.1": {"augmentation": {"drop": 0.1}},
    "a constant rate": {"rate_schedule": {"kind": "constant"}},
    "one cycle of the rate": {"rate_schedule": {"kind": "one_cycle"}},
    "a third of the rate": {"learning_rate": 1 / 3},
    "no averaging of weights": {"averaging": 0.0},
    "averaging, 0.8": {"averaging": 0.8},
    "Adam": {"optimizer": {"kind": "adam"}},
    "no clipping": {"optimizer": {"clip_norm": None}},
    "cross-entropy": {"loss": {"kind": "cross_entropy", "edge_smoothing": 0.0}},
    "focal loss": {"loss": {"kind": "focal"}},
    "half soft F1": {"loss": {"kind": "soft_f1", "cross_entropy_share": 0.5}},
    "edges smoothed, 0.1": {"loss": {"edge_smoothing": 0.1}},
    "class weight 1": {"class_weight": 1.0},
    "class weight 5": {"class_weight": 5.0},
    "batches of 32": {"batch_size": 32},
    "no dropout": {"dropout": 0.0, "conv_dropout": 0.0, "front_dropout": 0.0},
    "no penalty": {"l2": 0.0},
    "one direction": {"bidirectional": False},
    "kernels of one trace": {"traces": 1, "front": {"traces": 1}},
    "layer normalisation": {"norm": "layer"},
    "layer normalisation, a tenth of the rate": {"norm": "layer", "learning_rate": 0.1},
    "plain recurrent cells": {"cell": "simple"},
    "raw traces, decimated": {
        "preprocessing": {"background": "none", "gain": 0.0},
        "augmentation": {"mirror": 0.0, "polarity": 0.0, "background": 0.0, "gain_db": 0.0, "noise_db": None},
    },
}
"""What is put in the place of what a configuration has; of a learning rate, the factor."""


def changed(params: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """The params with what of a change they have."""
    made = dict(params)
    for key, value in by.items():
        if key == "learning_rate":
            made[key] *= value
        elif key in made and made[key] is not None:
            made[key] = changed(made[key], value) if isinstance(value, Mapping) else value
        elif key in made:
            made[key] = value
    return made


def variants(params: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every change that changes these params, and the params as they are first."""
    full = normalise(params)
    yield "as found", full
    for name, by in CHANGES.items():
        other = normalise(changed(full, by))
        if other != full or not by:
            yield name, other


def main() -> None:
    """Train what the file lacks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", help="a folder of scans; without it the embedded set")
    parser.add_argument("--file", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--deals", type=int, default=4, help="ways to part the scans, by seeds 100, 101, ...")
    parser.add_argument("--epochs", type=int, help="instead of those of the configuration")
    parser.add_argument(
        "--part",
        type=lambda text: tuple(map(int, text.split("/"))),
        default=(1, 1),
        metavar="I/N",
        help="train the I-th of N parts, one core each; called again without it, the table is printed",
    )
    parser.add_argument("--minutes", type=float, default=600, help="after which nothing new is begun")
    args = parser.parse_args()
    backend.configure(1, 0)
    config = load_configuration(args.config)
    every = dict(variants(config.params))
    epochs = args.epochs or config.max_epochs
    mark = hashlib.sha256(json.dumps([every["as found"], args.data], sort_keys=True).encode()).hexdigest()[:12]
    wanted = [
        {"configuration": mark, "epochs": epochs, "deal": deal, "change": name}
        for deal in range(args.deals)
        for name in every
    ]

    def train(keys: Mapping[str, Any]) -> dict[str, Any]:
        name, deal = keys["change"], keys["deal"]
        access = deal_of(args.data, every.values(), 100 + deal)
        data = access.open(chain_of(every[name]))
        return fit(every[name], data, epochs=epochs, seed=config.seed + 1000 * (name == "another seed"))

    part, parts = args.part
    lines = list(accumulate(args.file, wanted[part - 1 :: parts], train, args.minutes))
    if parts > 1:
        return
    by_name: dict[str, dict[int, Any]] = {}
    for line in lines:
        if "failed" not in line:
            by_name.setdefault(line["change"], {})[line["deal"]] = line
    base = by_name["as found"]
    answered = {deal: line["counts"] for deal, line in base.items()}
    scans = len({scan for counts in answered.values() for scan in counts})
    print(
        f"{len(base)} deals, {sum(map(len, answered.values()))} answered validation scans ({scans} different), "
        f"mean F1 {np.mean([line['f1'] for line in base.values()]):.3f}, mean average precision "
        f"{np.mean([line['average_precision'] for line in base.values()]):.3f}"
    )
    print(
        "| change | deals | F1 less that as found, 95 % over scans | average precision, likewise |\n|---|---|---|---|"
    )
    for name, deals in by_name.items():
        if name == "as found":
            continue
        common = [deal for deal in deals if deal in base]
        difference, low, high = paired(answered, {deal: deals[deal]["counts"] for deal in common})
        dense = np.mean([deals[d]["average_precision"] - base[d]["average_precision"] for d in common])
        print(f"| {name} | {len(common)} | {difference:+.3f} ({low:+.3f} to {high:+.3f}) | {dense:+.3f} |")


if __name__ == "__main__":
    main()
