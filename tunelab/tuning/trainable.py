"""The Ray Tune Trainable that wraps the model builder: one step is one epoch, one process serves many trials.

The model is trained in a child of Ray's process (:mod:`tunelab.process`), which keeps weights and checkpoints itself
and finds them again: Ray's own checkpoints are not used. A child that is killed, hangs or runs out of memory is a
result, with its cause in words; so is a fault of the model. Ray's machinery for failed trials is left to its own
processes and to nodes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune

from tunelab.data.access import Access
from tunelab.errors import StateError, StorageError
from tunelab.lease import FencedStore
from tunelab.process import Lost, WorkerProcess
from tunelab.storage import Store
from tunelab.task import Evaluation, Task
from tunelab.trial import nothing

LOGS = "logs/"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """What all trials of a search share."""

    max_epochs: int
    patience: int
    cpus: float
    gpus: float
    folder: str
    """The run's, where trials keep weights and checkpoints; on one machine they write there themselves."""
    fence: int
    """Of the driver's lease on it; once a later one has it, no trial of this driver writes there any more."""
    store: Store | None
    """On a cluster, the way to that folder."""
    trainer: str
    """The module that trains."""
    step_timeout: float
    """Seconds without an answer after which a training is taken for hung."""
    debug: bool
    """Whether a failed trial's cause carries its traceback."""
    rungs: frozenset[int] = frozenset()
    """Epochs after which trials may have to wait."""
    custom: Mapping[str, float] = field(default_factory=dict)
    """Other resources of Ray that a trial takes."""
    data_seed: int = 0
    """Of the search; chooses the scans of trials that are trained on a share of them."""

    def process(self) -> WorkerProcess:
        """A process that trains, or evaluates."""
        threads = max(1, int(self.cpus))
        if self.store is None:
            return WorkerProcess.start(self.trainer, store_url=self.folder, fence=self.fence, threads=threads)
        return WorkerProcess.start(self.trainer, store=self.store, threads=threads)

    def kept(self) -> Store:
        """The run's folder."""
        return self.store or FencedStore(Path(self.folder), self.fence)


class KerasTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains one params after another; ``config`` is what :class:`~tunelab.tuning.searcher.SpaceSearcher` suggests."""

    def setup(self, config: dict[str, Any], data: Access, settings: TrialSettings) -> None:
        """Take the first trial, and let the framework be imported meanwhile."""
        self._data = data
        self._settings = settings
        self._process: WorkerProcess | None = settings.process()
        self._successor: WorkerProcess | None = None
        self._begun = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process, or in its successor when it has grown."""
        if self._process is not None and self._process.worn():
            self._process.close()
            self._process, self._successor = self._successor or self._settings.process(), None
        self._begun = False
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        try:
            result = self._step()
        except Lost as fault:
            self._keep(fault.output)
            self._end()
            return {**nothing(), "lost": fault.cause}
        if result["failed"] and self._process is not None:
            self._keep(self._process.output())
        return {**result, "lost": ""}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing for Ray: the child keeps its own."""

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing from Ray: the child finds its own."""

    def cleanup(self) -> None:
        """End the child."""
        self._end()
        if self._successor is not None:
            self._successor.close()

    def _step(self) -> dict[str, Any]:
        if self._process is None:
            self._process, self._successor = self._successor or self._settings.process(), None
            self._begun = False
        if not self._begun:
            self._process.begin(self._task())
            self._begun = True
        result = self._process.step(self._settings.step_timeout)
        if self._successor is None and self._process.worn():
            self._successor = self._settings.process()  # imports its framework while this trial trains
        return result

    def _task(self) -> Task:
        settings = self._settings
        return Task(
            trial=self.config["trial"],
            seed=self.config["seed"],
            params=self.config["params"],
            fidelity=self.config["fidelity"],
            data_seed=settings.data_seed,
            data=self._data,
            max_epochs=settings.max_epochs,
            patience=settings.patience,
            rungs=settings.rungs,
            cpus=settings.cpus,
            gpus=settings.gpus,
            debug=settings.debug,
        )

    def _keep(self, output: str) -> None:
        """What the child printed, beside the run; a store that cannot take it has worse troubles than this."""
        if output:
            with contextlib.suppress(StorageError):
                self._settings.kept().put(f"{LOGS}{self.config['trial']}.txt", output.encode())

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def evaluate_stored(evaluation: Evaluation, settings: TrialSettings) -> dict[str, Any]:
    """A Ray task: what stored weights are worth on the validation and test splits, in a process like a trial's.

    Args:
        evaluation: the weights, and what they answer.
        settings: as the trials'.

    Raises:
        StateError: a file is not the one that was journalled, or the process was lost.
    """
    process = settings.process()
    try:
        return process.evaluate(evaluation, settings.step_timeout)
    except Lost as fault:
        raise StateError(f"the winner's evaluation was lost: {fault.cause}; run: tunelab resume RUN") from None
    finally:
        process.close()
