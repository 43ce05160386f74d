"""Normalisation in front of models: the numbers of numpy, constants and no weights, saved with the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import SMALL

from tunelab.errors import ModelError
from tunelab.models import build_model, normalise
from tunelab.models.layers import whole
from tunelab.statistics import Statistics

pytestmark = pytest.mark.tf

SAMPLES = 24
PARAMS: dict[str, dict[str, Any]] = {family: {**SMALL[family], "dropout": 0.0, "l2": 0.0} for family in SMALL}
PARAMS["conv_rnn"]["convolutions"] = [{**block, "dropout": 0.0} for block in SMALL["conv_rnn"]["convolutions"]]


def scans(scale: float = 1.0) -> np.ndarray:
    """(scan, trace, sample): every sample of another mean and spread, the last one silent."""
    rng = np.random.default_rng(0)
    spread = np.linspace(0.5, 40, SAMPLES)
    spread[-1] = 0
    return (scale * (rng.normal(size=(3, 7, SAMPLES)) * spread + np.linspace(-30, 90, SAMPLES))).astype(np.float32)


def statistics(traces: np.ndarray) -> Statistics:
    flat = traces.reshape(-1, traces.shape[-1]).astype(np.float64)
    return Statistics(mean=flat.mean(axis=0), variance=flat.var(axis=0))


def answers(model: Any, traces: np.ndarray, lengths: list[int]) -> np.ndarray:
    inputs = whole(model, {"traces": traces, "lengths": np.array(lengths, np.int32)})
    return np.asarray(model(inputs, training=False))


def normalised(model: Any, traces: np.ndarray) -> np.ndarray:
    """What the family's own model is given."""
    import keras

    front = keras.Model(model.get_layer("traces").output, model.get_layer("normalisation").output)
    return np.asarray(front(traces))


def standardised(traces: np.ndarray, kind: str) -> np.ndarray:
    """As one does it with numpy."""
    flat = traces.reshape(-1, traces.shape[-1]).astype(np.float64)
    if kind == "global":
        return ((traces - flat.mean()) / flat.std()).astype(np.float32)
    variance = np.maximum(flat.var(axis=0), 1e-6 * flat.var(axis=0).mean())
    return ((traces - flat.mean(axis=0)) / np.sqrt(variance)).astype(np.float32)


@pytest.mark.parametrize("kind", ["per_sample", "global"])
@pytest.mark.parametrize("family", PARAMS)
def test_a_normalised_model_answers_as_the_plain_one_on_standardised_traces(family: str, kind: str) -> None:
    traces = scans()
    params = {"family": family, **PARAMS[family]}
    plain = build_model(normalise(params), SAMPLES)
    model = build_model(normalise(params | {"normalisation": kind}), SAMPLES, statistics(traces))
    assert model.count_params() == plain.count_params()
    assert [w.shape for w in model.get_weights()] == [w.shape for w in plain.get_weights()]
    assert len(model.trainable_variables) == len(plain.trainable_variables)
    assert model.name == plain.name
    assert model.output_shape == plain.output_shape
    plain.set_weights(model.get_weights())
    expected = answers(plain, standardised(traces, kind), [7, 7, 7])
    np.testing.assert_allclose(answers(model, traces, [7, 7, 7]), expected, atol=5e-5)
    assert np.abs(answers(plain, traces, [7, 7, 7]) - expected).max() > 1e-3  # it does matter


@pytest.mark.parametrize("kind", ["per_sample", "global"])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e9])
def test_amplitudes_of_any_unit(kind: str, scale: float) -> None:
    """Keras alone would divide by no less than 1e-7."""
    traces = scans(scale)
    params = normalise({"family": "simple_rnn", **PARAMS["simple_rnn"], "normalisation": kind, "plain": True})
    model = build_model(params, SAMPLES, statistics(traces))
    fast = build_model({**params, "plain": False}, SAMPLES, statistics(traces))
    fast.set_weights(model.get_weights())
    np.testing.assert_allclose(answers(fast, traces, [7, 7, 7]), answers(model, traces, [7, 7, 7]), atol=1e-5)
    seen = normalised(model, traces)
    np.testing.assert_allclose(seen, standardised(traces, kind), atol=2e-5)
    if kind == "global":
        assert seen.mean() == pytest.approx(0, abs=1e-5)
        assert seen.std() == pytest.approx(1, abs=1e-5)


