"""Which files of trials stay: weights of the best that are over, everything of those that can go on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunelab.aims import Aims
from tunelab.tuning.record import Recorder
from tunelab.tuning.retention import Retention

pytestmark = pytest.mark.ray


class Bench:
    """A run's folder with files as trials leave them."""

    def __init__(self, folder: Path, recorder: Recorder, told: Callable[..., dict[str, Any]]) -> None:
        self.folder, self.recorder, self._told = folder, recorder, told

    def trial(self, trial: str, f1: float, status: str = "finished", parameters: int = 7) -> None:
        """Two epochs, the second chosen; files of both, and a checkpoint."""
        self.recorder.suggestion(trial, "", 0, {"family": "lstm"}, {})
        for epoch in (1, 2):
            metrics = {"val_f1": f1, "tune_average_precision": epoch / 10}
            told = self._told(epoch, weights=f"w{epoch}", **metrics)
            self.recorder.result(trial, told | {"parameters": parameters})
            self.put(f"weights/{trial}-e{epoch:04d}.npz")
        self.put(f"checkpoints/{trial}/s000002.ckpt")
        if status != "running":
            self.recorder.end(trial, status)  # type: ignore[arg-type]

    def put(self, key: str) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    def files(self) -> set[str]:
        kept = [*self.folder.glob("weights/*"), *self.folder.glob("checkpoints/*/*")]
        return {path.relative_to(self.folder).as_posix() for path in kept}


@pytest.fixture
def bench(tmp_path: Path, recorder_in: Callable[[Path], Recorder], told: Callable[..., dict[str, Any]]) -> Bench:
    return Bench(tmp_path, recorder_in(tmp_path), told)


def listen(bench: Bench, keep: int) -> Retention:
    retention = Retention(bench.folder, bench.recorder.board, keep)
    bench.recorder.listeners.append(retention.told)
    return retention


def test_weights_of_the_best_that_are_over_stay_and_those_of_all_that_can_go_on(bench: Bench) -> None:
    listen(bench, keep=2)
    bench.trial("0001", 0.2)
    bench.trial("0002", 0.9, "interrupted")
    bench.trial("0003", 0.5, "stopped")
    bench.trial("0004", 0.1, "running")
    assert bench.files() >= {"weights/0001-e0002.npz", "weights/0003-e0002.npz"}
    bench.trial("0005", 0.4)
    bench.trial("0006", 0.3)
    bench.trial("0007", 0.99, "failed")
    can_go_on = {f"weights/{t}-e000{e}.npz" for t in ("0002", "0004") for e in (1, 2)}
    can_go_on |= {f"checkpoints/{t}/s000002.ckpt" for t in ("0002", "0004")}
    assert bench.files() == can_go_on | {"weights/0003-e0002.npz", "weights/0005-e0002.npz"}
    assert not (bench.folder / "checkpoints" / "0001").exists()


def test_names_that_begin_alike_are_not_mixed_up(bench: Bench) -> None:
    listen(bench, keep=1)
    bench.trial("0001", 0.9)
    bench.put("weights/00010-e0001.npz")
    bench.put("checkpoints/00010/s000001.ckpt")
    bench.trial("0002", 0.95)
    assert bench.files() == {"weights/0002-e0002.npz", "weights/00010-e0001.npz", "checkpoints/00010/s000001.ckpt"}


def test_what_a_copy_elsewhere_has_no_use_for(bench: Bench) -> None:
    retention = listen(bench, keep=1)
    bench.trial("0001", 0.2)
    bench.trial("0002", 0.9)
    bench.trial("0003", 0.5, "interrupted")
    spare = ["checkpoints/0001/s000002.ckpt", "weights/0001-e0002.npz", "checkpoints/0002/s000001.ckpt"]
    kept = ["weights/0002-e0002.npz", "checkpoints/0003/s000002.ckpt", "weights/0003-e0001.npz", "run.yaml"]
    assert all(map(retention.spare, spare))
    assert retention.spare("weights/0002-e0001.npz"), "an epoch that is not the chosen one any more"
    assert not any(map(retention.spare, [*kept, "weights/0099-e0001.npz", "weights/0001.txt", "tensorboard/0001-x"]))


def test_what_an_earlier_process_was_killed_before_it_removed_goes_at_the_start(bench: Bench) -> None:
    for number in range(1, 5):
        bench.trial(f"{number:04d}", number / 10)
    bench.trial("0005", 0.0, "running")
    assert len(bench.files()) == 15
    listen(bench, keep=1).clean()
    assert bench.files() == {
        "weights/0004-e0002.npz",
        "weights/0005-e0001.npz",
        "weights/0005-e0002.npz",
        "checkpoints/0005/s000002.ckpt",
    }


def test_weights_of_the_front_stay_beside_those_of_the_best(bench: Bench) -> None:
    """Of what is over: a trial that runs may come to something else yet."""
    bench.recorder.board.aims = Aims.of({"objectives": ["f1", "-parameters"], "constraints": ["parameters <= 900"]})
    retention = listen(bench, keep=1)
    bench.trial("0001", 0.2, parameters=50)
    bench.trial("0002", 0.9, parameters=500)
    bench.trial("0003", 0.3, parameters=100)
    bench.trial("0004", 0.8, "running", parameters=10)
    weights = {f"weights/{trial}-e0002.npz" for trial in ("0001", "0002", "0003")}
    running = {"weights/0004-e0001.npz", "weights/0004-e0002.npz", "checkpoints/0004/s000002.ckpt"}
    assert bench.files() == weights | running
    assert not retention.spare("weights/0003-e0002.npz")
    bench.trial("0005", 0.4, parameters=60)
    bench.trial("0006", 0.99, parameters=1000)
    assert bench.files() == {f"weights/{t}-e0002.npz" for t in ("0001", "0002", "0005")} | running
    assert retention.spare("weights/0003-e0002.npz"), "beaten"
    assert retention.spare("weights/0006-e0002.npz"), "not even the best F1 keeps one that breaks a constraint"
    bench.recorder.end("0004", "finished")
    assert bench.files() == {f"weights/{t}-e0002.npz" for t in ("0002", "0004")}


@pytest.mark.parametrize("several", [False, True])
def test_what_is_kept_is_what_a_look_at_all_trials_says(bench: Bench, several: bool) -> None:
    if several:
        bench.recorder.board.aims = Aims.of({"objectives": ["f1", "-parameters"]})
    retention = listen(bench, keep=3)
    drawn = random.Random(0)
    for number in range(1, 40):
        status = drawn.choice(["finished", "stopped", "failed", "interrupted", "running"])
        bench.trial(f"{number:04d}", drawn.choice([0.1, 0.2, 0.3]), status, parameters=drawn.randint(1, 9))
        if retention._kept is not None:
            assert retention._kept == retention._best()
