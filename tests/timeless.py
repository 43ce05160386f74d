"""What two trainings have in common: all that they report, but for what a clock says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def timeless(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of an epoch without those of time."""
    return {name: value for name, value in metrics.items() if name != "predict_ms"}
