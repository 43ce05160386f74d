"""What a trial's process is asked to do, and what trains there. Nothing is done here.

A trainer is a module with ``begin(task: Task) -> Trainer`` and ``evaluate(evaluation: Evaluation) -> dict``:
:mod:`tunelab.keras_trainer`, or in tests one without a framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunelab.checkpoint import Arrays, digest
from tunelab.data.access import Access
from tunelab.data.dataset import Dataset
from tunelab.data.shares import open_at
from tunelab.errors import StateError
from tunelab.fidelity import At
from tunelab.outcome import Step
from tunelab.preprocessing import chain_of
from tunelab.ranking import Pooled, Stored


class Trainer(Protocol):
    """What trains a model, an epoch a step. Everything it needs to go on elsewhere is in :meth:`save`."""

    @property
    def notes(self) -> Sequence[str]:
        """For people: what is worth knowing of how it trains here."""

    @property
    def parameters(self) -> int:
        """Of the model, all of them."""

    def step(self) -> tuple[Step, Arrays]:
        """Train and evaluate one epoch; the weights come with it where it is now the chosen one, otherwise none."""

    def save(self) -> tuple[Mapping[str, Arrays], Mapping[str, Any]]:
        """Arrays by name, and what JSON can hold."""

    def load(self, arrays: Mapping[str, Arrays], state: Mapping[str, Any], where: str) -> None:
        """Go on from what :meth:`save` gave.

        Raises:
            StateError: it is of another model; the trainer is then to be thrown away.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trial to train, and all that its trainer needs to know."""

    trial: str
    seed: int
    params: Mapping[str, Any]
    data: Access
    max_epochs: int
    patience: int
    cpus: float
    gpus: float
    debug: bool
    """Whether a failed trial's cause carries its traceback."""
    rungs: frozenset[int] = frozenset()
    """Epochs after which the trial may have to wait, and leaves a checkpoint to go on from."""
    fidelity: At = field(default_factory=dict)
    """What the trial is trained on less than all of; empty: in full."""
    data_seed: int = 0
    """Of the search; chooses the scans of a trial that is trained on a share of them."""

    def open(self) -> Dataset:
        """The data set as this trial trains on it, prepared on this node if it is not yet.

        Raises:
            TunelabError: it cannot be prepared or opened here.
        """
        return open_at(self.data, chain_of(self.params), self.fidelity, self.data_seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Stored weights that are to answer the validation and test splits."""

    params: Mapping[str, Any]
    data: Access
    models: Sequence[tuple[bytes, Stored]]
    """The file of weights of each, as journalled: of one model, or of one for each fold."""
    pooled: Pooled | None
    """What the models came to on all folds; None: the only one is the first fold's, or there are no folds."""
    cpus: float
    gpus: float

    def check(self) -> None:
        """Compare the files with what was journalled.

        Raises:
            StateError: one is not the one.
        """
        for raw, stored in self.models:
            if digest(raw) != stored.digest:
                raise StateError(
                    f"{stored.file}: the winner's stored weights do not match their digest in the journal; "
                    "train it again"
                )
