"""What all tests share: a clean environment, small data sets, and the shared data where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tunelab.data.dataset import Dataset
from tunelab.data.synthetic import SyntheticSettings, synthesize

# before anything imports Ray or TensorFlow
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
for _name in [n for n in os.environ if n.startswith(("AWS_", "RAY_ADDRESS", "KERAS_")) and n != "AWS_CA_BUNDLE"]:
    del os.environ[_name]

# a busy machine is no fault of the code
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def small_data() -> Dataset:
    """24 scans of 12 to 20 traces x 64 samples."""
    return synthesize(SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3))


@pytest.fixture(scope="session")
def gprmax_small() -> Path:
    """The simulated scans beside the checkout; tests that need them are left out where they are not."""
    folder = ROOT.parent / "shared" / "data" / "gprmax-small"
    if not folder.is_dir():
        pytest.skip("the simulated scans are not beside this checkout")
    return folder
