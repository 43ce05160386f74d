"""The framework below Keras in this process: its threads and its GPUs. No model and no data set is known here."""

from __future__ import annotations

import os
import shutil
import subprocess

import keras

from tunelab.errors import ClusterError

DATA_SHARE = 0.4
"""Of a trial's GPU memory that scans may take; models, their gradients and the framework take the rest."""

_asked = 0.0
"""GPUs that the newest trial of this process asked for."""


def configure(threads: int, gpus: float) -> None:
    """Set up the framework of this process; harmless when it has run before.

    GPU memory is taken as it is needed, so that trials which ask for a fraction of a GPU get along on one.

    Args:
        threads: cores that one operation may use; concurrent trials then do not crowd each other out.
        gpus: what the trial asked for; above zero the framework must see one.

    Raises:
        ClusterError: a GPU was asked for and the framework sees none.
    """
    global _asked
    _asked = gpus
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        try:
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
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


def data_bytes() -> int:
    """Bytes of GPU memory that the scans of a trial may take; 0 where it asked for no GPU, or its memory is not known.

    A trial that asks for a fraction of a GPU may take that fraction of its share.
    """
    if not _asked or not visible_gpus():
        return 0
    return int(DATA_SHARE * min(_asked, 1.0) * _gpu_bytes())


def _gpu_bytes() -> int:
    """Memory of the first GPU that this process may use, by its driver's own tool; 0 when that is silent."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return 0
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    query = [tool, f"--id={first}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
        return int(said.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0
