"""A trial under training: what is stored when, and that nothing told is lost wherever its process dies."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tunelab.trial
from tunelab.causes import cause_of, innermost, signalled
from tunelab.checkpoint import digest, pack_checkpoint, unpack_checkpoint
from tunelab.data.dataset import Dataset
from tunelab.data.generated import Generated
from tunelab.errors import DataError, StorageError
from tunelab.outcome import Outcome, Step
from tunelab.ranking import Leaderboard
from tunelab.storage import FolderStore
from tunelab.trial import Task, Underway, left_over

SUGGESTION = {"kind": "suggestion", "trial": "0001", "name": "", "family": "lstm", "params": {}, "point": {}}


@pytest.fixture(scope="module")
def quick() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("quick_trainer", Path(__file__).with_name("quick_trainer.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["quick_trainer"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["quick_trainer"]


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every epoch, however fast it was."""
    monkeypatch.setattr(tunelab.trial, "CHECKPOINT_SHARE", 0)


def task(data: Dataset, **changes: Any) -> Task:
    one = Task(
        trial="0001",
        seed=7,
        params={"learning_rate": 0.03, "preprocessing": {}},
        data=Generated(dataset=data, chains=()),
        max_epochs=6,
        patience=9,
        cpus=1,
        gpus=0,
        debug=False,
    )
    return dataclasses.replace(one, **changes)


def folded(data: Dataset) -> Dataset:
    return data.with_folds([i % 4 - 1 for i in range(data.n_scans)])


def one_by_one(underway: Underway) -> Iterator[dict[str, Any]]:
    """Each can be looked at before the next is made."""
    over = False
    while not over:
        result = underway.step()
        over = bool(result["ended"] or result["failed"] or result["storage"])
        yield result


def through(underway: Underway) -> list[dict[str, Any]]:
    return list(one_by_one(underway))


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("again", "notes", "save_seconds", "checkpoint")}


def board_of(results: list[dict[str, Any]]) -> Leaderboard:
    """As the driver's journal would tell."""
    board = Leaderboard([SUGGESTION])
    for result in results:
        kind = "fold" if result["fold"] else "result"
        board.apply({**result, "kind": kind, "trial": "0001"})
        for pooled in result["pooled"]:
            board.apply({**pooled, "kind": "pooled", "trial": "0001"})
    return board


def all_weights_are_there(results: list[dict[str, Any]], store: FolderStore) -> None:
    """Those of every fold's chosen epoch, as far as it has been told."""
    trial = board_of(results).trials["0001"]
    for fold in {result["fold"] for result in results}:
        chosen = trial.chosen_of(fold)
        if chosen is not None:
            key = f"weights/{tunelab.trial.weights_file('0001', fold, chosen.epoch)}"
            assert digest(store.get(key)) == chosen.weights


class Died(BaseException):
    """As a SIGKILL: nothing in the process catches it."""


class Deadly:
    """A store at whose n-th change the process dies, before or after it is made."""

    def __init__(self, store: FolderStore, n: int, *, after: bool) -> None:
        self.store, self.n, self.after, self.count = store, n, after, 0
        self.url, self.get, self.list = store.url, store.get, store.list

    def put(self, key: str, data: bytes) -> None:
        self._change(lambda: self.store.put(key, data))

    def delete(self, key: str) -> None:
        self._change(lambda: self.store.delete(key))

    def _change(self, make: Callable[[], None]) -> None:
        self.count += 1
        if self.count != self.n or self.after:
            make()
        if self.count == self.n:
            raise Died


