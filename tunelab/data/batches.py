"""Scans in batches, as Keras takes them. The only file of this room that imports Keras."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tunelab.data.dataset import Part

Order = NDArray[np.intp]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The scans of a part in a given order, zero-padded at the end to one length.

    A batch is ``({"traces": (scan, trace, sample), "lengths": (scan,)}, labels (scan, trace), weights (scan,
    trace))``; a weight is 0 on padding, ``class_weight`` on a positive trace and 1 on a negative one. All batches
    are equally long, since a new length would be compiled anew; only the last one may hold fewer scans.
    """

    def __init__(self, part: Part, order: Order, *, size: int, longest: int, class_weight: float = 1.0) -> None:
        super().__init__()
        self.part = part
        self.order = order
        self.size = size
        self.longest = longest
        self.class_weight = class_weight

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.order) / self.size)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], NDArray[np.int32], NDArray[np.float32]]:
        """One batch."""
        chosen = self.order[index * self.size : (index + 1) * self.size]
        traces = np.zeros((len(chosen), self.longest, self.part.samples.n_samples), np.float32)
        labels = np.zeros(traces.shape[:2], np.int32)
        weights = np.zeros(traces.shape[:2], np.float32)
        for row, scan in enumerate(chosen):
            here, own = self.part.read(int(scan)), self.part.labels_of(int(scan))
            long = len(own)
            traces[row, :long] = here
            labels[row, :long] = own
            weights[row, :long] = np.where(own == 1, self.class_weight, 1.0)
        return {"traces": traces, "lengths": self.part.lengths[chosen].astype(np.int32)}, labels, weights
