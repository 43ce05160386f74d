"""Params and a data set -> epochs of metrics, one trial's training. No Ray here, and nothing chosen on validation.

One epoch is one step, and ends with the answers on the tune and validation splits. By the pooled protocol it is every
training scan once, in an order that seed and epoch fix. By the incremental one it is a shard: a few passes over its
scans alone, of which the best on the tune split is kept, before the next epoch goes on to the next shard. Where scans
are augmented, that is done in these passes alone; what is evaluated is as it is. The tune split alone decides the
threshold, the chosen epoch and when patience is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tunelab import metrics
from tunelab.augmentation import augmentation_of
from tunelab.averaging import averaged
from tunelab.backend import data_bytes
from tunelab.checkpoint import Arrays, digest, pack, unpack
from tunelab.compiled import answer, compiled_for, train
from tunelab.data.augment import augmented, notes_on
from tunelab.data.batches import Batches, Feed
from tunelab.data.dataset import Dataset, Part
from tunelab.data.order import Scans, reading_batches, training_batches
from tunelab.data.statistics import of_part
from tunelab.errors import StateError
from tunelab.learning_rates import Rates
from tunelab.measures import measured
from tunelab.models import build_model
from tunelab.models.accelerator import unused
from tunelab.models.layers import wants_moments
from tunelab.outcome import Outcome
from tunelab.stopwatch import Stopwatch

__all__ = [
    "Outcome",
    "Schedule",
    "Training",
    "digest",
    "pack",
    "unpack",
]

EVALUATION_SCANS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long to train."""

    max_epochs: int
    patience: int
    """Epochs without a better average precision on the tune split before a pooled training ends itself."""
    seed: int
    """Fixes weights, dropout and the order of scans."""