def test_an_epoch_is_stored_before_it_is_told(quick: ModuleType, small_data: Dataset, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    underway = Underway(task(small_data), store, quick.begin)
    assert store.list() == []
    first = underway.step()
    assert (first["fold"], first["epoch"], first["again"], first["notes"], first["storage"]) == (0, 1, False, [], "")
    assert store.list() == ["checkpoints/0001/s000001.ckpt", "weights/0001-e0001.npz"]
    assert first["weights"] == digest(store.get("weights/0001-e0001.npz"))
    assert first["checkpoint"] == "s000001.ckpt"
    assert 0 < first["save_seconds"] < 5
    results = [first, *through(underway)]
    assert [r["epoch"] for r in results] == [1, 2, 3, 4, 5, 6]
    assert (results[-1]["ended"], results[-1]["checkpoint"]) == ("epochs", "")
    assert [k for k in store.list() if k.startswith("checkpoints/")] == [
        "checkpoints/0001/s000004.ckpt",
        "checkpoints/0001/s000005.ckpt",
    ]
    all_weights_are_there(results, store)


@pytest.mark.parametrize("folds", [False, True], ids=["four-splits", "folds"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("share", [0, 10**9], ids=["checkpoint-each-epoch", "checkpoint-of-the-first"])
def test_wherever_it_dies_results_and_weights_are_those_of_a_trial_that_never_did(
    quick: ModuleType,
    small_data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folds: bool,
    after: bool,
    share: int,
) -> None:
    monkeypatch.setattr(tunelab.trial, "CHECKPOINT_SHARE", share)
    one = task(folded(small_data) if folds else small_data, max_epochs=3 if folds else 6)
    counting = Deadly(FolderStore(tmp_path / "whole"), 0, after=False)
    whole = {(r["fold"], r["epoch"]): comparable(r) for r in through(Underway(one, counting, quick.begin))}
    assert len(whole) == (9 if folds else 6)
    assert len(whole) > sum(bool(r["weights"]) for r in whole.values()) > 3, "some epochs improve, and some do not"
    for n in range(1, counting.count + 1):
        store = FolderStore(tmp_path / str(n))
        underway = Underway(one, Deadly(store, n, after=after), quick.begin)
        told: list[dict[str, Any]] = []
        with pytest.raises(Died):
            told.extend(one_by_one(underway))
        all_weights_are_there(told, store)
        for result in one_by_one(Underway(one, store, quick.begin)):
            assert not result["notes"]
            told.append(result)
            all_weights_are_there(told, store)
        merged = {(r["fold"], r["epoch"]): comparable(r) for r in told}
        assert merged == whole
        assert all(merged[r["fold"], r["epoch"]] == comparable(r) for r in told), "told twice, it was the same"
        assert sum(r["again"] for r in told) <= 1
        trial = board_of(told).trials["0001"]
        assert {k: len(v) for k, v in trial.folds.items()} == ({1: 3, 2: 3} if folds else {})
        assert (trial.pooled is not None) == folds
        keep = [stored.file for stored in trial.stored()]
        for key in left_over(store.list(), "0001", keep):
            store.delete(key)
        assert store.list() == sorted(f"weights/{file}" for file in keep)


def test_it_may_die_again_and_again(quick: ModuleType, small_data: Dataset, tmp_path: Path) -> None:
    """Each process lives for one epoch and the beginning of another."""
    one, store = task(folded(small_data), max_epochs=3), FolderStore(tmp_path)
    told = [Underway(one, store, quick.begin).step()]
    while not told[-1]["ended"]:
        underway = Underway(one, store, quick.begin)
        again = underway.step()
        assert again["again"]
        assert comparable(again) == comparable(told[-1])
        told.append(underway.step())
    assert [(r["fold"], r["epoch"]) for r in told] == [(k, e) for k in range(3) for e in (1, 2, 3)]
    alone = through(Underway(one, FolderStore(tmp_path / "alone"), quick.begin))
    assert [comparable(r) for r in told] == [comparable(r) for r in alone]


def damage_flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 8
    path.write_bytes(raw)


def other_trial(path: Path) -> None:
    arrays, state = unpack_checkpoint(path.read_bytes(), "")
    state["task"][1] += 1
    path.write_bytes(pack_checkpoint(arrays, state))


def other_version(path: Path) -> None:
    arrays, state = unpack_checkpoint(path.read_bytes(), "")
    del state["chosen"]
    path.write_bytes(pack_checkpoint(arrays, state))


def other_model(path: Path) -> None:
    arrays, state = unpack_checkpoint(path.read_bytes(), "")
    path.write_bytes(pack_checkpoint({**arrays, "model": [np.ones(5), np.ones(5)]}, state))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (damage_flip, "does not match its digest"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]) and None, "does not match its digest"),
    "empty": (lambda path: path.write_bytes(b"") and None, "does not match its digest"),
    "seed": (other_trial, "is of another trial, seed or params"),
    "version": (other_version, "is no checkpoint of this version (KeyError 'chosen')"),
    "model": (other_model, "holds the variables of another model"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_used_and_said(
    quick: ModuleType, small_data: Dataset, tmp_path: Path, kind: str
) -> None:
    whole = through(Underway(task(small_data), FolderStore(tmp_path / "whole"), quick.begin))
    store = FolderStore(tmp_path)
    begun = Underway(task(small_data), store, quick.begin)
    told = [begun.step() for _ in range(4)]
    spoil, text = DAMAGES[kind]
    spoil(tmp_path / "checkpoints/0001/s000004.ckpt")
    rest = through(Underway(task(small_data), store, quick.begin))
    assert rest[0]["notes"] == [f"checkpoints/0001/s000004.ckpt: {text}; goes on from epoch 3"]
    assert [r["notes"] for r in rest[1:]] == [[]] * 3
    assert [(r["epoch"], r["again"]) for r in rest] == [(3, True), (4, False), (5, False), (6, False)]
    assert [comparable(r) for r in rest] == [comparable(r) for r in whole[2:]]
    all_weights_are_there(told + rest, store)


def test_a_missing_newest_checkpoint_leaves_the_one_before(
    quick: ModuleType, small_data: Dataset, tmp_path: Path
) -> None:
    begun = Underway(task(small_data), FolderStore(tmp_path), quick.begin)
    for _ in range(4):
        begun.step()
    (tmp_path / "checkpoints/0001/s000004.ckpt").unlink()
    (tmp_path / "checkpoints/0001/notes.txt").write_text("another's file is no checkpoint")
    rest = through(Underway(task(small_data), FolderStore(tmp_path), quick.begin))
    assert [(r["epoch"], r["again"], r["notes"]) for r in rest[:2]] == [(3, True, []), (4, False, [])]
    assert (tmp_path / "checkpoints/0001/notes.txt").exists()


def test_when_no_checkpoint_is_whole_it_begins_anew(quick: ModuleType, small_data: Dataset, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    begun = Underway(task(small_data), store, quick.begin)
    told = [begun.step() for _ in range(4)]
    for number in (3, 4):
        damage_flip(tmp_path / f"checkpoints/0001/s00000{number}.ckpt")
    underway = Underway(task(small_data), store, quick.begin)
    first = underway.step()
    assert first["notes"] == [
        f"checkpoints/0001/s00000{number}.ckpt: does not match its digest; begins anew" for number in (4, 3)
    ]
    assert (first["epoch"], first["again"]) == (1, False)
    assert comparable(first) == comparable(told[0])
    assert [k for k in store.list() if k.startswith("checkpoints/")] == ["checkpoints/0001/s000001.ckpt"]
    # until the new first epoch has been told, the journal still names the weights of the old ones
    all_weights_are_there(told, store)
    rest = through(underway)
    all_weights_are_there([first, *rest], store)


def test_files_of_other_trials_and_folds_stay(quick: ModuleType, small_data: Dataset, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    others = ["weights/00010-e0001.npz", "weights/0001-2-e0001.npz", "weights/0002-e0001.npz", "run.yaml"]
    others += ["checkpoints/00010/s000001.ckpt", "weights/0001-e1.npz.old"]
    for key in others:
        store.put(key, b"x")
    through(Underway(task(small_data), store, quick.begin))
    assert set(others) <= set(store.list())
    assert left_over(others, "0001", []) == []
    keys = [*others, "weights/0001-fold2-e0003.npz", "weights/0001-e0007.npz", "checkpoints/0001/s000001.ckpt"]
    assert left_over(keys, "0001", ["0001-e0007.npz"]) == keys[-3:-2] + keys[-1:]


class Timed:
    """A trainer and a store by a clock of their own."""

    parameters = 1
    notes = ()

    def __init__(self, epoch: float, save: float, epochs: int) -> None:
        self.now, self.epoch, self.epochs = 0.0, 0, epochs
        self._times = epoch, save
        self.puts: list[str] = []
        self.url = "here"

    def begin(self, task: Task) -> Timed:
        return self

    def step(self) -> tuple[Step, Any]:
        self.now += self._times[0]
        self.epoch += 1
        ended = "epochs" if self.epoch == self.epochs else ""
        outcome = Outcome(epoch=self.epoch, seconds=1, metrics={}, improved=False, ended=ended, failed="")
        return Step(fold=0, outcome=outcome, ended=ended, failed="", pooled=None), ()

    def save(self) -> tuple[Any, Any]:
        self.now += self._times[1]
        return {}, {}

    def put(self, key: str, raw: bytes) -> None:
        self.puts.append(key)

    def delete(self, key: str) -> None:
        self.puts.remove(key)

    def list(self, prefix: str = "") -> list[str]:
        return []


def test_checkpoints_cost_under_three_percent(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    timed = Timed(epoch=10, save=1, epochs=100)
    monkeypatch.setattr(tunelab.trial, "time", SimpleNamespace(perf_counter=lambda: timed.now))
    results = through(Underway(task(small_data), timed, timed.begin))
    assert [r["epoch"] for r in results if r["checkpoint"]] == [1, *range(5, 100, 4)]
    assert sum(r["save_seconds"] for r in results) == 25
    assert 25 / timed.now < 0.03
    assert timed.puts == ["checkpoints/0001/s000093.ckpt", "checkpoints/0001/s000097.ckpt"]
    timed = Timed(epoch=100, save=1, epochs=5)
    results = through(Underway(task(small_data), timed, timed.begin))
    assert [r["epoch"] for r in results if r["checkpoint"]] == [1, 2, 3, 4], "never after the last"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("two\n lines"), "ValueError: two lines"),
        (DataError("a.npz: cut"), "a.npz: cut"),
        (MemoryError(), "out of memory: MemoryError; lower batch_size or units, or give a trial more memory"),
        (
            type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"),
            "out of memory: OOM when allocating tensor; lower batch_size or units, or give a trial more memory",
        ),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
            "out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.; lower batch_size or units, or give "
            "a trial more memory",
        ),
        (KeyError("x" * 900), "KeyError: '" + "x" * 499),
    ],
)
def test_causes_are_named(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


def test_frameworks_errors_of_memory_are_known() -> None:
    error = np._core._exceptions._ArrayMemoryError((10**12,), np.dtype(float))
    assert cause_of(error).startswith("out of memory: Unable to allocate 7.28 TiB")


def test_signals_and_stacks_are_named() -> None:
    assert signalled(9) == "killed by signal 9 (SIGKILL), perhaps out of memory"
    assert signalled(11) == "killed by signal 11 (SIGSEGV)"
    stacks = (
        'Thread 0x1 (most recent call first):\n  File "/a/b.py", line 3 in other\n\n'
        'Current thread 0x2 (most recent call first):\n  File "/a/c.py", line 7 in step\n'
        '  File "d.py", line 1 in main\n'
    )
    assert innermost(stacks) == ["step (c.py:7)", "main (d.py:1)"]
    assert innermost("") == []


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("raise@2", "ValueError: the fault that was asked for"),
        ("memory@2", "out of memory: Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type"),
        ("nan@2", "the loss is nan in epoch 2"),
    ],
)
def test_a_fault_of_the_model_is_a_result(
    quick: ModuleType, small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, cause: str
) -> None:
    monkeypatch.setenv("TUNELAB_QUICK_FAULTS", fault)
    first, second = through(Underway(task(small_data), FolderStore(tmp_path), quick.begin))
    assert (first["failed"], first["storage"]) == ("", "")
    assert second["failed"].startswith(cause)
    assert (second["ended"], second["storage"], second["weights"], second["checkpoint"]) == ("", "", "", "")
    if "nan" in fault:
        assert (second["epoch"], math.isnan(second["metrics"]["loss"])) == (2, True)


