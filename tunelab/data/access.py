"""What a search hands to its trials instead of samples: something that opens the data set where they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tunelab.data.dataset import Dataset
from tunelab.preprocessing import Preprocessing


class Access(Protocol):
    """The data set of a search, after any of its chains."""

    def open(self, chain: Preprocessing) -> Dataset:
        """The data set after a chain; the same object again within a process.

        Raises:
            TunelabError: it cannot be prepared or opened here.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A data set that was opened here, and what opens the same elsewhere."""

    datasets: Mapping[Preprocessing, Dataset]
    """By chain."""
    access: Access
    """For trials: this entry, or on other nodes the same scans."""