def test_a_sample_that_was_silent_in_training_does_not_drown_the_rest() -> None:
    traces = scans()
    params = normalise({"family": "simple_rnn", **PARAMS["simple_rnn"], "normalisation": "per_sample", "plain": True})
    model = build_model(params, SAMPLES, statistics(traces))
    loud = traces.copy()
    loud[..., -1] += 40  # as loud there as the loudest sample
    seen = normalised(model, loud)
    assert np.abs(seen).max() < 40 / np.sqrt(1e-6 * 500)
    assert np.isfinite(answers(model, loud, [7, 7, 7])).all()
    fast = build_model({**params, "plain": False}, SAMPLES, statistics(traces))
    fast.set_weights(model.get_weights())
    np.testing.assert_allclose(answers(fast, loud, [7, 7, 7]), answers(model, loud, [7, 7, 7]), atol=1e-4)


@pytest.mark.parametrize("family", PARAMS)
def test_the_saved_model_is_whole(family: str, tmp_path: Path) -> None:
    import keras

    traces = scans()
    params = normalise({"family": family, **PARAMS[family], "normalisation": "per_sample", "plain": True})
    model = build_model(params, SAMPLES, statistics(traces))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(answers(again, traces, [7, 5, 3]), answers(model, traces, [7, 5, 3]), atol=1e-6)
    assert [w.shape for w in again.get_weights()] == [w.shape for w in model.get_weights()]


@pytest.mark.parametrize("kind", ["per_sample", "global"])
@pytest.mark.parametrize("family", PARAMS)
def test_padding_does_not_matter(family: str, kind: str) -> None:
    traces = scans()
    params = normalise({"family": family, **PARAMS[family], "normalisation": kind})
    model = build_model(params, SAMPLES, statistics(traces))
    alone = answers(model, traces[1:2, :4], [4])
    for filler in (0.0, 1e4):
        padded = np.full((1, 9, SAMPLES), filler, np.float32)
        padded[0, :4] = traces[1, :4]
        np.testing.assert_allclose(answers(model, padded, [4])[:, :4], alone, atol=1e-6)


def test_it_trains_and_its_statistics_stay() -> None:
    import keras

    traces = scans()
    params = normalise({"family": "dense_rnn", **PARAMS["dense_rnn"], "normalisation": "per_sample", "plain": True})
    model = build_model(params, SAMPLES, statistics(traces))
    layer = model.get_layer("normalisation")
    before = [w.copy() for w in model.get_weights()]
    mean = np.asarray(layer.mean).copy()
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", jit_compile=False)
    inputs = {"traces": traces, "lengths": np.array([7, 7, 7], np.int32)}
    model.fit(inputs, np.zeros((3, 7), np.int32), epochs=2, verbose=0)
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before[:1], model.get_weights()[:1], strict=True))
    np.testing.assert_array_equal(np.asarray(layer.mean), mean)


def test_a_family_of_ones_own_is_normalised_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_normalised.py").write_text(
        "import keras\n"
        "from tunelab.models.layers import head, radar_inputs\n"
        "def build(params, n_samples):\n"
        "    assert params['preprocessing']['gain'] == 1.5\n"
        "    inputs, x, mask = radar_inputs(n_samples)\n"
        "    return head(inputs, keras.layers.GRU(3, return_sequences=True)(x, mask=mask), 'own')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    traces = scans()
    raw = {"family": "own_normalised:build", "preprocessing": {"gain": 1.5}}
    plain = build_model(normalise(raw), SAMPLES)
    model = build_model(normalise(raw | {"normalisation": "global"}), SAMPLES, statistics(traces))
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(
        answers(model, traces, [7, 7, 7]), answers(plain, standardised(traces, "global"), [7, 7, 7]), atol=1e-5
    )
    sys.modules.pop("own_normalised")


def test_without_fitting_statistics_there_is_no_normalised_model() -> None:
    params = normalise({"family": "simple_rnn", **PARAMS["simple_rnn"], "normalisation": "global"})
    with pytest.raises(ModelError, match="normalisation: global needs the statistics of the training scans, and none"):
        build_model(params, SAMPLES)
    with pytest.raises(ModelError, match="statistics of 24 samples do not fit a model of 30; gather them after the"):
        build_model(params, 30, statistics(scans()))


def test_statistics_are_left_aside_where_nothing_is_normalised() -> None:
    params = normalise({"family": "simple_rnn", **PARAMS["simple_rnn"]})
    plain = build_model({**params, "plain": True}, SAMPLES, statistics(scans()))
    assert not [layer for layer in plain.layers if layer.name == "normalisation"]
    traces = scans()
    with_them, without = (build_model(params, SAMPLES, some) for some in (statistics(traces), None))
    without.set_weights(with_them.get_weights())
    np.testing.assert_array_equal(answers(with_them, traces, [7, 7, 7]), answers(without, traces, [7, 7, 7]))
    assert build_model(params, 30, statistics(scans())).get_layer("traces").output.shape == (None, None, 30)
