"""The schema of preprocessing: what happens to the traces of a scan before a model sees them.

It is part of params, so a space can search it. How a chain is computed is not here but in
:mod:`tunelab.data.preprocess`. What depends on the split (normalisation) is no part of a chain either: a chain
computes the same from a scan in whatever split it lies, so its result can be kept and shared by trials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_SAMPLES = 65_536
"""Samples of a trace that any scan is brought to, at most."""

Nanoseconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class Preprocessing(BaseModel):
    """Steps in this fixed order. What is not named changes nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dewow: float | None = Field(default=None, strict=True, gt=0, allow_inf_nan=False)
    """Width of the running mean that is subtracted along the samples of a trace, ns."""
    window: tuple[Nanoseconds, Nanoseconds] | None = None
    """Start and end of the time window that is kept, ns from the first sample."""
    samples: int | None = Field(default=None, strict=True, ge=2, le=MOST_SAMPLES)
    """Zero-phase low-pass and decimation to this many samples over the window, of each channel; no more than there
    are. Not beside ``rate``."""
    rate: float | None = Field(default=None, strict=True, gt=0, allow_inf_nan=False)
    """Zero-phase low-pass and decimation to at most this many samples per ns (GHz). Not beside ``samples``."""
    background: Literal["none", "scan"] | Annotated[int, Field(strict=True, ge=3)] = "none"
    """What is subtracted from each trace: the mean trace of its whole scan, or of this many traces around it (odd)."""
    gain: float = Field(default=0.0, strict=True, ge=0, le=10, allow_inf_nan=False)
    """Exponent p: each sample is multiplied by (t / T)^p, t its time from the first sample recorded and T that of the
    last one kept; 0 changes nothing."""
    compression: float = Field(default=0.0, strict=True, ge=0, le=1e6, allow_inf_nan=False)
    """Factor c: each sample x becomes asinh(c x / r) / asinh(c), r the root mean square of its scan. Scans come to one
    level, and the larger c is, the less strong echoes hide weak ones; far below 1 it is linear. 0 changes nothing."""

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, raw: Any) -> Any:
        if raw is None:
            raise ValueError("null is no chain; write {} for scans as recorded")
        return raw

    @field_validator("background", mode="before")
    @classmethod
    def _background(cls, raw: Any) -> Any:
        whole = isinstance(raw, int) and not isinstance(raw, bool)
        if not (raw in ("none", "scan") if isinstance(raw, str) else whole and raw >= 3 and raw % 2 == 1):
            raise ValueError("must be none, scan, or an odd number of traces from 3")
        return raw

    @model_validator(mode="after")
    def _fits_together(self) -> Preprocessing:
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(
                f"window starts at {self.window[0]:g} ns and ends at {self.window[1]:g} ns; write [start, end]"
            )
        if self.samples is not None and self.rate is not None:
            raise ValueError(f"samples {self.samples} and rate {self.rate:g} both say how far to decimate; keep one")
        return self

    @property
    def is_identity(self) -> bool:
        """Whether it leaves every scan as it was recorded."""
        return self == Preprocessing()

    @property
    def thinning(self) -> int:
        """The factor by which what the steps leave of samples is thinned; 1: not at all."""
        return 1

    def canonical(self) -> str:
        """JSON that is the same for equal chains: keys sorted, defaults left out. Names a chain in keys of a cache."""
        return json.dumps(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    def describe(self) -> str:
        """In words, such as ``dewow 4 ns, 212 samples, background scan, gain 1.5`` or ``as recorded``."""
        words = []
        if self.dewow is not None:
            words.append(f"dewow {self.dewow:g} ns")
        if self.window is not None:
            words.append(f"window {self.window[0]:g} to {self.window[1]:g} ns")
        if self.samples is not None:
            words.append(f"{self.samples} samples")
        if self.rate is not None:
            words.append(f"at most {self.rate:g} GHz")
        if self.background != "none":
            words.append(f"background {self.background}{'' if self.background == 'scan' else ' traces'}")
        if self.gain:
            words.append(f"gain {self.gain:g}")
        if self.compression:
            words.append(f"compression {self.compression:g}")
        if self.thinning > 1:
            words.append(f"thinned by {self.thinning}")
        return ", ".join(words) or "as recorded"


class Thinned(Preprocessing):
    """A chain for trials at a lower fidelity. No space holds one: params name the chain that is thinned."""

    thin: int = Field(strict=True, ge=2)
    """The factor; see :func:`thinned`."""

    @property
    def thinning(self) -> int:
        """See :attr:`Preprocessing.thinning`."""
        return self.thin


def thinned(chain: Preprocessing, factor: int) -> Preprocessing:
    """A chain that leaves one sample where the given one leaves ``factor`` of them, over the same window.

    The low-pass goes with it, once, whatever the chain decimates itself; background, gain and compression come after.

    Args:
        chain: of params.
        factor: from 1; 1 changes nothing.
    """
    return chain if factor == 1 else Thinned.model_validate({**chain.model_dump(), "thin": factor})


def chain_of(params: Mapping[str, Any]) -> Preprocessing:
    """The chain that params name."""
    return Preprocessing.model_validate(params["preprocessing"])


def chain_in(record: Mapping[str, Any]) -> Preprocessing:
    """The chain that a prepared data set tells of."""
    return (Thinned if "thin" in record else Preprocessing).model_validate(record)
