"""Scans in batches, as Keras takes them. The only file of this room that imports Keras.

Which scans share a batch is decided in :mod:`tunelab.data.order`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tunelab.data.dataset import Part
from tunelab.data.order import Scans, padded_lengths

Batch = tuple[dict[str, NDArray[Any]], NDArray[np.int32], NDArray[np.float32]]

AHEAD = 1
"""Batches kept ready while another one is trained on.

Reading memory-mapped scans and padding them takes 2 % of an epoch when they are in the page cache and 7 % when they
are not (300 scans of 5,000 samples, one recurrent layer, two cores). None, one or two batches ahead, or two reading
threads of Keras, came out the same within 3 %; so one, which covers a wait for the disk, and no threads, which take
cores from other trials and memory for a queue.
"""


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The scans of a part in given batches, each zero-padded at the end to its own length.

    A batch is ``({"traces": (scan, trace, sample), "lengths": (scan,)}, labels (scan, trace), weights (scan,
    trace))``; a weight is 0 on padding, ``class_weight`` on a positive trace and 1 on a negative one. Its length is
    that of its longest scan by :func:`~tunelab.data.order.padded_lengths`.
    """

    def __init__(self, part: Part, batches: Sequence[Scans], *, longest: int, class_weight: float = 1.0) -> None:
        """Nothing is read yet.

        Args:
            part: what the scans are of.
            batches: the scans of each batch.
            longest: traces of the longest scan of the data set.
            class_weight: of a positive trace.
        """
        super().__init__()
        self.part = part
        self.batches = batches
        self.longest = longest
        self.class_weight = class_weight

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        """One batch."""
        chosen = self.batches[index]
        lengths = self.part.lengths[chosen]
        long = int(padded_lengths(lengths, self.longest).max())
        traces = np.zeros((len(chosen), long, self.part.samples.n_samples), np.float32)
        labels = np.zeros(traces.shape[:2], np.int32)
        weights = np.zeros(traces.shape[:2], np.float32)
        for row, (scan, length) in enumerate(zip(chosen, lengths, strict=True)):
            traces[row, :length] = self.part.read(int(scan))
            labels[row, :length] = own = self.part.labels_of(int(scan))
            weights[row, :length] = np.where(own == 1, self.class_weight, 1.0)
        return {"traces": traces, "lengths": lengths.astype(np.int32)}, labels, weights


class Feed:
    """Hands batches to Keras, one :class:`Batches` after another; make one for a training and keep it.

    Under TensorFlow it hands out a tf.data.Dataset. Keras would make one by itself, but it takes the shapes from the
    first two batches: if these agree, it promises that length of all of them and fails at the first that differs; and
    as the promise is part of the type, every other one would trace the training step anew. Here the lengths are left
    open, so a step is traced once.

    TensorFlow keeps the generator that it reads from, and all that this one knows, until ``clear_session``. So there
    is one for all epochs and splits, which is told what to go through next; a new one for each would let memory grow.
    """

    def __init__(self, n_samples: int) -> None:
        """Nothing is made yet.

        Args:
            n_samples: samples of every trace.
        """
        self.n_samples = n_samples
        self._source: Any = None
        self._batches: Sequence[Batch] = ()

    def of(self, batches: Batches) -> Any:
        """What ``fit`` takes, and what can be iterated over for one batch after another, until the next call."""
        if keras.backend.backend() != "tensorflow":
            return batches
        import tensorflow as tf

        if self._source is None:
            self._source = self._made()
        self._batches = batches
        # Keras asks how many there are, and warns where a data set that does not tell ends
        data = self._source.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(AHEAD)
        options = tf.data.Options()
        # its thread sleeps for 10, 20, 40... ms, and the end of an epoch now and then waits until it wakes: epochs of
        # 0.3 s took 0.63 s, those of 3 s took 5.11 s; here it has nothing to tune
        options.autotune.enabled = False
        return data.with_options(options)

    def _made(self) -> Any:
        import tensorflow as tf

        signature = (
            {
                "traces": tf.TensorSpec((None, None, self.n_samples), tf.float32),
                "lengths": tf.TensorSpec((None,), tf.int32),
            },
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((None, None), tf.float32),
        )
        return tf.data.Dataset.from_generator(self._each, output_signature=signature)

    def _each(self) -> Iterator[Batch]:
        batches = self._batches  # one that is still read goes on with its own after the next has been asked for
        for index in range(len(batches)):
            yield batches[index]
