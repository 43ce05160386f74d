from __future__ import annotations

import sys

import pytest

from tunelab.errors import ModelError
from tunelab.models import FAMILIES, check_fit, normalise, outline, starts
from tunelab.models.table import find_family
from tunelab.space import load_space, shipped

RNN = {"family": "simple_rnn", "units": [8, 4], "dropout": [0.1, 0.2], "l2": 0.01}
CONV = {
    "family": "conv_rnn",
    "convolutions": [{"filters": 4, "kernel": 3, "stride": 1}],
    "reduce": "flatten",
    "dense": {"units": 8, "activation": "relu"},
    "units": [8],
    "dropout": 0.1,
    "l2": 0.01,
}
BASE = {
    "simple_rnn": RNN,
    "lstm": RNN | {"family": "lstm"},
    "dense_rnn": RNN | {"family": "dense_rnn", "dense": [6], "dropout": [0.1, 0.2, 0.3]},
    "conv_rnn": CONV,
}
SIXTEEN = {start.name: params for start, params in starts(load_space(shipped("seed.yaml")))}


def test_there_is_a_case_for_every_family():
    assert set(BASE) == set(FAMILIES)


@pytest.mark.parametrize("family", BASE)
def test_params_in_full_hold_every_default_and_stay_as_they_are(family):
    raw = BASE[family]
    before = repr(raw)
    full = normalise(raw)
    assert repr(raw) == before
    assert normalise(full) == full
    defaults = {
        "learning_rate": 0.001,
        "batch_size": 32,
        "class_weight": 1.0,
        "batch_norm_momentum": 0.99,
        "normalisation": "none",
        "protocol": "pooled",
        "shard_epochs": 5,
        "shard_patience": 2,
    }
    assert {key: full[key] for key in defaults} == defaults
    assert set(full) == set(FAMILIES[family].params.model_fields)


@pytest.mark.parametrize("family", ["simple_rnn", "lstm", "dense_rnn", "conv_rnn"])
def test_one_number_stands_for_a_list(family):
    full = normalise(BASE[family] | {"dropout": 0.25})
    layers = len(full["units"]) + len(full.get("dense", [])) * (family == "dense_rnn")
    assert full["dropout"] == [0.25] * layers
    assert normalise(BASE[family] | {"dropout": 0})["dropout"] == [0.0] * layers


