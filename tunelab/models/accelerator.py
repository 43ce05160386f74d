"""What of a GPU the layers can use. Where it cannot be used, why not, in words."""

from __future__ import annotations

import keras

from tunelab.backend import visible_gpus


def without_cudnn(dtype: str) -> str:
    """Why an LSTM layer does not run on cuDNN's kernel; empty: it does.

    Its other conditions hold for every layer here: tanh and sigmoid, a bias, no recurrent dropout, nothing masked.

    Args:
        dtype: that the layer computes in.
    """
    if keras.backend.backend() == "torch" or not visible_gpus():
        return "no GPU that TensorFlow or JAX can use"
    if dtype not in ("float32", "float16"):
        return f"cuDNN has no LSTM in {dtype}"
    return ""


def unused(model: keras.Model) -> tuple[str, ...]:
    """What a model could have run on a GPU and does not; nothing where there is none.

    Args:
        model: of whatever family.
    """
    if not visible_gpus():
        return ()
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.LSTM)]
    reasons = {reason for layer in layers if (reason := without_cudnn(layer.compute_dtype))}
    return tuple(f"LSTM layers run trace by trace, not on cuDNN's kernel: {reason}." for reason in sorted(reasons))