class Training:
    """A model under training. Everything it needs to go on elsewhere is in :meth:`save`."""

    def __init__(self, params: Mapping[str, Any], data: Dataset, schedule: Schedule) -> None:
        self.params = params
        self.schedule = schedule
        self.data = data
        self.longest = int(data.lengths.max())
        self.train, self.tune, self.validation = (data.part(split) for split in ("train", "tune", "validation"))
        self.shards = tuple(int(shard) for shard in np.unique(self.train.shards))
        self.augmentation = augmentation_of(params)
        self.statistics = None if params["normalisation"] == "none" else of_part(self.train)
        self.model = compiled_for(self, params, data.n_samples, self.statistics, schedule.seed)
        self.feed = Feed(data_bytes())
        self.watch = Stopwatch()
        self.incremental = params["protocol"] == "incremental"
        self.rates = Rates(
            params["rate_schedule"],
            params["learning_rate"],
            epochs=min(schedule.max_epochs, len(self.shards)) if self.incremental else schedule.max_epochs,
            passes=params["shard_epochs"] if self.incremental else 1,
        )
        self.rate = self.rates.base
        self.average: Arrays = ()
        """Of the weights after each epoch, where params ask for it."""
        self.epoch = 0
        self.seconds = 0.0
        self.best_epoch = 0
        self.best_dense = -math.inf
        self.best_weights: Arrays = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """For people: what of a GPU this model does not use, and what of its params does nothing, and why."""
        incremental = self.params["protocol"] == "incremental"
        passes = [self._of_shard(shard) for shard in self.shards] if incremental else [np.arange(self.train.n_scans)]
        return (*unused(self.model), *notes_on(self.train, passes, self.augmentation))

    def run_epoch(self) -> Outcome:
        """Train and evaluate one epoch."""
        begun = time.perf_counter()
        values = self._train_on_shard() if self.incremental else self._train_on_all()
        values["learning_rate"] = self.rate
        self.epoch += 1
        if not math.isfinite(values["loss"]):
            where = f" (pass {values['shard_epochs']} over shard {values['shard']})" if self.incremental else ""
            return self._outcome(begun, values, failed=f"the loss is {values['loss']} in epoch {self.epoch}{where}")
        trained = self._put_average()
        values |= self._evaluate()
        dense = values["tune_average_precision"]
        improved = self.epoch == 1 or dense > self.best_dense
        if improved:
            self.best_epoch = self.epoch
            self.best_dense = dense if math.isfinite(dense) else -math.inf
            self.best_weights = self.model.get_weights()
        if trained:
            self.model.set_weights(trained)
        self.rates.note(dense)
        return self._outcome(begun, values, improved=improved, ended=self._ended())

    def chosen(self) -> keras.Model:
        """The chosen epoch's model of plain layers alone, which can be saved and loaded; it answers the same."""
        model = build_model({**self.params, "plain": True}, self.data.n_samples, self.statistics)
        model.set_weights(self.best_weights)
        return model

    def scores(self, part: Part) -> NDArray[np.float64]:
        """The model's share of "positive" for each trace of a part, in its order, shape (trace,)."""
        scores = np.empty(part.n_traces)
        groups = reading_batches(part, size=EVALUATION_SCANS, longest=self.longest)
        fed = self.feed.of(Batches(part, groups, longest=self.longest))
        for scans, (inputs, _, _) in zip(groups, fed, strict=True):
            # predict() would make one array of all answers, and they differ in length
            with self.watch.over(len(scans)):
                answers = answer(self.model, inputs)
            for scan, shares in zip(scans, answers, strict=True):
                start, length = part.starts[scan], part.lengths[scan]
                scores[start : start + length] = shares[:length]
        return scores

    def save(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """All that is needed to go on: variables, seeds and optimizer as they are, the chosen epoch's weights.

        Between epochs that is all of the incremental protocol too: which shard is next follows from the epoch.
        """
        arrays = {
            "model": self._variables(self.model),
            "optimizer": self._variables(self.model.optimizer),
            "best": self.best_weights,
            "average": self.average,
        }
        state = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "best_epoch": self.best_epoch,
            "best_dense": self.best_dense if math.isfinite(self.best_dense) else None,
            "rates": self.rates.save(),
        }
        return arrays, state

    def load(self, arrays: Mapping[str, Arrays], state: Mapping[str, Any], where: str) -> None:
        """Go on from what :meth:`save` gave. One that raised is to be thrown away.

        Args:
            arrays: by name.
            state: what JSON can hold.
            where: they are from, for messages.

        Raises:
            StateError: they are of another model, or of another version.
        """
        self.model.optimizer.build(self.model.trainable_variables)
        try:
            self._assign(self.model, arrays["model"], where)
            self._assign(self.model.optimizer, arrays["optimizer"], where)
            self.best_weights, self.average = arrays["best"], arrays["average"]
            self.epoch, self.seconds, self.best_epoch = state["epoch"], state["seconds"], state["best_epoch"]
            self.best_dense = -math.inf if state["best_dense"] is None else state["best_dense"]
            self.rates.load(state["rates"])
            self.rate = math.nan  # the optimizer has the one of that step
        except KeyError as error:
            raise StateError(f"{where}: lacks {error} of a training; it was written by another version") from error

    def _train_on_all(self) -> dict[str, float]:
        return {"loss": self._fit(np.arange(self.train.n_scans), self.epoch)}

    def _train_on_shard(self) -> dict[str, float]:
        """Passes over the next shard until one more is not worth it; the model is then as after the best of them.

        The optimizer goes on from the last pass, as it does when Keras restores the best weights.
        """
        shard = self.shards[self.epoch]
        scans = self._of_shard(shard)
        kept: Arrays = ()
        best, best_dense, kept_loss, done = 0, -math.inf, math.nan, 0
        while done < self.params["shard_epochs"] and done - best < self.params["shard_patience"]:
            loss = self._fit(scans, self.epoch, done)
            done += 1
            if not math.isfinite(loss):
                return {"loss": loss, "shard": shard + 1, "shard_epochs": done}
            dense = metrics.average_precision(self.tune.labels, self.scores(self.tune))
            if done == 1 or dense > best_dense:
                best, best_dense = done, dense if math.isfinite(dense) else -math.inf
                kept, kept_loss = self.model.get_weights(), loss
        self.model.set_weights(kept)
        return {"loss": kept_loss, "shard": shard + 1, "shard_epochs": done}

    def _of_shard(self, shard: int) -> Scans:
        return np.flatnonzero(self.train.shards == shard)

    def _fit(self, scans: Scans, *number: int) -> float:
        """The loss of one pass over these training scans, whose order and variations the seed and these numbers fix."""
        groups = training_batches(
            self.train,
            scans,
            size=self.params["batch_size"],
            longest=self.longest,
            seed=(self.schedule.seed, *number),
        )
        batches = Batches(
            self.train,
            groups,
            longest=self.longest,
            class_weight=self.params["class_weight"],
            moments=wants_moments(self.model),
            augment=augmented(self.train, scans, self.augmentation, seed=self.schedule.seed, number=number),
        )
        total = 0.0
        for step, batch in enumerate(self.feed.of(batches)):
            self._set_rate(self.rates.at(*number, share=step / len(batches)))
            loss = train(self.model, batch)
            if not math.isfinite(loss):
                return loss
            total += loss * len(batch[1])
        return total / len(scans) if len(scans) else math.nan

    def _set_rate(self, rate: float) -> None:
        if rate != self.rate:
            self.model.optimizer.learning_rate = rate
            self.rate = rate

    def _put_average(self) -> Arrays:
        """Bring the model to the average over epochs; its own weights, or none where no average is asked for.

        Of a shard the best pass counts, and by the answers of its own weights a pass is the best.
        """
        share = self.params["averaging"]
        if not share:
            return ()
        trained: Arrays = self.model.get_weights()
        self.average = averaged(self.average, trained, share, self.epoch)
        self.model.set_weights(self.average)
        return trained

    def _ended(self) -> str:
        if self.incremental and self.epoch >= len(self.shards):
            return "shards"
        if self.epoch >= self.schedule.max_epochs:
            return "epochs"
        return "patience" if not self.incremental and self.epoch - self.best_epoch >= self.schedule.patience else ""

    def _evaluate(self) -> dict[str, float]:
        values = measured(self.tune, self.scores(self.tune), self.validation, self.scores(self.validation))
        return {**values, "predict_ms": self.watch.take()}

    def _outcome(
        self, begun: float, values: dict[str, float], *, improved: bool = False, ended: str = "", failed: str = ""
    ) -> Outcome:
        self.seconds += time.perf_counter() - begun
        return Outcome(
            epoch=self.epoch, seconds=self.seconds, metrics=values, improved=improved, ended=ended, failed=failed
        )

    @staticmethod
    def _variables(owner: Any) -> Arrays:
        return [keras.ops.convert_to_numpy(variable) for variable in owner.variables]

    @staticmethod
    def _assign(owner: Any, arrays: Arrays, where: str) -> None:
        if [a.shape for a in arrays] != [tuple(v.shape) for v in owner.variables]:
            raise StateError(f"{where}: holds the variables of another model")
        for variable, array in zip(owner.variables, arrays, strict=True):
            variable.assign(array)
