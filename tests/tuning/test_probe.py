"""Epochs that are timed as trials would train them: in real processes, of the quick trainer, with its faults."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import pytest
import ray

from tunelab.data.dataset import Dataset
from tunelab.data.generated import Generated
from tunelab.task import Task
from tunelab.tuning import probe as module
from tunelab.tuning.cluster_session import ray_session
from tunelab.tuning.probe import TIMED, measure, probe

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and log files to the garbage collector, and warns of its own future
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The quick trainer is found, and temporary folders are seen."""
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("TUNELAB_QUICK_TRAINED", str(tmp_path / "trained"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def tasks(data: Dataset, *trials: str, max_epochs: int = 8) -> list[Task]:
    access = Generated(dataset=data, chains=())
    params = {"learning_rate": 0.03, "preprocessing": {}}
    return [
        Task(trial=trial, seed=0, params=params, data=access, max_epochs=max_epochs, patience=9, cpus=1.0, gpus=0.0,
             debug=False)
        for trial in trials
    ]  # fmt: skip


def trained(folder: Path) -> list[str]:
    return (folder / "trained").read_text().splitlines()


def test_short_epochs_are_timed_a_few_times_and_long_ones_once(
    small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, ready, taken = measure(tasks(small_data, "0001", "0002"), trainer="quick_trainer", threads=1, limit=60)
    assert trained(tmp_path) == [f"{trial} 0 {epoch}" for trial in ("0001", "0002") for epoch in range(1, TIMED + 2)]
    assert all(0 < one.seconds < 60 and 0 < one.first < 60 and not one.fault for one in found)
    assert 0 < ready < taken
    monkeypatch.setenv("TUNELAB_QUICK_SECONDS", "1.1")
    (one,), _, _ = measure(tasks(small_data, "0003"), trainer="quick_trainer", threads=1, limit=60)
    assert trained(tmp_path)[-2:] == ["0003 0 1", "0003 0 2"]
    assert one.seconds >= 1.1
    assert not list((tmp_path / "temporary").iterdir())


def test_a_training_of_one_epoch_tells_the_first_alone(small_data: Dataset) -> None:
    (one,), _, _ = measure(tasks(small_data, "0001", max_epochs=1), trainer="quick_trainer", threads=1, limit=60)
    assert one.first > 0
    assert math.isnan(one.seconds)


def test_what_fails_has_its_cause_and_the_next_is_timed(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELAB_QUICK_FAULTS", "raise@1/0001 kill@2/0002 nan@1/0003")
    found, _, _ = measure(
        tasks(small_data, "0001", "0002", "0003", "0004"), trainer="quick_trainer", threads=1, limit=240
    )
    assert found[0].fault == "ValueError: the fault that was asked for"
    assert "SIGKILL" in found[1].fault
    assert found[2].fault == "the loss is nan in epoch 1"
    assert found[3].seconds > 0


@pytest.mark.parametrize("epoch", [1, 2])
def test_when_time_is_up_what_goes_on_is_ended(
    small_data: Dataset, monkeypatch: pytest.MonkeyPatch, epoch: int, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNELAB_QUICK_FAULTS", f"hang@{epoch}/0001")
    found, ready, taken = measure(tasks(small_data, "0001", "0002"), trainer="quick_trainer", threads=1, limit=3)
    assert math.isnan(found[0].seconds)
    assert math.isnan(found[0].first) == (epoch == 1)
    assert 0 < found[0].least < taken - ready
    assert (found[1].least, found[1].fault) == (0, "")
    assert math.isnan(found[1].first)
    assert not any(line.startswith("0002") for line in trained(tmp_path))
    assert not list((tmp_path / "temporary").iterdir())


def test_places_train_beside_each_other_and_answers_keep_their_order(
    small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_QUICK_FAULTS", "raise@1/0002")
    with ray_session(None, debug=False) as there:
        assert there["CPU"] >= 2
        probes = probe(
            tasks(small_data, "0001", "0002", "0003"), trainer="quick_trainer", places=2, limit=60, custom={}
        )
    assert probes is not None
    assert [bool(one.fault) for one in probes.probed] == [False, True, False]
    assert [one.seconds > 0 for one in probes.probed] == [True, False, True]
    assert 0 < probes.start < probes.taken
    first = trained(tmp_path)
    assert {line.split()[0] for line in first} == {"0001", "0002", "0003"}


def test_when_no_place_comes_free_nothing_is_told(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    with ray_session(None, debug=False) as there:
        taken = ray.util.placement_group([{"CPU": there["CPU"]}])
        ray.get(taken.ready())
        assert probe(tasks(small_data, "0001"), trainer="quick_trainer", places=1, limit=1, custom={}) is None
