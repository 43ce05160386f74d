"""Params of small models, one of each family, and of the sixteen that were tuned by hand."""

from __future__ import annotations

from typing import Any

from tunelab.models import normalise, starts
from tunelab.space import load_space, shipped

SEED = {start.name: params for start, params in starts(load_space(shipped("seed.yaml")))}

FRONT = {"kind": "convolution", "filters": [3, 4], "samples": 3, "pool": [2, 1], "units": 6}

SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"units": [6, 5], "dropout": 0.2, "l2": 0.01},
    "simple_rnn": {"units": [6], "dropout": 0.2, "l2": 0.01},
    "dense_rnn": {"dense": [7, 6], "units": [5], "dropout": 0.2, "l2": 0.01},
    "conv_rnn": {
        "convolutions": [
            {"filters": 4, "kernel": 5, "stride": 2, "pool": {"size": 3, "stride": 2}, "batch_norm": "before_pool"},
            {"filters": 3, "kernel": 3, "stride": 1, "batch_norm": "after_pool", "dropout": 0.1},
        ],
        "reduce": "flatten",
        "batch_norm_before_dense": True,
        "dense": {"units": 6, "activation": "relu"},
        "units": [5],
        "dropout": 0.2,
        "l2": {"convolution": 0.01, "rest": 0.02},
    },
    "birnn": {"front": {"kind": "dense", "units": 6}, "units": [5, 5], "dropout": 0.2, "l2": 0.01},
    "conv2d_rnn": {"filters": [3, 4], "pool": 2, "dense": 6, "units": [4], "dropout": 0.2, "l2": 0.01},
    "tcn": {"front": FRONT, "filters": 5, "blocks": 2, "dropout": 0.2, "l2": 0.01},
    "unet1d": {"front": FRONT, "filters": [4, 5, 6], "dropout": 0.2, "l2": 0.01},
    "transformer": {"front": FRONT, "blocks": 2, "heads": 2, "reach": 3, "dropout": 0.2, "l2": 0.01},
}


def small(family: str, **changes: Any) -> dict[str, Any]:
    return normalise({"family": family, **SMALL[family], **changes})
