"""A search in simulated time: tunelab's own scheduler and searcher with a real journal, without Ray and training.

What is measured of it is for :mod:`benchmarks.scale` to say.
"""

from __future__ import annotations

import contextlib
import copy
import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from benchmarks.sleeping import SECONDS, curve
from tunelab.journal import Journal
from tunelab.models import chains, open_space
from tunelab.ranking import Trial
from tunelab.sections import EarlyStopping, Epochs
from tunelab.space import Space, shipped
from tunelab.trial import nothing
from tunelab.tuning.hparams import TensorBoardLogs
from tunelab.tuning.optuna_log import OptunaLog
from tunelab.tuning.proposals import Proposals
from tunelab.tuning.record import Recorder
from tunelab.tuning.reporter import Goal, Reporter
from tunelab.tuning.retention import Retention
from tunelab.tuning.scheduler import RecordingScheduler
from tunelab.tuning.searcher import SpaceSearcher, fitting

EPOCHS = 9
ASKED = 5
"""Proposals of ``tpe`` at each number of trials."""


def space_of(name: str) -> Space:
    """A shipped space, with trials so short that there can be many."""
    space = open_space(shipped(name))
    return replace(
        space, epochs=Epochs(max=EPOCHS), early_stopping=EarlyStopping(grace=1), sampler="random", start_from=()
    )


class Simulated:
    """A search in simulated time, from wherever its journal stands.

    Args:
        folder: of the journal.
        space: what is searched.
        workers: trials at a time.
        trials: how many there may be.
        listeners: whether the driver does all that it does in a search.
    """

    def __init__(self, folder: Path, space: Space, *, workers: int, trials: int, listeners: bool) -> None:
        began = time.perf_counter()
        self._space = space
        self.journal = Journal.open(folder / "journal.jsonl")
        self.recorder = Recorder(self.journal)
        self._scheduler = RecordingScheduler(space.early_stopping, EPOCHS, self.recorder)
        fit = fitting(space, dict.fromkeys(chains(space), 1700))
        self._searcher = SpaceSearcher(space, [], self.recorder, self._scheduler, fit=fit, seed=0, trials=trials)
        self.recorder.replay([self._scheduler.replayed, self._searcher.replayed])
        self._scheduler.settle()
        self._searcher.go_on()
        self.replayed = time.perf_counter() - began
        """Seconds until it could go on."""
        self.took: dict[str, list[float]] = defaultdict(list)
        """Seconds of a core of each call, by what it was: other loads do not count, nor does the wait for the disk."""
        self.counts: Counter[str] = Counter()
        self._workers = workers
        self._ends: list[tuple[float, int, SimpleNamespace]] = []
        self._number = 0
        self._now = 0.0
        self._fit = fit
        self._logs = TensorBoardLogs(folder / "tensorboard", space.columns())
        if listeners:
            self._listen(folder)

    def run(self, trials: int) -> None:
        """Go on until there are so many trials."""
        while len(self.recorder.board.trials) < trials:
            while len(self._ends) < self._workers and self._begin():
                pass
            if not self._ends:
                return
            self._now, _, ray = heapq.heappop(self._ends)
            self._epoch(ray)

    def close(self) -> None:
        """Give the journal back."""
        self._logs.close()
        self.journal.close()

    def asked_of_tpe(self) -> list[float]:
        """Seconds of proposals of ``tpe``, of what is known by now."""
        proposals: Proposals = copy.copy(self._searcher._proposals)
        proposals._space = replace(self._space, sampler="tpe")
        known, took = len(self.recorder.board.trials), []
        proposals.propose(f"{known + 1}", self._fit, lambda params: False)  # what is kept of a history
        for number in range(ASKED):
            began = time.thread_time()
            proposals.propose(f"{known + 1 + number}", self._fit, lambda params: False)
            took.append(time.thread_time() - began)
        return took

    def _begin(self) -> bool:
        before = len(self.recorder.board.trials)
        self._number += 1
        with self._timed("proposal") as kind:
            config = self._searcher.suggest(f"ray-{self._number}")
            if len(self.recorder.board.trials) == before:
                kind[0] = "taken up"
        if not isinstance(config, dict):
            return False
        ray = SimpleNamespace(trial_id=f"ray-{self._number}", config=config)
        with self._timed("start"):
            self._scheduler.on_trial_add(None, ray)
            self.recorder.started(config["trial"], 0.0)
        self._train(ray)
        return True

    def _epoch(self, ray: SimpleNamespace) -> None:
        trial = ray.config["trial"]
        epoch = len(self.recorder.board.trials[trial].epochs) + 1
        metrics = {f"metrics/{name}": value for name, value in curve(int(trial), epoch).items()}
        told = {**nothing(), "epoch": epoch, "seconds": float(epoch), "parameters": 12345, "lost": "", **metrics}
        told["ended"] = "epochs" if epoch == EPOCHS else ""
        with self._timed("result"):
            said = self._scheduler.on_trial_result(None, ray, told)
        if said == TrialScheduler.CONTINUE:
            self._train(ray)
        else:
            with self._timed("end"):
                self._searcher.on_trial_complete(ray.trial_id)

    def _train(self, ray: SimpleNamespace) -> None:
        """One second, more or less, so that not all epochs end at once."""
        self.counts["epochs"] += 1
        seconds = float(np.random.default_rng([int(ray.config["trial"]), self.counts["epochs"]]).uniform(*SECONDS))
        heapq.heappush(self._ends, (self._now + seconds, self.counts["epochs"], ray))

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[list[str]]:
        name = [kind]
        began = time.thread_time()
        yield name
        self.took[name[0]].append(time.thread_time() - began)
        self.counts[name[0]] += 1

    def _listen(self, folder: Path) -> None:
        board, columns = self.recorder.board, self._space.columns()
        retention = Retention(folder, board, 10)
        retention.clean()
        study = OptunaLog(folder / "optuna.log", "scale", self._space, self.recorder, print)
        study.begin()
        goal = Goal(trials=None, seconds=None, begun=time.monotonic(), always_positive_f1=0.3, columns=columns)
        reporter = Reporter(board, goal, Console(file=StringIO()))
        for name, told in (
            ("curves", self._logs.told),
            ("retention", retention.told),
            ("optuna.log", study.told),
            ("reporter", reporter.told),
        ):
            self.recorder.listeners.append(self._told(name, told))

    def _told(self, name: str, told: Callable[[str, Trial], None]) -> Callable[[str, Trial], None]:
        def listen(kind: str, trial: Trial) -> None:
            began = time.thread_time()
            told(kind, trial)
            self.took[name].append(time.thread_time() - began)

        return listen
