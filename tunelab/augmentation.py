"""The schema of augmentation: what is varied of a training scan each time it is read. Never of any other scan.

It is part of params, so a space can search it. How it is computed is in :mod:`tunelab.data.augment`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Chance = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


class Augmentation(BaseModel):
    """Steps in this fixed order, drawn anew for each scan and epoch. What is not named changes nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    background: Chance = 0.0
    """Chance that another training scan without positives is added, at up to the same root mean square."""
    mirror: Chance = 0.0
    """Chance that the traces, and their labels, come in reverse order."""
    polarity: Chance = 0.0
    """Chance that every sample changes its sign."""
    gain_db: float = Field(default=0.0, strict=True, ge=0, le=60, allow_inf_nan=False)
    """All samples are multiplied by one factor, at most this many dB up or down."""
    shift: float = Field(default=0.0, strict=True, ge=0, le=0.5, allow_inf_nan=False)
    """All traces move in time by one number of samples, at most this share of a trace; zeros follow them in."""
    noise_db: float | None = Field(default=None, strict=True, ge=-20, le=120, allow_inf_nan=False)
    """White noise is added, the scan's root mean square this many to 20 dB more above its own; null: none."""
    drop: float = Field(default=0.0, strict=True, ge=0, lt=1, allow_inf_nan=False)
    """Chance of each trace to become silent; it keeps its label."""

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every scan as it is."""
        return self == Augmentation()


def augmentation_of(params: Mapping[str, Any]) -> Augmentation:
    """The augmentation that params name."""
    return Augmentation.model_validate(params["augmentation"])
