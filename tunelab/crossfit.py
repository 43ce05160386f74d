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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tunelab import metrics
from tunelab.checkpoint import read_checkpoint, unpack, write_checkpoint
from tunelab.data.dataset import Dataset, Part
from tunelab.errors import StateError
from tunelab.measures import judge
from tunelab.metrics import Counts
from tunelab.ranking import Pooled
from tunelab.training import Outcome, Schedule, Training

Scores = NDArray[np.float64]

FOLDS = "folds"
"""Folder, below that of the training that goes on, of what the finished folds came to."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an epoch of one fold came to."""

    fold: int
    """From 0; always 0 where there are no folds."""
    outcome: Outcome
    """Of the fold's training; why that one ended."""
    ended: str
    """Why the whole trial is over, or empty: as the training says, or "folds" when all are done."""
    failed: str
    """Why no more steps are worth it, or empty."""
    pooled: Pooled | None
    """With the last step of the last fold."""


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

    def step(self) -> tuple[Step, Sequence[NDArray[Any]]]:
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

    def save(self, folder: Path) -> None:
        """Write all that is needed to go on: what the finished folds came to, and the training that goes on."""
        if self._training is not None:
            self._training.save(folder)
        if self.data.folds:
            arrays = {"scores": self._scores, "dense": [np.array(self._dense)]}
            write_checkpoint(folder / FOLDS, arrays, {"going_on": self._training is not None})

    def load(self, folder: Path) -> None:
        """Go on from what :meth:`save` wrote.

        Raises:
            StateError: a file is missing, damaged, or of another model or data set.
        """
        if not self.data.folds:
            self.training.load(folder)
            return
        arrays, state = read_checkpoint(folder / FOLDS, ("scores", "dense"))
        scores, (dense,) = arrays["scores"], arrays["dense"]
        shapes = [(self._of_fold(k).part("validation").n_traces,) for k in range(self.data.n_folds)]
        if [one.shape for one in scores] != shapes[: len(scores)] or dense.shape != (len(scores),):
            raise StateError(f"{folder / FOLDS}: holds the answers of other folds; the data set has changed")
        self._scores, self._dense, self._training = list(scores), dense.tolist(), None
        if state["going_on"]:
            self.training.load(folder)

    def _of_fold(self, k: int) -> Dataset:
        return self.data.fold(k) if self.data.folds else self.data

    def _begin(self) -> Training:
        fold = len(self._scores)
        keras.backend.clear_session()  # what the last fold's model left, or another trial's
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


def thresholds_of(labels: Sequence[NDArray[Any]], scores: Sequence[Scores]) -> tuple[float, ...]:
    """For each fold the threshold whose F1 is best on the traces of all other folds, pooled.

    A NaN among those scores leaves the default 0.5, as :func:`~tunelab.metrics.best_threshold` does.

    Args:
        labels: of each fold's traces, each of shape (trace,).
        scores: out-of-fold, of the same shapes; two folds at least.
    """
    found = []
    for k in range(len(labels)):
        others = [i for i in range(len(labels)) if i != k]
        found.append(
            metrics.best_threshold(
                np.concatenate([labels[i] for i in others]), np.concatenate([scores[i] for i in others])
            )
        )
    return tuple(found)


def pool(data: Dataset, scores: Sequence[Scores], dense: Sequence[float]) -> Pooled:
    """What the models of all folds came to.

    Args:
        data: with folds.
        scores: of each fold's validation traces, by that fold's model, each of shape (trace,).
        dense: average precision of each fold's model on its own tune split.
    """
    parts = [data.fold(k).part("validation") for k in range(data.n_folds)]
    thresholds = thresholds_of([part.labels for part in parts], scores)
    by_scan: dict[str, Counts] = {}
    at_half = []
    for part, own, threshold in zip(parts, scores, thresholds, strict=True):
        counts = metrics.counts_by_scan(part.labels, own, part.scan_of_trace(), threshold)
        by_scan |= zip(part.scans, counts, strict=True)
        at_half.append(metrics.count(part.labels, own))
    scans = data.judged().scans
    counted = tuple(by_scan[scan] for scan in scans)
    total = _sum(counted)
    values = {
        "val_f1": total.f1,
        "val_f1_at_half": _sum(at_half).f1,
        "val_average_precision": _mean(
            [metrics.average_precision(part.labels, own) for part, own in zip(parts, scores, strict=True)]
        ),
        "tune_average_precision": _mean(dense),
        "precision": total.precision,
        "recall": total.recall,
        **{name: float(getattr(total, name)) for name in ("tp", "fp", "fn", "tn")},
        "mean_jaccard": _mean([one.jaccard for one in counted]),
    }
    return Pooled(metrics=values, thresholds=thresholds, scans=scans, counts=counted)


