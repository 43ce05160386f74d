"""The Trainable outside Ray: one process for many trials, and its successor ready before it is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from held_trainable import hold, settings_in

import tunelab.process
from tunelab.data.dataset import Dataset
from tunelab.data.generated import Generated
from tunelab.tuning.trainable import KerasTrainable

pytestmark = pytest.mark.ray


@pytest.fixture
def trainable(small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KerasTrainable]:
    """As Ray holds it, its trials those of the quick trainer."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
    monkeypatch.setenv("TUNELAB_QUICK_SHARE", "0")
    settings = settings_in(tmp_path / "run", max_epochs=3, trainer="quick_trainer", cpus=3)
    one = hold(config("0001"), Generated(dataset=small_data, chains=()), settings)
    yield one
    one.cleanup()


def config(trial: str) -> dict[str, Any]:
    return {"trial": trial, "seed": 7, "params": {"learning_rate": 0.03, "preprocessing": {}}, "fidelity": {}}


def to_its_end(one: KerasTrainable) -> list[dict[str, Any]]:
    results = [one.step()]
    while not results[-1]["ended"]:
        assert not results[-1]["lost"]
        results.append(one.step())
    return results


def begin(one: KerasTrainable, trial: str) -> None:
    one.config = config(trial)
    assert one.reset_config(one.config)


def pid_of(process: Any) -> int:
    assert process is not None
    return int(process.pid)


def test_a_worn_process_has_a_successor_before_its_last_trial_is_over(
    trainable: KerasTrainable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunelab.process, "MAX_TRIALS", 2)
    first = pid_of(trainable._process)
    assert len(to_its_end(trainable)) == 3
    assert trainable._successor is None
    begin(trainable, "0002")
    assert pid_of(trainable._process) == first
    trainable.step()
    second = pid_of(trainable._successor)
    assert second != first
    to_its_end(trainable)
    assert pid_of(trainable._successor) == second
    begin(trainable, "0003")
    assert pid_of(trainable._process) == second
    assert trainable._successor is None
    assert not Path(f"/proc/{first}").exists()
    assert len(to_its_end(trainable)) == 3
    begin(trainable, "0004")
    trainable.step()
    third = pid_of(trainable._successor)
    trainable.cleanup()
    assert not any(Path(f"/proc/{pid}").exists() for pid in (second, third))


def test_a_lost_process_is_replaced_by_the_successor_that_is_there(
    trainable: KerasTrainable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunelab.process, "MAX_TRIALS", 1)
    trainable.step()
    successor = pid_of(trainable._successor)
    os.kill(pid_of(trainable._process), 9)
    assert "killed by signal 9" in trainable.step()["lost"]
    assert trainable.step()["epoch"] >= 1
    assert pid_of(trainable._process) == successor


def test_libraries_of_a_trial_start_no_more_threads_than_it_has_cores(trainable: KerasTrainable) -> None:
    trainable.step()
    raw = Path(f"/proc/{pid_of(trainable._process)}/environ").read_bytes().decode().split("\0")
    told = dict(line.split("=", 1) for line in raw if "=" in line)
    assert {told[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")} == {"3"}
