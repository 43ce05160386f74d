"""One params over all folds: a model for each, judged on the fold that it never saw, and what they come to together.

Below some sixty scans a validation split of its own is so thin that F1 over it ranks models by luck. Here each of K
folds is validation once: model k is trained on the other folds but one, fold k + 1 (after the last, the first) is its
tune split, and fold k its validation split. Every scan but those of test is then answered by a model that did not
have it, and the counts of those answers, pooled, rank the trial.

What is chosen, and what judges it:

- The weights of model k are fitted on K - 2 folds and its epoch is chosen on fold k + 1; neither sees fold k.
- The threshold of fold k is the best on the answers of all *other* folds. No label of fold k enters it directly.
- So the counts of fold k are those of a decision for which fold k was not used, but for a leak of second order: the
  other folds' answers, on which the threshold of fold k is chosen, come from models that had fold k among their
  training folds, or, model k - 1, as its tune split. That one number can thus carry something of fold k's labels, by
  way of other models' scores on other scans. Only a cross-fitting inside each fold, at K times the training, would
  close it. That scores of different models are not alike makes the threshold worse; it costs F1, and never gives it.
- *Params* are chosen on these scans. The sampler and the rungs go by fold 1, the tune split of model 0, whose scans
  are judged too, and the best of many trials is best by luck in part. The pooled F1 of a winner flatters it
  therefore, as any validation F1 does. Only the test part, which no fold holds and which is answered once, does not.

Average precision is taken of each fold and averaged over those where it is defined: it goes by the order of the
scores, and scores of different models have no common order. F1 is taken of pooled counts: F1 over a few scans is often
undefined or 0, and a mean of such is worth little.

For the test part the K models answer together, with the mean of their scores, each brought to a common scale first:
:func:`centred` puts its own threshold at 0.5. It is not known here who runs a step, or who stores weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tunelab.checkpoint import Arrays
from tunelab.data.dataset import Dataset
from tunelab.errors import StateError
from tunelab.outcome import Step
from tunelab.pooling import Scores, pool
from tunelab.training import Schedule, Training


class CrossFit:
    """One params under training, over all folds of a data set, or as it is where it has none.

    A step is one epoch. The first fold comes first, trained exactly as if there were no others; whoever steps may stop
    there. Everything needed to go on elsewhere, in the middle of any fold, is in :meth:`save`.
    """

    def __init__(self, params: Mapping[str, Any], data: Dataset, schedule: Schedule) -> None:
        self.params = params
        self.data = data
        self.schedule = schedule
        self._scores: list[Scores] = []
        self._dense: list[float] = []
        self._training: Training | None = self._begin()

    @property
    def training(self) -> Training:
        """Of the fold that goes on; a new one where the last has been done."""
        if self._training is None:
            self._training = self._begin()
        return self._training

    def step(self) -> tuple[Step, Arrays]:
        """Train and evaluate one epoch.

        Returns:
            What it came to, and the weights where this is now the chosen epoch of its fold; otherwise none.
        """
        training, fold = self.training, len(self._scores)
        outcome = training.run_epoch()
        weights = training.best_weights if outcome.improved else ()
        ended, failed, pooled = outcome.ended, outcome.failed, None
        if self.data.folds:
            ended = ""
            failed = f"fold {fold}: {failed}" if failed and fold else failed
            if outcome.ended:
                self._finish(training)
                if len(self._scores) == self.data.n_folds:
                    ended, pooled = "folds", pool(self.data, self._scores, self._dense)
        return Step(fold=fold, outcome=outcome, ended=ended, failed=failed, pooled=pooled), weights

    @property
    def notes(self) -> tuple[str, ...]:
        """For people, of the model."""
        return self.training.notes

    @property
    def parameters(self) -> int:
        """Of the model, all of them."""
        return int(self.training.model.count_params())

    def save(self) -> tuple[dict[str, Arrays], dict[str, Any]]:
        """All that is needed to go on: what the finished folds came to, and the training that goes on."""
        arrays, state = self._training.save() if self._training is not None else ({}, None)
        return {**arrays, "scores": self._scores, "dense": [np.array(self._dense)]}, {"training": state}

    def load(self, arrays: Mapping[str, Arrays], state: Mapping[str, Any], where: str) -> None:
        """Go on from what :meth:`save` gave. One that raised is to be thrown away.

        Args:
            arrays: by name.
            state: what JSON can hold.
            where: they are from, for messages.

        Raises:
            StateError: they are of another model, data set or version.
        """
        try:
            scores, (dense,), training = arrays["scores"], arrays["dense"], state["training"]
        except (KeyError, ValueError) as error:
            raise StateError(f"{where}: lacks {error} of a trial; it was written by another version") from error
        shapes = [(self._of_fold(k).part("validation").n_traces,) for k in range(self.data.n_folds)]
        if [one.shape for one in scores] != shapes[: len(scores)] or dense.shape != (len(scores),):
            raise StateError(f"{where}: holds the answers of other folds; the data set has changed")
        if self._scores or scores:
            self._training = None  # it is of another fold
        self._scores, self._dense = list(scores), dense.tolist()
        if training is None:
            self._training = None
        else:
            self.training.load(arrays, training, where)

    def _of_fold(self, k: int) -> Dataset:
        return self.data.fold(k) if self.data.folds else self.data

    def _begin(self) -> Training:
        fold = len(self._scores)
        schedule = dataclasses.replace(self.schedule, seed=seed_of(self.schedule.seed, fold))
        return Training(self.params, self._of_fold(fold), schedule)

    def _finish(self, training: Training) -> None:
        """Keep the answers of the chosen epoch's weights on the fold's validation split, and let the training go."""
        part = self._of_fold(len(self._scores)).part("validation")
        training.model.set_weights(training.best_weights)
        self._dense.append(training.best_dense if math.isfinite(training.best_dense) else math.nan)
        self._scores.append(training.scores(part))
        self._training = None


def seed_of(seed: int, fold: int) -> int:
    """The seed of a fold's training: the trial's own on the first, another on each of the others."""
    return int(np.random.SeedSequence([seed, fold]).generate_state(1)[0]) if fold else seed