def test_one_penalty_stands_for_both_of_conv_rnn():
    assert normalise(CONV)["l2"] == {"convolution": 0.01, "rest": 0.01}
    both = {"convolution": 0.2, "rest": 0.05}
    assert normalise(CONV | {"l2": both})["l2"] == both


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (RNN | {"dropout": [0.1]}, "params: dropout has 1 items, but units has 2"),
        (BASE["lstm"] | {"dropout": [0.1] * 3}, "params: dropout has 3 items, but units has 2"),
        (BASE["dense_rnn"] | {"dropout": [0.1]}, "params: dropout has 1 items, but dense and units together has 3"),
        (CONV | {"dropout": [0.1, 0.1]}, "params: dropout has 2 items, but units has 1"),
        (RNN | {"units": [8, 0]}, "params: units.1: Input should be greater than or equal to 1, not 0"),
        (RNN | {"units": [8, 1.5]}, "params: units.1: Input should be a valid integer, not 1.5"),
        (RNN | {"units": 8}, "params: units: Input should be a valid tuple, not 8"),
        (RNN | {"dropout": [0.1, 1.0]}, "params: dropout.1: Input should be less than 1, not 1.0"),
        (RNN | {"dropout": -0.1}, "params: dropout.0: Input should be greater than or equal to 0, not -0.1"),
        (RNN | {"l2": -1}, "params: l2: Input should be greater than or equal to 0, not -1"),
        (RNN | {"l2": float("nan")}, "params: l2: Input should be"),
        (RNN | {"l2": float("inf")}, "params: l2: Input should be a finite number, not inf"),
        (RNN | {"learning_rate": 0}, "params: learning_rate: Input should be greater than 0, not 0"),
        (RNN | {"batch_size": 0}, "params: batch_size: Input should be greater than or equal to 1, not 0"),
        (RNN | {"units": ["8"]}, "params: units.0: Input should be a valid integer, not '8'"),
        (RNN | {"units": [True]}, "params: units.0: Input should be a valid integer, not True"),
        (RNN | {"units": [], "dropout": []}, "params: units: Tuple should have at least 1 item"),
        (RNN | {"l2": "0.1"}, "params: l2: Input should be a valid number, not '0.1'"),
        (RNN | {"class_weight": 0}, "params: class_weight: Input should be greater than 0, not 0"),
        (RNN | {"batch_norm_momentum": 1}, "params: batch_norm_momentum: Input should be less than 1, not 1"),
        (
            RNN | {"window": 3},
            "params: window: no such key; known are augmentation, averaging, batch_norm_momentum, batch_size,",
        ),
        (RNN | {"learning_rat": 1}, "params: learning_rat: no such key; did you mean 'learning_rate'?"),
        (
            CONV | {"dense": {"units": 8, "activation": "rleu"}},
            "params: dense.activation: Input should be 'linear', 'relu', 'elu' or 'tanh', not 'rleu'",
        ),
        (
            CONV | {"convolutions": [{"filters": 4, "kernel": 3, "stride": 1, "activation": "gelu"}]},
            "params: convolutions.0.activation: Input should be 'linear', 'relu', 'elu' or 'tanh', not 'gelu'",
        ),
        (
            CONV | {"convolutions": [{"filters": 4, "kernel": 3, "stride": 1, "pool": {"size": 2, "stride": 0}}]},
            "params: convolutions.0.pool.stride: Input should be greater than or equal to 1, not 0",
        ),
        (
            CONV | {"convolutions": [{"filters": 4, "kernal": 3, "stride": 1}]},
            "params: convolutions.0.kernal: no such key; did you mean 'kernel'?",
        ),
        (
            RNN | {"preprocessing": {"sample": 212}},
            "params: preprocessing.sample: no such key; did you mean 'samples'?",
        ),
        (
            RNN | {"preprocessing": {"samples": 1}},
            "params: preprocessing.samples: Input should be greater than or equal",
        ),
        (
            RNN | {"normalisation": "scan"},
            "params: normalisation: Input should be 'none', 'per_sample' or 'global', not",
        ),
        (RNN | {"protocol": "shards"}, "params: protocol: Input should be 'pooled' or 'incremental', not 'shards'"),
        (RNN | {"shard_epochs": 0}, "params: shard_epochs: Input should be greater than or equal to 1, not 0"),
        (CONV | {"reduce": "mean"}, "params: reduce: Input should be 'flatten' or 'global_average', not 'mean'"),
        (CONV | {"l2": {"convolution": 0.1}}, "params: l2.rest: missing; write a value"),
        ({"units": [8]}, "params: family: missing; known are lstm, simple_rnn, dense_rnn, conv_rnn"),
        ({"family": 3}, "params: family: missing; known are lstm"),
        (RNN | {"family": "rnn_simple"}, "params: family: 'rnn_simple' is none"),
        (
            RNN | {"family": "lsmt"},
            "params: family: 'lsmt' is none; did you mean 'lstm'?; your own is package.module:f",
        ),
    ],
)
def test_params_that_a_family_does_not_take_are_refused_with_key_value_and_rule(raw, message):
    with pytest.raises(ModelError) as caught:
        normalise(raw)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


def test_the_place_stands_before_the_message():
    with pytest.raises(ModelError, match=r"^runs/best\.yaml: l2: missing; write a value$"):
        normalise({"family": "lstm", "units": [8], "dropout": 0}, "runs/best.yaml")


# Which of the sixteen fit how many samples.


@pytest.mark.parametrize("name", SIXTEEN)
def test_all_sixteen_fit_the_traces_that_they_were_made_for(name):
    for samples in (10057, 1700):
        check_fit(SIXTEEN[name], samples)


