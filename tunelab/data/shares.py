"""A part of the training scans for trials at a lower fidelity: the same for all, larger parts holding the smaller.

Tune, validation and test stay as they are, so that what a trial comes to is measured on the same scans at every step.
What is trained on is what counts for normalisation too. Where there are folds, only the first one is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunelab.data.access import Access
from tunelab.data.dataset import Dataset
from tunelab.errors import DataError
from tunelab.fidelity import At
from tunelab.preprocessing import Preprocessing, thinned

LEFT_OUT = ""
"""The split of a training scan that is not trained on."""


def open_at(access: Access, chain: Preprocessing, fidelity: At, seed: int) -> Dataset:
    """The data set as a trial of this fidelity trains on it.

    Args:
        access: to the data set.
        chain: of the trial's params.
        fidelity: of the trial; below the full one, a data set that has folds is as its first fold deals it.
        seed: of the search; chooses the scans.

    Raises:
        TunelabError: it cannot be prepared or opened here.
    """
    dataset = access.open(thinned(chain, int(fidelity.get("decimation", 1))))
    if fidelity and dataset.folds:
        dataset = dataset.fold(0)
    return share_of(dataset, fidelity["data"], seed) if "data" in fidelity else dataset


def share_of(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The same scans, with no more than a share of the training scans in a split.

    Groups are taken whole, in an order that the seed fixes, until the share is reached: one with positives first, then
    such that every part has about as many with positives for each one without as there are in all.

    Args:
        dataset: with four splits.
        share: of the training scans, above 0.
        seed: fixes the order.
    """
    train = [i for i, split in enumerate(dataset.splits) if split == "train"]
    wanted, taken, count = share * len(train), set[str](), 0
    sizes: dict[str, int] = {}
    for i in train:
        sizes[dataset.groups[i]] = sizes.get(dataset.groups[i], 0) + 1
    for group in _order(dataset, train, seed):
        if count >= wanted - 1e-9:  # 0.1 of 30 is not quite 3
            break
        taken.add(group)
        count += sizes[group]
    splits = list(dataset.splits)
    for i in train:
        if dataset.groups[i] not in taken:
            splits[i] = LEFT_OUT
    return dataset.with_splits(splits)


def sizes_of(dataset: Dataset, shares: Sequence[float], seed: int) -> list[int]:
    """The number of training scans that each share comes to, and of all of them.

    Args:
        dataset: as it is opened in full.
        shares: ascending.
        seed: of the search.

    Raises:
        DataError: two of them come to the same scans, so that a step would only repeat the one before.
    """
    whole = dataset.fold(0) if dataset.folds else dataset
    sizes = [share_of(whole, share, seed).splits.count("train") for share in shares]
    sizes.append(whole.splits.count("train"))
    for i, share in enumerate(shares):
        if sizes[i] == sizes[i + 1]:
            groups = len({g for g, split in zip(whole.groups, whole.splits, strict=True) if split == "train"})
            other = f"the share {shares[i + 1]:g}" if i + 1 < len(shares) else "all"
            raise DataError(
                f"fidelity.data: {share:g} of {sizes[-1]} training scans, in {groups} groups that are never parted, "
                f"comes to {sizes[i]} scans, and so does {other}; give shares that are further apart, or fewer of them"
            )
    return sizes


def _order(dataset: Dataset, train: Sequence[int], seed: int) -> list[str]:
    """The groups of the training scans in the order in which they are taken."""
    positives = dataset.positives_of_scans()
    holding = {dataset.groups[i] for i in train if positives[i] > 0}
    groups = sorted({dataset.groups[i] for i in train})
    shuffled = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    place: dict[str, float] = {}
    for some, first in (([g for g in shuffled if g in holding], 0.0), ([g for g in shuffled if g not in holding], 0.5)):
        place |= {group: (number + first) / len(some) for number, group in enumerate(some)}
    return sorted(shuffled, key=lambda group: place[group])  # stable: of equals the one that was shuffled before
