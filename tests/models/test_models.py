"""Models of every family: sizes of the sixteen, shapes, padding, and what a family of one's own must be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import SEED, SMALL, small

from tunelab.errors import ModelError
from tunelab.models import FAMILIES, build_model, normalise, outline
from tunelab.models.layers import whole

pytestmark = pytest.mark.tf

# total parameter counts at 10,057 samples, from the hand-run log
SIZES = {
    "lstm1": 4787630,
    "lstm2": 10040430,
    "lstm3": 10040430,
    "lstm4": 10040430,
    "lstm5": 10040430,
    "lstm6": 1056230,
    "rnn2": 1056230,
    "rnn3": 1056230,
    "rnn4": 1153980,
    "rnn5": 1066730,
    "rnn6": 2525706,
    "convrnn2": 12570956,
    "convrnn3": 13073156,
    "convrnn4": 35356,
    "convrnn5": 353596,
    "convrnn6": 353596,
}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_the_sixteen_have_the_sizes_of_the_log(name: str, plain: bool) -> None:
    assert build_model({**SEED[name], "plain": plain}, 10057).count_params() == SIZES[name]


def test_every_family_is_shown_here() -> None:
    assert set(SMALL) == set(FAMILIES)


@pytest.mark.parametrize("name", SIZES)
def test_the_sixteen_build_on_other_sample_counts_or_say_what_does_not_fit(name: str) -> None:
    assert build_model(SEED[name], 1700).output_shape == (None, None, 2)
    if name in ("convrnn4", "convrnn5", "convrnn6"):
        with pytest.raises(ModelError, match=r"convolutions\.1\.kernel: 12 is more than the 5 positions that are left"):
            build_model(SEED[name], 60)
    else:
        assert build_model(SEED[name], 60).output_shape == (None, None, 2)


def answers(model: Any, traces: np.ndarray, lengths: list[int]) -> np.ndarray:
    inputs = whole(model, {"traces": traces, "lengths": np.array(lengths, np.int32)})
    return np.asarray(model(inputs, training=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_add_up_and_padding_does_not_matter(family: str) -> None:
    rng = np.random.default_rng(0)
    model = build_model(small(family), 40)
    traces = rng.normal(size=(2, 9, 40)).astype(np.float32)
    before = answers(model, traces, [9, 5])
    np.testing.assert_allclose(before.sum(-1), 1, atol=1e-6)
    changed = traces.copy()
    changed[1, 5:] = 1e3
    after = answers(model, changed, [9, 5])
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    np.testing.assert_allclose(after[1, :5], before[1, :5], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_stays_out_of_the_statistics(family: str) -> None:
    """One training step on padded scans moves the same statistics as on the same scans without padding."""
    import keras

    rng = np.random.default_rng(1)
    traces = rng.normal(3, 2, size=(2, 6, 40)).astype(np.float32)
    padded = np.concatenate([traces, np.full((2, 4, 40), 50, np.float32)], axis=1)
    moved = []
    for given in (traces, padded):
        keras.utils.set_random_seed(0)
        model = build_model(small(family, dropout=0.0), 40)
        if family == "conv_rnn":  # its dropout layer draws a mask of the padded shape
            params = small(family, dropout=0.0)
            for block in params["convolutions"]:
                block["dropout"] = 0.0
            keras.utils.set_random_seed(0)
            model = build_model(params, 40)
        model(whole(model, {"traces": given, "lengths": np.array([6, 6], np.int32)}), training=True)
        moved.append([np.asarray(v) for v in model.non_trainable_variables if "moving" in v.path])
    assert moved[0]
    assert any(np.abs(a).max() > 0 for a in moved[0])
    for one, other in zip(*moved, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_a_silent_trace_is_a_trace() -> None:
    """Masking zeros would carry the state past it; lengths do not."""
    model = build_model(small("simple_rnn"), 40)
    traces = np.random.default_rng(2).normal(size=(1, 4, 40)).astype(np.float32)
    traces[0, 1] = 0
    without = answers(model, np.delete(traces, 1, axis=1), [3])
    assert np.abs(answers(model, traces, [4])[0, 2:] - without[0, 1:]).max() > 1e-6


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_l2_is_on_input_kernels_and_not_on_the_head(family: str, plain: bool) -> None:
    model = build_model(small(family, plain=plain), 40)
    expected = 0.0
    kernels = 0
    for weight in model.trainable_weights:
        *_, layer, name = weight.path.split("/")
        if name in ("kernel", "output_kernel") and layer != "answer":
            kernels += 1
            factor = 0.01 if layer.startswith(("conv1d", "pooled_convolution")) or family != "conv_rnn" else 0.02
            expected += factor * float(np.square(np.asarray(weight)).sum())
    assert kernels >= len(SMALL[family].get("units", [1]))
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_outlines() -> None:
    assert outline(SEED["lstm1"]) == "lstm100-lstm200-lstm200-lstm100"
    assert outline(SEED["rnn5"]) == "dense100-rnn100"
    assert outline(SEED["convrnn4"]) == "conv50k12s4-pool5s2-conv20k12s4-global_average-dense100-rnn100"


def test_a_family_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_family.py").write_text(
        "import keras\n"
        "from tunelab.models.layers import head, radar_inputs\n"
        "def build(params, n_samples):\n"
        "    inputs, x, mask = radar_inputs(n_samples)\n"
        "    x = keras.layers.GRU(params['cells'], return_sequences=True)(x, mask=mask)\n"
        "    return head(inputs, x, 'own')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    params = normalise({"family": "own_family:build", "cells": 3})
    assert params["cells"] == 3
    assert params["learning_rate"] == 0.001
    model = build_model(params, 16)
    assert model.output_shape == (None, None, 2)
    assert answers(model, np.zeros((1, 4, 16), np.float32), [4]).shape == (1, 4, 2)
    sys.modules.pop("own_family")
    with pytest.raises(ModelError, match="no attribute 'missing'; put the module on PYTHONPATH"):
        normalise({"family": "own_family:missing"})
