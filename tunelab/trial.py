"""A trial under training: epoch by epoch, with weights and checkpoints in a store, gone on from the newest whole one.

No framework and no process is known here: what trains is a :class:`Trainer`, and where this runs is its caller's
concern. Whatever goes wrong becomes a result that names its cause, so that a search can tell a trial's own fault
("failed") from a store that is full or gone ("storage"), which is no trial's fault and can be tried again.

A process may die at any point. What has been told is then still true, because of the order in which an epoch is
stored: weights, then the checkpoint with the epoch's result, then what is no longer needed is deleted, weights last.
Weights stay as long as the last result told, or a checkpoint, still counts on them.
"""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from tunelab.causes import cause_of, is_storage
from tunelab.checkpoint import Arrays, digest, pack, pack_checkpoint, unpack_checkpoint
from tunelab.errors import StateError
from tunelab.outcome import Step
from tunelab.ranking import weights_file
from tunelab.storage import Store
from tunelab.task import Evaluation, Task, Trainer

__all__ = ["Evaluation", "Task", "Trainer", "Underway", "ahead", "left_over"]

CHECKPOINT_SHARE = 33
"""Training since the last checkpoint lasts at least so many times what that one took: they cost under 3 %."""

_CHECKPOINT = re.compile(r"s([0-9]{6,})\.ckpt")


