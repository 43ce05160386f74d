"""Compiled models of this process, kept for the next training of one structure. A training is not known here.

Tracing a training step takes seconds, the first epoch of a small model often less. Models that differ only in numbers
on dials (:mod:`tunelab.models.dials`), in learning rate, batch size or weights of traces have the same step
(:mod:`tunelab.models.sharing`). So when a training is over, its model goes on a shelf, and the next one of the same
structure takes it down. Nothing of the former training is left in it: the model that a new process would have built is
built each time, which takes no tracing, and every variable of model and optimizer, seeds and dials included, becomes
what it is there.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tunelab.data.batches import Batch
from tunelab.models import build_model, has_dials, structure
from tunelab.models.dials import dials_of
from tunelab.models.layers import wants_moments, whole
from tunelab.models.losses import loss_of
from tunelab.models.optimizers import optimizer_of
from tunelab.statistics import Statistics

MOST = 4
"""Models on the shelf."""
MOST_BYTES = 2**27
"""Of their variables together, optimizers included."""

CLEAR_EVERY = 25
"""Trials in kept models after which TensorFlow's caches are cleared, which costs the next ones up to a second each:
it keeps 1.6 MB for the variables that each trial creates, though they are gone."""

_reused = itertools.count(1)
_shelf: OrderedDict[str, list[keras.Model]] = OrderedDict()
"""By structure, the one that was used last at the end."""


def compiled_for(
    owner: object, params: Mapping[str, Any], n_samples: int, statistics: Statistics | None, seed: int
) -> keras.Model:
    """A compiled model of these params, every variable as a new process makes it from this seed.

    Args:
        owner: who uses the model; when it is gone, the model may be given to another.
        params: ``{"family": ..., ...}``.
        n_samples: samples a trace.
        statistics: of the training scans, where params ask for normalisation.
        seed: of weights and dropout.

    Raises:
        ModelError: as :func:`tunelab.models.build_model`.
    """
    key = _key(params, n_samples, statistics)
    model = _taken(key)
    if model is not None and has_dials(params) and next(_reused) % CLEAR_EVERY:
        # all that our layers draw from; TensorFlow's own seed, once set, makes it prepare every step anew
        random.seed(seed)
        np.random.seed(seed)
    else:
        keras.backend.clear_session()  # what former models left
        keras.utils.set_random_seed(seed)
    fresh = _compile(build_model(params, n_samples, statistics), params)
    if model is None or not _become(model, fresh):
        model = fresh
    weakref.finalize(owner, _put_back, key, model).atexit = False
    return model


def train(model: keras.Model, batch: Batch) -> float:
    """One step of training; the loss before it, penalties included."""
    return float(model.train_on_batch(*batch, return_dict=True)["loss"])


def answer(model: keras.Model, inputs: dict[str, Any]) -> NDArray[np.float32]:
    """The model's share of "positive" for each trace, padding among them, shape (scan, trace)."""
    return np.asarray(model.predict_on_batch(whole(model, inputs)))[..., 1]


def clear() -> None:
    """Let all models go that are not in use."""
    _shelf.clear()


def _compile(model: keras.Model, params: Mapping[str, Any]) -> keras.Model:
    model.compile(
        optimizer=optimizer_of(params["optimizer"], params["learning_rate"], model.trainable_variables),
        loss=loss_of(params["loss"]),
        # XLA on a CPU compiles for longer than these models train
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    model.optimizer.build(model.trainable_variables)
    if keras.backend.backend() == "tensorflow":
        _sign(model)
    return model


def _sign(model: keras.Model) -> None:
    """Leave lengths and numbers of scans open in Keras' own steps: it would trace them for up to three shapes."""
    import tensorflow as tf

    samples = model.input["traces"].shape[-1]
    inputs = {
        "traces": tf.TensorSpec((None, None, samples), tf.float32),
        "lengths": tf.TensorSpec((None,), tf.int32),
    }
    taught = {"moments": tf.TensorSpec((None, 2, samples), tf.float32)} if wants_moments(model) else {}
    batch = ({**inputs, **taught}, *(tf.TensorSpec((None, None), dtype) for dtype in (tf.int32, tf.float32)))
    known = weakref.proxy(model)  # a model that held itself would wait for the garbage collector
    train = tf.function(lambda batch: known.train_step(batch), input_signature=[batch], autograph=False)
    answer = tf.function(
        lambda inputs: known.predict_step((whole(known, inputs),)), input_signature=[inputs], autograph=False
    )
    model.train_function = lambda batches: train(next(batches))
    model.predict_function = lambda batches: answer({name: batches[0][0][name] for name in inputs})


def _key(params: Mapping[str, Any], n_samples: int, statistics: Statistics | None) -> str:
    """Of all that is part of a compiled step."""
    # other backends take for constants what Keras does not track
    dials = keras.backend.backend() == "tensorflow" and has_dials(params)
    parts = [structure(params, dials=dials), str(n_samples)]
    if statistics is not None and not dials:
        parts.append(hashlib.sha256(statistics.mean.tobytes() + statistics.variance.tobytes()).hexdigest())
    return "\n".join(parts)


def _become(model: keras.Model, fresh: keras.Model) -> bool:
    """Make every variable what it is in ``fresh``; whether they correspond."""
    pairs = []
    for old, new in ((model, fresh), (model.optimizer, fresh.optimizer)):
        if [v.shape for v in old.variables] != [v.shape for v in new.variables]:
            return False
        pairs += list(zip(old.variables, new.variables, strict=True))
    dials = dials_of(model), dials_of(fresh)
    if [dial.variable.shape for dial in dials[0]] != [dial.variable.shape for dial in dials[1]]:
        return False
    pairs += [(old.variable, new.variable) for old, new in zip(*dials, strict=True)]
    for variable, value in pairs:
        variable.assign(value)
    model.stop_training = False
    model.reset_metrics()
    return True


def _taken(key: str) -> keras.Model | None:
    models = _shelf.get(key)
    if not models:
        return None
    model = models.pop()
    if not models:
        del _shelf[key]
    return model


def _put_back(key: str, model: keras.Model) -> None:
    _shelf.setdefault(key, []).append(model)
    _shelf.move_to_end(key)
    while _shelf and (sum(map(len, _shelf.values())) > MOST or _size() > MOST_BYTES):
        oldest = next(iter(_shelf))
        _shelf[oldest].pop(0)
        if not _shelf[oldest]:
            del _shelf[oldest]


def _size() -> int:
    models = [model for some in _shelf.values() for model in some]
    return sum(
        math.prod(variable.shape) * np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize
        for model in models
        for variable in (*model.variables, *model.optimizer.variables)
    )
