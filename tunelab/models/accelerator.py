"""What of a GPU the layers can use. Where it cannot be used, why not, in words."""

from __future__ import annotations

import keras

from tunelab.backend import visible_gpus


def without_cudnn(dtype: str, layer: str = "LSTM") -> str:
    """Why a recurrent layer does not run on cuDNN's kernel; empty: it does.

    Its other conditions hold for every layer that is asked about: tanh and sigmoid, a bias, nothing masked.

    Args:
        dtype: that the layer computes in.
        layer: its kind, LSTM or GRU.
    """
    if keras.backend.backend() == "torch" or not visible_gpus():
        return "no GPU that TensorFlow or JAX can use"
    if dtype not in ("float32", "float16"):
        return f"cuDNN has no {layer} in {dtype}"
    return ""


def unused(model: keras.Model) -> tuple[str, ...]:
    """What a model could have run on a GPU and does not; nothing where there is none.

    Args:
        model: of whatever family.
    """
    if not visible_gpus():
        return ()
    reasons = set()
    for layer in model._flatten_layers():
        kind = "LSTM" if isinstance(layer, keras.layers.LSTM) else "GRU" if isinstance(layer, keras.layers.GRU) else ""
        if kind:
            why = "recurrent dropout" if layer.recurrent_dropout else without_cudnn(layer.compute_dtype, kind)
            reasons |= {f"{kind} layers run trace by trace, not on cuDNN's kernel: {why}."} if why else set()
    return tuple(sorted(reasons))