class Underway:
    """A trial under training.

    Args:
        task: the trial.
        store: of its run; it uses ``checkpoints/<trial>/`` and its own files of ``weights/``.
        begin: makes its trainer.
        reclaimed: what was said of the machine being taken back; empty while it is not. From then on each epoch leaves
            a checkpoint.
    """

    def __init__(
        self, task: Task, store: Store, begin: Callable[[Task], Trainer], reclaimed: Callable[[], str] = lambda: ""
    ) -> None:
        self._task = task
        self._reclaimed = reclaimed
        self._warned = False
        self._store = store
        self._begin = begin
        self._trainer: Trainer | None = None
        self._trained: tuple[Trainer, int, Step, Arrays] | None = None
        """Who trained, its parameters and what the newest epoch came to, while it is not stored."""
        self._steps = 0
        """Epochs so far, of all folds."""
        self._chosen: dict[int, int] = {}
        """Fold -> its chosen epoch."""
        self._told: dict[int, int] | None = None
        """The same as of the last result told; None: not known, since another process told it."""
        self._checkpoints: dict[str, dict[int, int]] = {}
        """The same as of each whole checkpoint that is kept, oldest first."""
        self._files: set[str] = set()
        """Keys of this trial in the store."""
        self._seconds = 0.0
        """Trained since the last checkpoint."""
        self._cost: float | None = None
        """Seconds that the last checkpoint took; None: none was written here."""
        self._notes: list[str] = []

    def step(self) -> dict[str, Any]:
        """Train and store one epoch; first of all, tell again that of the checkpoint that was gone on from.

        Returns:
            Plain JSON types but NaN: fold, epoch, seconds, parameters, weights (digest, or empty), checkpoint (file
            name, or empty), ended, failed, storage (why it could not be stored, or empty: the next call tries that
            again), metrics, pooled (a list of one or none), again, notes, save_seconds.
        """
        try:
            result = self._step()
        except Exception as error:  # noqa: BLE001 - whatever a model does wrong ends its own trial, not the search
            if is_storage(error):
                return nothing(storage=" ".join(str(error).split()))
            self._trainer = self._trained = None  # its memory may be what lacks
            return nothing(failed=cause_of(error, debug=self._task.debug))
        self._told = dict(self._chosen)
        result["notes"], self._notes = self._notes, []
        return result

    def _step(self) -> dict[str, Any]:
        if self._trained is None:
            trainer = self._trainer
            if trainer is None:
                trainer, told = self._go_on()
                self._trainer = trainer
                if told is not None:
                    return told
            self._trained = self._train(trainer)
        result = self._keep(*self._trained)
        self._trainer, self._trained = self._trained[0], None
        return result

    def _train(self, trainer: Trainer) -> tuple[Trainer, int, Step, Arrays]:
        self._trainer = None  # one that raised cannot be relied upon
        begun = time.perf_counter()
        parameters = trainer.parameters
        step, arrays = trainer.step()
        self._seconds += time.perf_counter() - begun
        self._steps += 1
        return trainer, parameters, step, arrays

    def _keep(self, trainer: Trainer, parameters: int, step: Step, arrays: Arrays) -> dict[str, Any]:
        """Store what an epoch came to, and tell it."""
        begun = time.perf_counter()
        outcome, weights = step.outcome, ""
        if outcome.improved:
            raw = pack(arrays)
            weights = digest(raw)
            self._put(self._weights(step.fold, outcome.epoch), raw)
            self._chosen = {**self._chosen, step.fold: outcome.epoch}
        waits = not step.fold and outcome.epoch in self._task.rungs
        due = self._leaves() or waits or self._cost is None or self._seconds >= CHECKPOINT_SHARE * self._cost
        name = f"s{self._steps:06d}.ckpt" if due and not step.ended and not step.failed else ""
        result = nothing(failed=step.failed) | {
            "fold": step.fold,
            "epoch": outcome.epoch,
            "seconds": outcome.seconds,
            "parameters": parameters,
            "weights": weights,
            "checkpoint": name,
            "ended": step.ended,
            "metrics": dict(outcome.metrics),
            # a list of one or none: Ray takes mappings apart
            "pooled": [step.pooled.record()] if step.pooled else [],
            "save_seconds": time.perf_counter() - begun,
        }
        # numpy's numbers become Python's, here as in the checkpoint
        result = dict(json.loads(json.dumps(result, default=lambda number: number.item())))
        if name:
            self._write_checkpoint(trainer, name, result)
        if self._told is not None:
            counted_on = [self._chosen, self._told, *self._checkpoints.values()]
            keep = {self._weights(fold, epoch) for chosen in counted_on for fold, epoch in chosen.items()}
            self._delete(key for key in self._files if key.startswith("weights/") and key not in keep)
        result["save_seconds"] = time.perf_counter() - begun
        return result

    def _leaves(self) -> bool:
        """Whether the machine is about to be taken back; the first time it is noted."""
        if (said := self._reclaimed()) and not self._warned:
            self._warned = True
            self._notes.append(f"its machine is taken back ({said}); checkpoints after each epoch until then")
        return bool(said)

    def _write_checkpoint(self, trainer: Trainer, name: str, result: Mapping[str, Any]) -> None:
        begun = time.perf_counter()
        arrays, state = trainer.save()
        whole = {
            "trainer": dict(state),
            "result": dict(result),
            "chosen": list(self._chosen.items()),
            "steps": self._steps,
            "task": self._identity(),
        }
        self._put(self._folder + name, pack_checkpoint(arrays, whole))
        self._checkpoints = dict([*self._checkpoints.items(), (self._folder + name, self._chosen)][-2:])
        self._delete(key for key in self._files if key.startswith(self._folder) and key not in self._checkpoints)
        self._cost = time.perf_counter() - begun
        self._seconds = 0.0

    def _go_on(self) -> tuple[Trainer, dict[str, Any] | None]:
        """A trainer that goes on from the newest checkpoint that is whole, and its result; or a new one, and None."""
        found = {int(name[1]): key for key in self._store.list(self._folder) if (name := self._checkpoint(key))}
        weights = self._store.list(f"weights/{self._task.trial}")
        self._files = {*found.values(), *(key for key in weights if _is_weights(key, self._task.trial))}
        self._steps, self._chosen, self._checkpoints = 0, {}, {}
        self._told, self._cost, self._seconds = None, None, 0.0
        faults: list[str] = []
        for number in sorted(found, reverse=True):
            try:
                trainer, result = self._load(found[number], number)
            except StateError as error:
                faults.append(str(error))
                gc.collect()  # a trainer that could not be loaded
                continue
            self._notes += [f"{fault}; goes on from {_place(result)}" for fault in faults]
            return trainer, result
        self._notes += [f"{fault}; begins anew" for fault in faults]
        trainer = self._begin(self._task)
        self._notes += trainer.notes
        return trainer, None

    def _load(self, key: str, number: int) -> tuple[Trainer, dict[str, Any]]:
        arrays, whole = unpack_checkpoint(self._store.get(key), key)
        try:
            if whole["task"] != self._identity() or whole["steps"] != number:
                raise StateError(f"{key}: is of another trial, seed or params")
            chosen = {int(fold): int(epoch) for fold, epoch in whole["chosen"]}
            result = {**nothing(), **whole["result"], "again": True}
            state = whole["trainer"]
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"{key}: is no checkpoint of this version ({type(error).__name__} {error})") from error
        trainer = self._begin(self._task)
        trainer.load(arrays, state, key)
        self._steps, self._chosen, self._checkpoints = number, chosen, {key: chosen}
        return trainer, result

    @property
    def _folder(self) -> str:
        return f"checkpoints/{self._task.trial}/"

    def _checkpoint(self, key: str) -> re.Match[str] | None:
        return _CHECKPOINT.fullmatch(key.removeprefix(self._folder))

    def _weights(self, fold: int, epoch: int) -> str:
        return f"weights/{weights_file(self._task.trial, fold, epoch)}"

    def _identity(self) -> Any:
        """As JSON gives it back."""
        return json.loads(json.dumps([self._task.trial, self._task.seed, dict(self._task.params)]))

    def _put(self, key: str, raw: bytes) -> None:
        self._store.put(key, raw)
        self._files.add(key)

    def _delete(self, keys: Iterable[str]) -> None:
        for key in sorted(keys):
            self._store.delete(key)
            self._files.discard(key)


