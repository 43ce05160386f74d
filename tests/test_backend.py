"""The framework of a process: a GPU that was asked for must be there."""

from __future__ import annotations

import pytest

from tunelab.backend import configure, visible_gpus
from tunelab.errors import ClusterError

pytestmark = pytest.mark.tf


def test_a_gpu_that_the_framework_does_not_see_is_refused() -> None:
    if visible_gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ClusterError, match=r"asked for 0\.5 GPU and tensorflow sees none.*--gpus-per-trial 0"):
        configure(1, 0.5)
