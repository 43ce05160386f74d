"""What a search is going to do: the options that a user gave, which the journal keeps, and the plan made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tunelab.data.access import Access
from tunelab.data.dataset import Dataset
from tunelab.preprocessing import Preprocessing
from tunelab.s3 import S3Options
from tunelab.space import Space

FORMAT = 2
"""Of journal and files of a run. 1 was that of 0.1.0, which kept checkpoints in Ray's own files alone."""


class Options(BaseModel):
    """What was asked for, in the ``run`` record of a journal: all that a resume on another machine starts from.

    Paths are absolute. Where this machine keeps its cache, and which Ray it uses, is asked anew each time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    space: str
    """The file; empty: the one that comes with tunelab."""
    data: str | None
    """Folder or ``s3://`` prefix of scans; None: the embedded data set."""
    max_bad: int = 0
    storage: str = ""
    """``s3://bucket/prefix/name`` that the run is copied to, or empty."""
    s3_endpoint: str = ""
    s3_sse: str = ""
    s3_kms_key: str = ""
    sync_every: float = 60.0
    """Seconds."""
    trials: int | None = None
    time_budget: float | None = None
    """Seconds, over all sessions of the run."""
    gpu_hours: float | None = None
    """Likewise over all sessions."""
    max_cost: float | None = None
    """US dollars, likewise."""
    max_epochs: int | None = None
    concurrent: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    seed: int = 0
    max_failures: int = 3
    step_timeout: float = 3600.0
    """Seconds."""
    keep: int = 10

    @property
    def s3(self) -> S3Options:
        """How the bucket is asked."""
        return S3Options(endpoint=self.s3_endpoint, sse=self.s3_sse, kms_key=self.s3_kms_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A search, every default but the GPUs filled in."""

    name: str
    folder: Path
    """The run's local folder."""
    options: Options
    space: Space
    data: Dataset
    """After one of the chains; its scans, labels and splits are those of all."""
    access: Access
    """What trials open it with."""
    samples: Mapping[Preprocessing, int]
    """Samples a trace after each chain that the space can propose, thinned ones among them."""
    shares: Sequence[int]
    """Training scans of each step of fidelity that trains on a share of them, and of all."""
    trials: int | None
    """Configurations; None: until the time is over, or the GPU-hours are used."""
    begun: float
    """When the command started, ``time.monotonic()``."""
    max_epochs: int
    patience: int
    cpus: float
    gpus: float | None
    """None: one where Ray sees GPUs."""
    custom: Mapping[str, float]
    """Other resources of Ray that a trial takes."""
    address: str | None
    """Of a running Ray; None: start one on this machine."""
    debug: bool
    where: str = ""
    """Which machine or Ray that is and why, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search came to."""

    folder: Path
    report: Mapping[str, Any]
    """The content of report.json."""
    exit_code: int
    """0, or 130 / 143 when it was interrupted."""
