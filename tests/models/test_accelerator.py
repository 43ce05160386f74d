"""What runs on a GPU, as far as a CPU can show: the path of cuDNN's kernel, mixed precision, what is said of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from small_models import small

from tunelab.models import FAMILIES, accelerator, build_model, hoisted
from tunelab.models.accelerator import unused, without_cudnn

pytestmark = pytest.mark.tf

SAMPLES = 40


def batch() -> tuple[dict[str, Any], Any, Any]:
    rng = np.random.default_rng(0)
    lengths = np.array([9, 5, 7], np.int32)
    valid = np.arange(9) < lengths[:, None]
    traces = np.where(valid[..., None], rng.normal(2, 3, size=(3, 9, SAMPLES)), 0).astype(np.float32)
    moments = np.array([(t[:n].mean(0), t[:n].std(0)) for t, n in zip(traces, lengths, strict=True)], np.float32)
    labels = (rng.random((3, 9)) < 0.3).astype(np.int32)
    return {"traces": traces, "lengths": lengths, "moments": moments}, labels, valid.astype(np.float32)


def trained(params: dict[str, Any], steps: int = 4) -> tuple[list[float], keras.Model]:
    keras.utils.set_random_seed(3)
    model = build_model(params, SAMPLES)
    model.compile(
        optimizer=keras.optimizers.SGD(0.05),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        jit_compile=False,
    )
    inputs, labels, weights = batch()
    return [float(model.train_on_batch(inputs, labels, sample_weight=weights)) for _ in range(steps)], model


def test_where_cudnn_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "visible_gpus", lambda: 1)
    assert without_cudnn("float32") == without_cudnn("float16") == ""
    assert without_cudnn("bfloat16") == "cuDNN has no LSTM in bfloat16"
    monkeypatch.setattr(accelerator, "visible_gpus", lambda: 0)
    assert without_cudnn("float32") == "no GPU that TensorFlow or JAX can use"


def test_it_is_said_where_a_gpu_is_there_and_cudnn_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    full, half = (build_model(small("lstm", precision=p), SAMPLES) for p in ("float32", "mixed_bfloat16"))
    monkeypatch.setattr(accelerator, "visible_gpus", lambda: 0)
    assert unused(half) == ()
    monkeypatch.setattr(accelerator, "visible_gpus", lambda: 1)
    assert unused(full) == ()
    assert unused(half) == ("LSTM layers run trace by trace, not on cuDNN's kernel: cuDNN has no LSTM in bfloat16.",)
    assert unused(build_model(small("simple_rnn", precision="mixed_bfloat16"), SAMPLES)) == ()
    gru = build_model(small("birnn", precision="mixed_bfloat16"), SAMPLES)
    assert unused(gru) == ("GRU layers run trace by trace, not on cuDNN's kernel: cuDNN has no GRU in bfloat16.",)
    dropped = build_model(small("lstm", recurrent_dropout=0.1), SAMPLES)
    assert unused(dropped) == ("LSTM layers run trace by trace, not on cuDNN's kernel: recurrent dropout.",)


@pytest.mark.parametrize(
    "params", [small("lstm"), small("lstm", bidirectional=True), small("birnn"), small("birnn", cell="lstm")]
)
def test_the_path_of_cudnns_kernel_computes_the_same(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here Keras runs its own loop in the kernel's place: what is handed to it, and in which order, is the same."""
    losses, model = trained(params)
    monkeypatch.setattr(hoisted, "without_cudnn", lambda dtype: "")
    there, other = trained(params)
    np.testing.assert_allclose(there, losses, rtol=1e-5)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
    half, _ = trained({**params, "precision": "mixed_float16"})
    np.testing.assert_allclose(half, losses, rtol=0.05)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_precision_trains_alike_and_keeps_weights_and_answers_in_float32(
    family: str, precision: str, plain: bool
) -> None:
    params = small(family, plain=plain, dropout=0.0)
    for block in params.get("convolutions", []):
        block["dropout"] = 0.0
    inputs, labels, weights = batch()
    models = []
    for kind in ("float32", precision):
        keras.utils.set_random_seed(3)
        models.append(build_model({**params, "precision": kind}, SAMPLES))
    assert keras.config.dtype_policy().name == "float32"
    _, mixed = models
    assert {str(keras.backend.standardize_dtype(w.dtype)) for w in mixed.weights} == {"float32"}
    given = {name: inputs[name] for name in inputs if name in mixed.input}
    one, two = (np.asarray(model(given, training=True)) for model in models)
    assert two.dtype == np.float32
    valid = weights > 0
    np.testing.assert_allclose(two[valid], one[valid], atol=0.06)
    assert np.abs(two[valid] - one[valid]).max() > 1e-6  # something did compute in half the bits
    mixed.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        jit_compile=False,
        run_eagerly=plain,  # the graph of the fast layers is what a search trains
    )
    scaled = isinstance(mixed.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")
    losses = [float(mixed.train_on_batch(given, labels, sample_weight=weights)) for _ in range(12)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_amplitudes_that_half_the_bits_do_not_hold_are_normalised_before() -> None:
    params = small("simple_rnn", dropout=0.0, precision="mixed_float16")
    inputs, _, _ = batch()
    keras.utils.set_random_seed(0)
    model = build_model(params, SAMPLES)
    large = {**inputs, "traces": inputs["traces"] * 1e6, "moments": inputs["moments"] * 1e6}
    assert np.isfinite(np.asarray(model(large, training=True))).all()
