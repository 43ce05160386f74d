"""Scans in batches, as models take them, and their way to the framework. The only file of this room that knows Keras.

Which scans share a batch is decided in :mod:`tunelab.data.order`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tunelab.data.augment import Augmented
from tunelab.data.dataset import Part
from tunelab.data.order import Scans, padded_lengths
from tunelab.data.samples import Moments, moments_of

Batch = tuple[dict[str, Any], NDArray[np.int32], NDArray[np.float32]]
Take = Callable[[tuple[int, ...]], NDArray[np.float32]]
"""Gives an array of a shape, whatever is in it."""

AHEAD_BYTES = 2**22
"""Size of a batch above which the next one is read while one is trained on: copying it then takes longer than handing
it from thread to thread, and a wait for the disk is hidden."""
_ALIGNMENT = 64
"""Bytes at which TensorFlow and JAX want an array to start, or they copy it."""


class Batches(Sequence[Batch]):
    """The scans of a part in given batches, each zero-padded at the end to its own length.

    A batch is ``({"traces": (scan, trace, sample), "lengths": (scan,)}, labels (scan, trace), weights (scan,
    trace))``; a weight is 0 on padding, ``class_weight`` on a positive trace and 1 on a negative one. Its length is
    that of its longest scan by :func:`~tunelab.data.order.padded_lengths`. Where they are asked for, the moments of
    the scans come with the traces: ``"moments"``, shape (scan, 2, sample). Where scans are augmented, labels, weights
    and moments are those of what came of it.
    """

    def __init__(
        self,
        part: Part,
        batches: Sequence[Scans],
        *,
        longest: int,
        class_weight: float = 1.0,
        moments: bool = False,
        augment: Augmented | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            part: what the scans are of.
            batches: the scans of each batch.
            longest: traces of the longest scan of the data set.
            class_weight: of a positive trace.
            moments: whether they are asked for.
            augment: how scans of this part are varied; None: they are not.
        """
        self.part = part
        self.batches = batches
        self.longest = longest
        self.class_weight = class_weight
        self.moments = moments
        self.augment = augment

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        """One batch, in arrays of its own."""
        return self.read(index, lambda shape: np.empty(shape, np.float32))

    def shape(self, index: int) -> tuple[int, int, int]:
        """Of a batch's traces, (scan, trace, sample)."""
        lengths = self.part.lengths[self.batches[index]]
        return len(lengths), int(padded_lengths(lengths, self.longest).max()), self.part.samples.n_samples

    def read(self, index: int, take: Take) -> Batch:
        """One batch, its traces in what ``take`` gives; see :class:`Batches`."""
        chosen = self.batches[index]
        lengths = self.part.lengths[chosen]
        traces = take(self.shape(index))
        varied: list[NDArray[np.int8]] = []
        for row, (scan, length) in enumerate(zip(chosen, lengths, strict=True)):
            if self.augment is None:
                traces[row, :length] = self.part.read(int(scan))
            else:
                traces[row, :length], labels = self.augment.read(int(scan))
                varied.append(labels)
            traces[row, length:] = 0
        if self.augment is None:
            return self.with_traces(index, traces)
        own = [moments_of(traces[row, :length]) for row, length in enumerate(lengths)] if self.moments else None
        return self._batch(index, traces, varied, None if own is None else np.stack(own))

    def with_traces(self, index: int, traces: Any) -> Batch:
        """One batch of scans as they are, but for its traces, which are these."""
        chosen = self.batches[index]
        moments = self.part.samples.moments(self.part.positions[chosen]) if self.moments else None
        return self._batch(index, traces, [self.part.labels_of(int(scan)) for scan in chosen], moments)

    def _batch(
        self, index: int, traces: Any, labels_of_scans: Sequence[NDArray[np.int8]], moments: Moments | None
    ) -> Batch:
        lengths = self.part.lengths[self.batches[index]]
        labels = np.zeros(self.shape(index)[:2], np.int32)
        weights = np.zeros(labels.shape, np.float32)
        for row, (own, length) in enumerate(zip(labels_of_scans, lengths, strict=True)):
            labels[row, :length] = own
            weights[row, :length] = np.where(own == 1, self.class_weight, 1.0)
        inputs = {"traces": traces, "lengths": lengths.astype(np.int32)}
        if moments is not None:
            inputs["moments"] = moments
        return inputs, labels, weights