def judge_pooled(pooled: Pooled) -> dict[str, Any]:
    """The pooled counts as a judgement, like :func:`~tunelab.measures.judge`'s, with a bootstrap interval over scans.

    There is no one threshold, and no interval of average precision, for which the scores would be needed.
    """
    cells = np.array([(c.tp, c.fp, c.fn, c.tn) for c in pooled.counts])
    labels = np.repeat(np.tile([1, 0, 1, 0], len(cells)), cells.ravel())
    answers = np.repeat(np.tile([1.0, 1.0, 0.0, 0.0], len(cells)), cells.ravel())
    scans = np.repeat(np.arange(len(cells)), cells.sum(axis=1))
    interval = metrics.bootstrap_interval(labels, answers, scans, lambda truth, drawn: metrics.count(truth, drawn).f1)
    taken = {name: pooled.metrics[name] for name in ("precision", "recall", "mean_jaccard")}
    total = _sum(pooled.counts)
    return {
        "folds": len(pooled.thresholds),
        "scans": len(pooled.scans),
        "traces": int(cells.sum()),
        "positives": total.tp + total.fn,
        "f1": total.f1,
        "f1_low": interval.low,
        "f1_high": interval.high,
        "average_precision": pooled.metrics["val_average_precision"],
        "f1_at_half": pooled.metrics["val_f1_at_half"],
        **dataclasses.asdict(total),
        **taken,
    }


def centred(scores: Scores, threshold: float) -> Scores:
    """Scores with their threshold brought to 0.5, 0 and 1 left where they are, and straight lines between.

    ``0.5 s / t`` below the threshold t, ``0.5 + 0.5 (s - t) / (1 - t)`` from it on; no decision changes.

    Args:
        scores: from 0 to 1, shape (trace,).
        threshold: from 0 to 1.
    """
    below = 0.5 * (np.minimum(scores, threshold) / threshold) if threshold > 0 else np.zeros_like(scores)
    above = 0.5 + 0.5 * ((np.maximum(scores, threshold) - threshold) / (1 - threshold)) if threshold < 1 else 1.0
    return np.where(np.isnan(scores), np.nan, np.where(scores >= threshold, above, below))


def evaluate_together(
    params: Mapping[str, Any], data: Dataset, models: Sequence[tuple[int, bytes, float]], pooled: Pooled
) -> dict[str, dict[str, Any]]:
    """What the models of all folds are worth: pooled on the folds, and on test by the mean of their centred scores.

    ``f1_at_half`` of test is that of the mean of the scores as they are, at the default threshold: what the thresholds
    are worth shows beside it.

    Args:
        params: the models'.
        data: with folds.
        models: fold, stored weights and threshold of each.
        pooled: what they came to on the folds.

    Raises:
        StateError: the weights are not this model's.
    """
    test = data.part("test")
    scores = [_answers(params, data.fold(fold), raw, test) for fold, raw, _ in models]
    moved = [centred(own, threshold) for own, (_, _, threshold) in zip(scores, models, strict=True)]
    judged = judge(test, np.mean(moved, axis=0), 0.5)
    judged["f1_at_half"] = metrics.count(test.labels, np.mean(scores, axis=0)).f1
    return {"validation": judge_pooled(pooled), "test": {**judged, "models": len(models)}}


def _answers(params: Mapping[str, Any], data: Dataset, weights: bytes, part: Part) -> Scores:
    keras.backend.clear_session()
    training = Training(params, data, Schedule(max_epochs=1, patience=1, seed=0))
    try:
        training.model.set_weights(unpack(weights))
    except ValueError as error:
        raise StateError(f"the stored weights are not those of this model: {error}") from error
    return training.scores(part)


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(*(sum(getattr(c, name) for c in counts) for name in ("tp", "fp", "fn", "tn")))


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