def positions(params: dict, samples: int) -> list[int]:
    """What is left after every window, as one counts by hand; below one: it does not fit."""
    left = [samples]
    for block in params.get("convolutions", ()):
        windows = [(block["kernel"], block["stride"])]
        if block["pool"]:
            windows.append((block["pool"]["size"], block["pool"]["stride"]))
        for size, stride in windows:
            left.append((left[-1] - size + stride) // stride)
    return left


DO_NOT_FIT_160 = {
    "convrnn5": ("convolutions.1.pool.size", 5, 2),
    "convrnn6": ("convolutions.1.pool.size", 5, 2),
}


@pytest.mark.parametrize("name", SIXTEEN)
def test_at_160_samples_the_ones_with_two_pooled_blocks_do_not_fit_and_say_where(name):
    if name not in DO_NOT_FIT_160:
        check_fit(SIXTEEN[name], 160)
        assert min(positions(SIXTEEN[name], 160)) >= 1
        return
    key, size, left = DO_NOT_FIT_160[name]
    with pytest.raises(ModelError) as caught:
        check_fit(SIXTEEN[name], 160)
    assert str(caught.value) == (
        f"{key}: {size} is more than the {left} positions that are left of 160 samples; "
        "take smaller strides, fewer blocks or more samples"
    )
    assert min(positions(SIXTEEN[name], 160)) < 1


@pytest.mark.parametrize("name", ["rnn6", "convrnn4", "convrnn6"])
def test_the_fewest_samples_that_fit_are_those_counted_by_hand(name):
    fewest = next(n for n in range(1, 2000) if min(positions(SIXTEEN[name], n)) >= 1)
    check_fit(SIXTEEN[name], fewest)
    with pytest.raises(ModelError, match="more than the"):
        check_fit(SIXTEEN[name], fewest - 1)


def test_outlines():
    words = {name: outline(params) for name, params in SIXTEEN.items()}
    assert words["lstm1"] == "lstm100-lstm200-lstm200-lstm100"
    assert words["rnn4"] == "dense100-dense200-dense250-rnn100"
    assert words["convrnn4"] == "conv50k12s4-pool5s2-conv20k12s4-global_average-dense100-rnn100"


# Families of a user's own.


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_radar_models.py").write_text(
        "def wide(params, n_samples):\n    return (params, n_samples)\nSIZE = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_radar_models"
    sys.modules.pop("my_radar_models", None)


def test_a_family_of_ones_own_takes_the_common_params_and_whatever_else(module):
    name = f"{module}:wide"
    full = normalise({"family": name, "width": [1, 2], "l2": 0.5})
    assert full["width"] == [1, 2]
    assert full["learning_rate"] == 0.001
    family = find_family(name)
    assert family.build is None
    params, samples = family.plain(family.params.model_validate(full), 64)
    assert samples == 64
    assert params["width"] == [1, 2]
    assert outline(full) == "wide"
    check_fit(full, 1)
    with pytest.raises(ModelError, match="learning_rate: Input should be greater than 0, not -1"):
        normalise({"family": name, "learning_rate": -1})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:build", "No module named 'no_such_module'; put the module on PYTHONPATH"),
        ("my_radar_models:narrow", "has no attribute 'narrow'; put the module on PYTHONPATH"),
        ("my_radar_models:", "has no attribute ''; put the module on PYTHONPATH"),
        (":build", "Empty module name; put the module on PYTHONPATH"),
        (".my_radar_models:wide", "relative import"),
        ("my_radar_models:SIZE", "SIZE is no function; name one that takes params and n_samples"),
    ],
)
def test_a_family_of_ones_own_that_is_not_there_is_named_with_the_remedy(module, name, message):
    with pytest.raises(ModelError) as caught:
        normalise({"family": name})
    assert str(caught.value).startswith(f"params: family: {name}: ")
    assert message in str(caught.value)