class Feed:
    """Hands batches to Keras, one :class:`Batches` after another; make one for a training and keep it.

    A batch's traces lie in memory that is used again, since fresh memory of this size takes longer to be given by the
    kernel than a scan takes to be copied, and TensorFlow takes them from there without a copy of its own. Where a
    GPU's memory holds all scans of a part, they are sent there once, and a batch is picked there; but scans that are
    varied each time they are read cannot stay there.
    """

    def __init__(self, resident_bytes: int = 0) -> None:
        """Nothing is allocated yet.

        Args:
            resident_bytes: of a GPU's memory, for scans that stay there.
        """
        self._free: list[NDArray[np.uint8]] = []
        self._spare = resident_bytes
        self._resident: dict[int, tuple[Part, Any]] = {}
        """By identity: a part, and its scans as a tensor, each padded to the longest."""

    def of(self, batches: Batches) -> Iterator[Batch]:
        """One batch after another, the next one read ahead. A batch's traces are good until the next one is asked for.

        Args:
            batches: of which scans.
        """
        if not len(batches):
            return
        if (resident := self._kept(batches)) is not None:
            for index in range(len(batches)):
                yield batches.with_traces(index, _picked(resident, batches, index))
            return
        if max(int(np.prod(batches.shape(i))) for i in range(len(batches))) * 4 < AHEAD_BYTES:
            yield from (batches[i] for i in range(len(batches)))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as reader:
            coming = reader.submit(self._read, batches, 0)
            for index in range(len(batches)):
                batch, memory = coming.result()
                if index + 1 < len(batches):
                    coming = reader.submit(self._read, batches, index + 1)
                try:
                    yield _handed(batch)
                finally:
                    del batch
                    self._free.append(memory)

    def _kept(self, batches: Batches) -> Any:
        """The part's scans as a tensor of the accelerator, None where they do not fit or are not fed as they are."""
        if batches.augment is not None:
            return None
        part = batches.part
        if id(part) in self._resident:
            return self._resident[id(part)][1]
        size = part.n_scans * batches.longest * part.samples.n_samples * np.dtype(np.float32).itemsize
        if size > self._spare:
            return None
        everything = Batches(part, [np.arange(part.n_scans)], longest=batches.longest)
        padded = np.zeros((part.n_scans, batches.longest, part.samples.n_samples), np.float32)
        long = everything.shape(0)[1]
        everything.read(0, lambda _: padded[:, :long])
        self._spare -= size
        self._resident[id(part)] = part, keras.ops.convert_to_tensor(padded)
        return self._resident[id(part)][1]

    def _read(self, batches: Batches, index: int) -> tuple[Batch, NDArray[np.uint8]]:
        memory: list[NDArray[np.uint8]] = []

        def take(shape: tuple[int, ...]) -> NDArray[np.float32]:
            size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
            fitting = [i for i, one in enumerate(self._free) if len(one) >= size]
            if not fitting:
                self._free.clear()  # too small for now, so likely for the rest
            memory.append(self._free.pop(fitting[0]) if fitting else _aligned(size))
            return memory[0][:size].view(np.float32).reshape(shape)

        return batches.read(index, take), memory[0]


def _aligned(size: int) -> NDArray[np.uint8]:
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size]


def _picked(resident: Any, batches: Batches, index: int) -> Any:
    """A batch's traces, picked where they are."""
    picked = keras.ops.take(resident, keras.ops.convert_to_tensor(batches.batches[index].astype(np.int32)), axis=0)
    return picked[:, : batches.shape(index)[1]]


def _handed(batch: Batch) -> Batch:
    """The batch, its traces as TensorFlow takes them without a copy; they must be aligned, or it aborts."""
    inputs, labels, weights = batch
    if keras.backend.backend() != "tensorflow":
        return batch
    import tensorflow as tf

    traces = tf.experimental.dlpack.from_dlpack(inputs["traces"].__dlpack__())
    return {**inputs, "traces": traces}, labels, weights
