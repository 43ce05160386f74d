"""What makes steps of gradients, made of :class:`tunelab.objective.Optimizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

KEPT = frozenset(("bias", "distance_bias", "gamma", "beta"))
"""Names of variables whose size says nothing of how complex a model is: weight decay leaves them alone."""


def optimizer_of(wanted: Mapping[str, Any], learning_rate: float, variables: list[keras.Variable]) -> Any:
    """The optimizer to compile a model with, not built.

    Args:
        wanted: :class:`tunelab.objective.Optimizer`, in full.
        learning_rate: to begin with.
        variables: that will be trained.
    """
    clip = wanted["clip_norm"]
    if wanted["kind"] == "sgd":
        return keras.optimizers.SGD(learning_rate, wanted["momentum"], nesterov=True, global_clipnorm=clip)
    if wanted["kind"] == "adam":
        return keras.optimizers.Adam(learning_rate, global_clipnorm=clip)
    optimizer = keras.optimizers.AdamW(learning_rate, global_clipnorm=clip)
    # Keras casts it as it does the learning rate; given later, it is one of the optimizer's variables as that is
    optimizer.weight_decay = keras.Variable(wanted["weight_decay"], trainable=False, dtype="float32", name="decay")
    optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if variable.name in KEPT])
    return optimizer
