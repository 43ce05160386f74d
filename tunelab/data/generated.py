"""A data set that was generated, for those who train: in memory, and small enough to travel to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from tunelab.data.access import Ready
from tunelab.data.dataset import Dataset, make_dataset
from tunelab.data.preprocess import apply, outcome
from tunelab.data.request import Progress
from tunelab.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A data set in memory, small enough to travel."""

    dataset: Dataset
    chains: tuple[Preprocessing, ...]
    _done: dict[Preprocessing, Dataset] = field(default_factory=dict)

    def open(self, chain: Preprocessing) -> Dataset:
        """See :class:`~tunelab.data.access.Access`."""
        if chain not in self._done:
            self._done[chain] = self.dataset if chain.is_identity else preprocessed(self.dataset, chain)
        return self._done[chain]

    def ready(self, progress: Progress) -> Ready:
        """See :meth:`~tunelab.data.prepared.Prepared.ready`; there is nothing to tell, and it travels as it is."""
        return Ready(datasets={chain: self.open(chain) for chain in self.chains}, access=self)

    def __reduce__(self) -> tuple[object, tuple[Dataset, tuple[Preprocessing, ...]]]:
        """Without what was done here."""
        return _generated, (self.dataset, self.chains)


def _generated(dataset: Dataset, chains: tuple[Preprocessing, ...]) -> Generated:
    return Generated(dataset=dataset, chains=chains)


def preprocessed(dataset: Dataset, chain: Preprocessing) -> Dataset:
    """A data set in memory after a chain; digests stay those of the scans as recorded.

    Raises:
        DataError: the chain does not fit the recordings.
    """
    channels = dataset.channels
    _, dt = outcome(dataset.n_samples, dataset.dt, chain, channels=channels)
    ends = np.cumsum(dataset.lengths)
    parts = zip(dataset.scans, ends - dataset.lengths, ends, strict=True)
    made = make_dataset(
        scans={
            scan: apply(dataset.samples.read(i), dataset.dt, chain, channels=channels)
            for i, scan in enumerate(dataset.scans)
        },
        labels={scan: dataset.labels[start:end] for scan, start, end in parts},
        splits=dict(zip(dataset.scans, dataset.splits, strict=True)),
        dt=dt,
        source=dataset.source,
    )
    return replace(dataset, samples=made.samples, dt=dt)
