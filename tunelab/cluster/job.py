"""What is known of a search that was handed over to a cluster as a job of Ray's, and what such jobs are called.

The first job of a run has the run's name. Each that goes on with the run on the same cluster has a number behind it,
since Ray takes no name twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

PREFIX = "tunelab-"
"""Of the names of our jobs; the run's name stands behind it."""
OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_NAME = re.compile(rf"{PREFIX}(?P<run>[^~]+)(?:~(?P<number>[0-9]+))?")
"""No run's name has a tilde."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A search on a cluster."""

    run: str
    """Name of the run."""
    status: str
    """Ray's: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    storage: str
    """URL of the run."""
    begun: float | None
    """Seconds since 1970."""
    exit_code: int | None
    """Of the search, when it is over and Ray knows it."""
    message: str
    """Ray's, of how it ended."""
    number: int = 1
    """Of the run's jobs on this cluster, from 1."""

    @property
    def over(self) -> bool:
        """Whether it is."""
        return self.status in OVER

    @property
    def name(self) -> str:
        """What Ray calls it."""
        return name_of(self.run, self.number)


def name_of(run: str, number: int) -> str:
    """What Ray calls a job.

    Args:
        run: name of the run.
        number: of its jobs on the cluster, from 1.
    """
    return f"{PREFIX}{run}" if number == 1 else f"{PREFIX}{run}~{number}"


def job_of(details: Any) -> Job | None:
    """What Ray tells of a job; None: it is none of ours.

    Args:
        details: as Ray's client lists them.
    """
    named = _NAME.fullmatch(details.submission_id or "")
    if named is None:
        return None
    return Job(
        run=named["run"],
        status=str(getattr(details.status, "value", details.status)),
        storage=(details.metadata or {}).get("storage", ""),
        begun=details.start_time / 1000 if details.start_time else None,
        exit_code=details.driver_exit_code,
        message=details.message or "",
        number=int(named["number"] or 1),
    )