def left_over(keys: Iterable[str], trial: str, keep: Collection[str]) -> list[str]:
    """Of a run's keys those that a trial that is over has no more use for: checkpoints, and weights but those to keep.

    Args:
        keys: of the run's store.
        trial: the trial.
        keep: files in the folder of weights, as :attr:`~tunelab.ranking.Stored.file` names them.
    """
    kept = {f"weights/{file}" for file in keep}
    folder = f"checkpoints/{trial}/"
    return [key for key in keys if key.startswith(folder) or (_is_weights(key, trial) and key not in kept)]


def ahead(keys: Iterable[str], trial: str, known: int) -> list[str]:
    """Of a run's keys the checkpoints from which a trial would go on behind epochs that nobody was told.

    Args:
        keys: of the run's store.
        trial: the trial.
        known: how many of its epochs were told, of all folds. That of the one after them tells it when it is gone on
            from; those of later ones leave a gap.
    """
    names = ((key, _CHECKPOINT.fullmatch(key.removeprefix(f"checkpoints/{trial}/"))) for key in keys)
    return [key for key, name in names if name and int(name[1]) > known + 1]


def _is_weights(key: str, trial: str) -> bool:
    return re.fullmatch(rf"weights/{re.escape(trial)}(-fold[0-9]+)?-e[0-9]+\.npz", key) is not None


def _place(result: Mapping[str, Any]) -> str:
    fold, epoch = result["fold"], result["epoch"]
    return f"fold {fold}, epoch {epoch}" if fold else f"epoch {epoch}"


def nothing(*, failed: str = "", storage: str = "") -> dict[str, Any]:
    """A result of no epoch."""
    return {
        "fold": 0,
        "epoch": 0,
        "seconds": 0.0,
        "parameters": 0,
        "weights": "",
        "checkpoint": "",
        "ended": "",
        "failed": failed,
        "storage": storage,
        "metrics": {},
        "pooled": [],
        "again": False,
        "notes": [],
        "save_seconds": 0.0,
    }
