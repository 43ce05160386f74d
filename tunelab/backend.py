"""The framework below Keras in this process: its threads and its GPUs. No model and no data set is known here."""

from __future__ import annotations

import os

import keras

from tunelab.errors import ClusterError


def configure(threads: int, gpus: float) -> None:
    """Set up the framework of this process; harmless when it has run before.

    Args:
        threads: cores that one operation may use; concurrent trials then do not crowd each other out.
        gpus: what the trial asked for; above zero the framework must see one.

    Raises:
        ClusterError: a GPU was asked for and the framework sees none.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:  # already running with what an earlier trial of this process set
            pass
        tf.config.experimental.enable_op_determinism()
    if gpus > 0 and not visible_gpus():
        raise ClusterError(
            f"the trial asked for {gpus:g} GPU and {keras.backend.backend()} sees none on this node "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}); install its GPU build and "
            "driver there (tensorflow[and-cuda]), or search with --gpus-per-trial 0"
        )


def visible_gpus() -> int:
    """How many GPUs the framework can use."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_physical_devices("GPU"))
    return sum(name.startswith(("gpu", "cuda")) for name in keras.distribution.list_devices())
