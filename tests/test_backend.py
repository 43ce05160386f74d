"""The framework of a process: a GPU that was asked for must be there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunelab import backend
from tunelab.backend import configure, visible_gpus
from tunelab.errors import ClusterError

pytestmark = pytest.mark.tf


def test_a_gpu_that_the_framework_does_not_see_is_refused() -> None:
    if visible_gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ClusterError, match=r"asked for 0\.5 GPU and tensorflow sees none.*--gpus-per-trial 0"):
        configure(1, 0.5)


def test_gpu_memory_for_scans_is_the_trials_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the driver's own tool tells it, here one that is played."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$1" = --id=3 ] && echo 1000\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(backend, "visible_gpus", lambda: 1)
    for gpus, share in ((1.0, 1.0), (0.25, 0.25), (2.0, 1.0), (0.0, 0.0)):
        configure(1, gpus)
        assert backend.data_bytes() == int(backend.DATA_SHARE * share * 1000 * 2**20)
    configure(1, 1.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # of which the tool says nothing
    assert backend.data_bytes() == 0
    tool.unlink()
    assert backend.data_bytes() == 0
    monkeypatch.setattr(backend, "visible_gpus", lambda: 0)
    assert backend.data_bytes() == 0
    configure(1, 0)


def test_threads_are_as_many_as_the_trial_has_cores() -> None:
    """In a process of its own: a framework that has run keeps its threads."""
    code = (
        "from tunelab.backend import configure; configure(3, 0); import tensorflow as tf; "
        "print(tf.config.threading.get_intra_op_parallelism_threads(), "
        "tf.config.threading.get_inter_op_parallelism_threads())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
    assert said.split()[-2:] == ["3", "1"]