def test_debug_adds_the_traceback(
    quick: ModuleType, small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_QUICK_FAULTS", "raise")
    failed = Underway(task(small_data, debug=True), FolderStore(tmp_path), quick.begin).step()["failed"]
    assert failed.startswith("Traceback")
    assert "raise_value_error" in failed


def test_a_model_that_cannot_be_built_fails_its_trial(small_data: Dataset, tmp_path: Path) -> None:
    def begin(task: Task) -> Any:
        raise DataError("scans: none")

    result = Underway(task(small_data), FolderStore(tmp_path), begin).step()
    assert (result["failed"], result["storage"]) == ("scans: none", "")


class Full:
    """A store that is full until it is not, at one verb."""

    def __init__(self, store: FolderStore, verb: str, error: Exception) -> None:
        self._store, self._verb, self.error = store, verb, error
        self.url = store.url
        self.broken = True

    def __getattr__(self, name: str) -> Any:
        if name == self._verb and self.broken:
            return self._refuse
        return getattr(self._store, name)

    def _refuse(self, *arguments: object) -> None:
        raise self.error


@pytest.mark.parametrize("verb", ["put", "delete", "list", "get"])
@pytest.mark.parametrize("error", [StorageError("s3://b: gone"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_store_that_is_full_is_not_the_trials_fault_and_the_epoch_is_not_lost(
    quick: ModuleType, small_data: Dataset, tmp_path: Path, verb: str, error: Exception
) -> None:
    whole = through(Underway(task(small_data), FolderStore(tmp_path / "whole"), quick.begin))
    store = FolderStore(tmp_path)
    begun = Underway(task(small_data), store, quick.begin)
    told = [begun.step() for _ in range(2)]
    full = Full(store, verb, error)
    full.broken = verb in ("list", "get")
    underway = Underway(task(small_data), full, quick.begin)
    if not full.broken:
        told.append(underway.step())
        full.broken = True
    refused = [underway.step() for _ in range(2)]
    assert {r["storage"] for r in refused} == {str(error)}
    assert {(r["failed"], r["weights"], r["epoch"]) for r in refused} == {("", "", 0)}
    full.broken = False
    told += through(underway)
    merged = {r["epoch"]: comparable(r) for r in told}
    assert merged == {r["epoch"]: comparable(r) for r in whole}
    all_weights_are_there(told, store)


def test_another_error_of_the_system_is_the_trials_own(small_data: Dataset, tmp_path: Path) -> None:
    def begin(task: Task) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", "x.h5")

    result = Underway(task(small_data), FolderStore(tmp_path), begin).step()
    assert (result["failed"], result["storage"]) == ("PermissionError: [Errno 13] Permission denied: 'x.h5'", "")


def test_once_its_machine_is_taken_back_each_epoch_leaves_a_checkpoint(
    quick: ModuleType, small_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunelab.trial, "CHECKPOINT_SHARE", math.inf)
    said = [""]
    underway = Underway(task(small_data), FolderStore(tmp_path), quick.begin, lambda: said[0])
    told = [underway.step() for _ in range(2)]
    assert [bool(one["checkpoint"]) for one in told] == [True, False], "the first one, whose cost is not known"
    said[0] = "terminate at 2026-01-02T03:04:05Z"
    told = [underway.step() for _ in range(3)]
    assert all(one["checkpoint"] for one in told)
    notes = [note for one in told for note in one["notes"]]
    assert notes == [f"its machine is taken back ({said[0]}); checkpoints after each epoch until then"]
