"""tunelab's own searcher and scheduler as a policy on recorded curves: the very classes and journal, without Ray.

A row of the curves is a configuration of a family that only this file has, its dimensions are the columns, scaled to
the unit cube. What a sampler proposes becomes the nearest row that no trial has had, and the sampler is told of that
row, not of what it proposed. A trial runs out of patience as one that is trained does.
"""

from __future__ import annotations

import math
import tempfile
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler

from benchmarks.simulation import FLOOR, Setting
from tunelab.aims import Aims
from tunelab.domains import Float, Struct
from tunelab.fidelity import Fidelity
from tunelab.journal import Journal
from tunelab.models import normalise
from tunelab.sections import DataOptions, EarlyStopping, Epochs, Resources, Sampler
from tunelab.space import Space
from tunelab.trial import nothing
from tunelab.tuning.proposals import HISTORY, key_of
from tunelab.tuning.record import FLOOR_ERRORS, Recorder
from tunelab.tuning.scheduler import RecordingScheduler
from tunelab.tuning.searcher import SpaceSearcher

FAMILY = "benchmarks.searching:recorded"


def recorded(params: Any, n_samples: int) -> Any:
    """A family for its name alone.

    Raises:
        NotImplementedError: always; its curves are recorded, so that nothing is built.
    """
    raise NotImplementedError("the curves of this family are recorded")


def space_of(dimensions: int, epochs: int, sampler: Sampler, rules: EarlyStopping) -> Space:
    """The unit cube as a space."""
    cube = Struct({f"x{i}": Float(0.0, 1.0) for i in range(dimensions)})
    return Space(
        source="recorded curves",
        name="recorded",
        trials=None,
        epochs=Epochs(max=epochs),
        fidelity=Fidelity(),
        early_stopping=rules,
        sampler=sampler,
        aims=Aims(),
        resources=Resources(),
        data=DataOptions(),
        shared=Struct({}),
        families={FAMILY: cube},
        start_from=(),
        document={},
    )


class Searching:
    """A search of tunelab.

    Args:
        setting: of the search.
        sampler: by name.
        rules: of early stopping; None: as a space has them that does not say.
        history: how many trials the sampler's model is made from.
    """

    def __init__(
        self,
        setting: Setting,
        sampler: Sampler = "tpe",
        rules: EarlyStopping | None = None,
        history: int = HISTORY,
    ) -> None:
        folder = tempfile.TemporaryDirectory()
        journal = Journal.open(Path(folder.name) / "journal.jsonl")
        weakref.finalize(self, _close, journal, folder)
        space = space_of(setting.cube.shape[1], setting.epochs, sampler, rules or EarlyStopping())
        self._recorder = Recorder(journal)
        self._scheduler = RecordingScheduler(space.early_stopping, setting.epochs, self._recorder)
        self._searcher = SpaceSearcher(
            space, [], self._recorder, self._scheduler, fit=self._nearest, seed=setting.seed, history=history
        )
        self._cube = setting.cube
        self._free = np.ones(len(self._cube), bool)
        self._epochs = setting.epochs
        self._patience = space.epochs.patience
        self._params = [normalise(self._raw(row)) for row in range(len(self._cube))]
        self._rows = {key_of(params): row for row, params in enumerate(self._params)}
        self._running: dict[int, SimpleNamespace] = {}
        self._begun = 0
        self._best: dict[int, tuple[float, int]] = {}

    def next(self, now: int) -> int | None:
        """What the searcher hands out."""
        self._begun += 1
        config = self._searcher.suggest(f"ray-{self._begun}")
        if not isinstance(config, dict):
            return None
        row = self._rows[key_of(config["params"])]
        self._free[row] = False
        self._running[row] = SimpleNamespace(trial_id=f"ray-{self._begun}", config=config)
        self._scheduler.on_trial_add(None, self._running[row])
        return row

    def told(self, row: int, epoch: int, loss: float) -> bool:
        """Whether the scheduler lets it go on."""
        best, at = self._best.get(row, (math.inf, 0))
        if loss < best:
            best, at = self._best[row] = (loss, epoch)
        ended = "epochs" if epoch == self._epochs else "patience" if epoch - at >= self._patience else ""
        lift = 2 * FLOOR_ERRORS if loss < FLOOR else 0.0
        result = {**nothing(), "epoch": epoch, "ended": ended, "lost": ""}
        result |= {"metrics/tune_average_precision": -loss, "metrics/tune_lift": lift}
        said = self._scheduler.on_trial_result(None, self._running[row], result)
        if said == TrialScheduler.CONTINUE:
            return True
        self._searcher.on_trial_complete(self._running.pop(row).trial_id)
        return False

    def _raw(self, row: int) -> dict[str, Any]:
        return {"family": FAMILY, **{f"x{i}": float(x) for i, x in enumerate(self._cube[row])}}

    def _nearest(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The params of the nearest row that no trial has had; of any row when all have, which ends the search."""
        point = np.array([raw[f"x{i}"] for i in range(self._cube.shape[1])])
        away = ((self._cube - point) ** 2).sum(axis=1)
        return self._params[int(np.argmin(np.where(self._free, away, math.inf)))]


def _close(journal: Journal, folder: tempfile.TemporaryDirectory[str]) -> None:
    journal.close()
    folder.cleanup()
