"""A trial's process: killed, hung, flooding, leaking or orphaned, it does no harm, and the cause has a name."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from timeless import timeless

import tunelab.process
from tunelab.data.dataset import Dataset
from tunelab.data.generated import Generated
from tunelab.errors import StateError, StorageError, TunelabError
from tunelab.output import KEEP, Drain
from tunelab.process import Lost, WorkerProcess
from tunelab.ranking import Stored
from tunelab.storage import FolderStore
from tunelab.task import Evaluation, Task

HERE = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
LONG = 120.0
"""Seconds that no step of these tests takes, whatever else this machine does."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts a process with the quick trainer; all are ended when the test is over."""
    started: list[WorkerProcess] = []

    def make(faults: str = "", *, store: Any = None, **environment: str) -> WorkerProcess:
        more = {"PYTHONPATH": HERE, "TUNELAB_QUICK_FAULTS": faults, "TUNELAB_QUICK_SHARE": "0", **environment}
        url = "" if store else str(tmp_path / "run")
        started.append(WorkerProcess.start("quick_trainer", store_url=url, store=store, environment=more))
        return started[-1]

    yield make
    for one in started:
        one.close()


@pytest.fixture
def task(small_data: Dataset) -> Task:
    return Task(
        trial="0001",
        seed=7,
        params={"learning_rate": 0.03, "preprocessing": {}},
        data=Generated(dataset=small_data, chains=()),
        max_epochs=6,
        patience=9,
        cpus=1,
        gpus=0,
        debug=False,
    )


def through(process: WorkerProcess) -> Iterator[dict[str, Any]]:
    over = False
    while not over:
        result = process.step(LONG)
        over = bool(result["ended"] or result["failed"] or result["storage"])
        yield result


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("again", "notes", "save_seconds", "checkpoint")}


def ends(pid: int, within: float = 30.0) -> bool:
    """Whether a process, which need not be a child, ends; waits for it until then."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within)[0])
    finally:
        os.close(descriptor)


def test_trials_one_after_another(start: Callable[..., WorkerProcess], task: Task, tmp_path: Path) -> None:
    process = start()
    process.begin(task)
    first = list(through(process))
    assert [r["epoch"] for r in first] == [1, 2, 3, 4, 5, 6]
    process.begin(dataclasses.replace(task, trial="0002"))
    second = list(through(process))
    assert [comparable(r) for r in second] == [comparable(r) for r in first]
    assert process.trials == 2
    assert 10**7 < process.memory() < 10**9
    stored = FolderStore(tmp_path / "run")
    best = max(r["epoch"] for r in second if r["weights"])
    assert f"weights/0002-e{best:04}.npz" in stored.list()
    process.close()
    assert process.memory() == 0
    with pytest.raises(Lost, match="it was closed"):
        process.step(1)


class Store:
    """Asked by a process: remembers, and does something before or after its n-th change."""

    def __init__(self, folder: Path) -> None:
        self.url = "memory"
        self.kept = FolderStore(folder)
        self.changes: list[tuple[str, str]] = []
        self.before: dict[int, Callable[[], None]] = {}
        self.after: dict[int, Callable[[], None]] = {}

    def put(self, key: str, data: bytes) -> None:
        self._change("put", key, lambda: self.kept.put(key, data))

    def delete(self, key: str) -> None:
        self._change("delete", key, lambda: self.kept.delete(key))

    def get(self, key: str) -> bytes:
        return self.kept.get(key)

    def list(self, prefix: str = "") -> list[str]:
        return self.kept.list(prefix)

    def _change(self, verb: str, key: str, make: Callable[[], None]) -> None:
        number = len(self.changes)
        self.changes.append((verb, key))
        self.before.get(number, lambda: None)()
        make()
        self.after.get(number, lambda: None)()


def test_a_store_is_asked_through_the_parent(start: Callable[..., WorkerProcess], task: Task, tmp_path: Path) -> None:
    process = start()
    process.begin(task)
    alone = list(through(process))
    store = Store(tmp_path / "asked")
    asked = start(store=store)
    asked.begin(task)
    assert [comparable(r) for r in through(asked)] == [comparable(r) for r in alone]
    assert store.changes[:3] == [
        ("put", "weights/0001-e0001.npz"),
        ("put", "checkpoints/0001/s000001.ckpt"),
        ("put", "weights/0001-e0002.npz"),
    ]
    assert store.list() == FolderStore(tmp_path / "run").list()


POINTS = {
    "before the weights": ("before", "weights/0001-e0003.npz"),
    "after the weights": ("after", "weights/0001-e0003.npz"),
    "after the checkpoint": ("after", "checkpoints/0001/s000003.ckpt"),
    "before a checkpoint of no new weights": ("before", "checkpoints/0001/s000004.ckpt"),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_it_goes_on_as_if_it_never_was(
    start: Callable[..., WorkerProcess], task: Task, tmp_path: Path, point: str
) -> None:
    whole = Store(tmp_path / "whole")
    process = start(store=whole)
    process.begin(task)
    expected = {r["epoch"]: comparable(r) for r in through(process)}
    when, key = POINTS[point]
    store = Store(tmp_path / "killed")
    process = start(store=store)
    number = whole.changes.index(("put", key))
    getattr(store, when)[number] = lambda: os.kill(process.pid, signal.SIGKILL)
    process.begin(task)
    told: list[dict[str, Any]] = []
    with pytest.raises(Lost, match=r"killed by signal 9 \(SIGKILL\), perhaps out of memory"):
        told.extend(through(process))
    told_before = len(told)
    process = start(store=store)
    process.begin(task)
    told.extend(through(process))
    assert {r["epoch"]: comparable(r) for r in told} == expected
    assert [r["again"] for r in told[told_before:]] == [True] + [False] * (len(told) - told_before - 1)
    if point == "after the checkpoint":
        assert told[told_before]["epoch"] == 3, "told for the first time, and nothing was trained twice"
    assert store.list() == whole.list()


@pytest.mark.slow
def test_killed_fifty_times_at_random_it_loses_no_more_than_the_epoch_under_way(
    start: Callable[..., WorkerProcess], task: Task, tmp_path: Path
) -> None:
    """Each process lives for some epochs, and is killed in the midst of whatever it does then."""
    rng = np.random.default_rng(16)
    long = dataclasses.replace(task, max_epochs=2000, patience=2000)
    alone = start()
    alone.begin(dataclasses.replace(long, trial="0002"))
    expected = {r["epoch"]: comparable(r) for r in through(alone)}
    told: list[dict[str, Any]] = []
    for number in range(50):
        process = start()
        process.begin(long)
        newest = told[-1]["epoch"] if told else 0
        told.append(process.step(LONG))
        # a result that was not heard, because the process died after the checkpoint, is told now
        assert told[-1]["epoch"] in (newest, newest + 1)
        timer = threading.Timer(rng.uniform(0, 0.05), os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(Lost, match="SIGKILL"):
            told.extend(through(process))
        timer.join()
        assert told[-1]["epoch"] < 2000, f"too few epochs for {number} kills"
    process = start()
    process.begin(long)
    told.extend(through(process))
    assert {r["epoch"]: comparable(r) for r in told} == expected
    assert not [r["notes"] for r in told if r["notes"]]


def test_a_store_that_refuses_is_told_and_asked_again(
    start: Callable[..., WorkerProcess], task: Task, tmp_path: Path
) -> None:
    store = Store(tmp_path)

    def refuse() -> None:
        raise StorageError("s3://bucket: gone; see to it")

    store.before[1] = store.before[2] = refuse
    process = start(store=store)
    process.begin(task)
    results = [process.step(LONG) for _ in range(3)]
    assert [(r["storage"], r["failed"], r["epoch"]) for r in results] == [
        ("s3://bucket: gone; see to it", "", 0),
        ("s3://bucket: gone; see to it", "", 0),
        ("", "", 1),
    ]


def test_a_fault_of_the_parents_store_is_the_parents(
    start: Callable[..., WorkerProcess], task: Task, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    store.before[0] = lambda: [][0]
    process = start(store=store)
    process.begin(task)
    with pytest.raises(IndexError):
        process.step(LONG)
    assert ends(process.pid)


FATES = {
    "kill@2": "killed by signal 9 (SIGKILL), perhaps out of memory",
    "crash@2": "killed by signal 11 (SIGSEGV)",
    "leave@2": "exit code 3 (leaving)",
    "fork@2": "killed by signal 9 (SIGKILL), perhaps out of memory",
}


@pytest.mark.parametrize("fault", FATES)
def test_the_end_of_a_process_has_a_cause(start: Callable[..., WorkerProcess], task: Task, fault: str) -> None:
    process = start(fault)
    process.begin(task)
    assert process.step(LONG)["epoch"] == 1
    with pytest.raises(Lost) as lost:
        process.step(LONG)
    assert lost.value.cause == FATES[fault]
    assert lost.value.output == process.output()
    if "crash" in fault:
        assert "Fatal Python error: Segmentation fault" in lost.value.output


@pytest.mark.parametrize("fault", ["hang@2", "hang_natively@2"])
def test_a_hung_step_is_killed_and_says_where(start: Callable[..., WorkerProcess], task: Task, fault: str) -> None:
    process = start(fault)
    process.begin(task)
    process.step(LONG)
    with pytest.raises(
        Lost, match=r"no answer for 1 s \(--step-timeout\); hung in: .*hang.* \(quick_trainer\.py:\d+\)"
    ):
        process.step(1)
    assert ends(process.pid)


def test_time_that_the_store_takes_is_not_the_steps(
    start: Callable[..., WorkerProcess], task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that the store moves on by an hour."""
    store = Store(tmp_path)
    hours = [0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return hours[0] * 3600.0

    monkeypatch.setattr(tunelab.process, "time", Clock)
    store.before[0] = store.before[1] = lambda: hours.append(hours.pop() + 1)
    process = start(store=store)
    process.begin(task)
    assert process.step(60)["epoch"] == 1
    assert hours == [2]


def test_what_goes_wrong_before_the_first_trial_is_told(tmp_path: Path, task: Task) -> None:
    process = WorkerProcess.start("tunelab.no_such_trainer", store_url=str(tmp_path))
    with pytest.raises(Lost, match=r"exit code 1 \(ModuleNotFoundError: No module named 'tunelab\.no_such_trainer'\)"):
        process.begin(task)
    process.close()
    with pytest.raises(ValueError, match="either the folder"):
        WorkerProcess.start("quick_trainer")


def test_a_flood_of_output_costs_no_memory_and_no_disk(
    start: Callable[..., WorkerProcess], task: Task, tmp_path: Path
) -> None:
    """300 MB printed."""
    process = start("flood@1")
    process.begin(task)
    before = own_memory()
    assert process.step(LONG)["epoch"] == 1
    assert own_memory() - before < 2 * 10**7
    process.close()
    text = process.output()
    assert process._drain.count > 3 * 10**8
    assert len(text) < 2 * KEEP + 100
    assert text.startswith("the beginning\nxxx")
    assert f"\n... {process._drain.count - 2 * KEEP:,} bytes left out ...\n" in text
    assert text.endswith("xxx\nthe end\n")
    assert sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file()) < 10**5


def own_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_printing_for_ever_is_a_hung_step(start: Callable[..., WorkerProcess], task: Task) -> None:
    process = start("flood_for_ever@1")
    process.begin(task)
    with pytest.raises(Lost, match=r"no answer for 1 s .*flood_for_ever \(quick_trainer"):
        process.step(1)


def test_little_output_is_kept_whole() -> None:
    reading, writing = os.pipe()
    drain = Drain(os.fdopen(reading, "rb", buffering=0))
    os.write(writing, "äh\n".encode() * 3)
    os.close(writing)
    drain.close()
    assert drain.text() == "äh\n" * 3


def test_out_of_memory_is_a_result_of_a_process_that_lives_on(start: Callable[..., WorkerProcess], task: Task) -> None:
    process = start("memory@2/0001")
    process.begin(task)
    *_, last = through(process)
    assert last["failed"].startswith("out of memory: Unable to allocate 7.45 GiB")
    assert last["failed"].endswith("; lower batch_size or units, or give a trial more memory")
    process.begin(dataclasses.replace(task, trial="0002"))
    assert list(through(process))[-1]["ended"] == "epochs"


def test_a_process_that_has_grown_is_worn(start: Callable[..., WorkerProcess], task: Task) -> None:
    process = start("leak@1")
    short = dataclasses.replace(task, max_epochs=1)
    for trial, worn in (("0001", False), ("0002", True)):
        process.begin(dataclasses.replace(short, trial=trial))
        list(through(process))
        assert process.worn() == worn


def test_a_process_of_many_trials_is_worn(
    start: Callable[..., WorkerProcess], task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunelab.process, "MAX_TRIALS", 3)
    process = start()
    for number, worn in ((1, False), (2, False), (3, True)):
        process.begin(dataclasses.replace(task, trial=f"000{number}", max_epochs=1))
        list(through(process))
        assert process.worn() == worn


def test_it_reads_nothing_from_the_terminal_and_has_no_descriptors_of_others(
    start: Callable[..., WorkerProcess], task: Task
) -> None:
    with open(__file__, "rb") as file:
        os.set_inheritable(file.fileno(), True)
        process = start()
        process.begin(task)
        process.step(LONG)
        links = [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()]
    assert os.readlink(f"/proc/{process.pid}/fd/0") == "/dev/null"
    assert __file__ not in links
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)


PARENT = """
import pickle, sys
from tunelab.process import WorkerProcess
with open(sys.argv[1], "rb") as file:
    task = pickle.load(file)
process = WorkerProcess.start("quick_trainer", store_url=sys.argv[2])
process.begin(task)
process.step(60)
print(process.pid, flush=True)
process.step(600)
"""


@pytest.mark.parametrize("fault", ["hang@2", "hang_natively@2"])
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(task: Task, tmp_path: Path, fault: str, death: signal.Signals) -> None:
    """Also while native code keeps every thread of it from running."""
    import pickle

    (tmp_path / "task").write_bytes(pickle.dumps(task))
    environment = {**os.environ, "PYTHONPATH": HERE, "TUNELAB_QUICK_FAULTS": fault}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "task"), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        env=environment,
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        os.kill(parent.pid, death)
        assert ends(pid)
        assert parent.wait() == -death


def evaluation(task: Task, raw: bytes, digest: str) -> Evaluation:
    stored = Stored(file="0001-e0001.npz", fold=0, digest=digest, threshold=0.5)
    return Evaluation(params=task.params, data=task.data, models=[(raw, stored)], pooled=None, cpus=1, gpus=0)


def test_stored_weights_are_evaluated(
    start: Callable[..., WorkerProcess], task: Task, small_data: Dataset, tmp_path: Path
) -> None:
    process = start()
    process.begin(task)
    results = list(through(process))
    store = FolderStore(tmp_path / "run")
    chosen = [r for r in results if r["weights"]][-1]
    raw = store.get(f"weights/0001-e{chosen['epoch']:04}.npz")
    answer = process.evaluate(evaluation(task, raw, chosen["weights"]), LONG)
    assert answer["validation"]["average_precision"] == pytest.approx(chosen["metrics"]["val_average_precision"])
    assert answer["test"]["traces"] == small_data.part("test").n_traces
    with pytest.raises(StateError, match=r"0001-e0001\.npz: the winner's stored weights do not match their digest"):
        process.evaluate(evaluation(task, raw, "other"), LONG)
    broken = dataclasses.replace(evaluation(task, raw, chosen["weights"]), params={})
    with pytest.raises(TunelabError, match="evaluating stored weights: KeyError: 'preprocessing'"):
        process.evaluate(broken, LONG)
    process.begin(dataclasses.replace(task, trial="0002"))
    assert process.step(LONG)["epoch"] == 1


@pytest.mark.tf
def test_a_keras_model_in_a_process_is_trained_as_in_this_one(small_data: Dataset, task: Task, tmp_path: Path) -> None:
    """Results to the bit, gone on from a checkpoint after a kill, and the evaluation of what was stored."""
    from tunelab import keras_trainer
    from tunelab.models import normalise
    from tunelab.trial import Underway

    raw = {"family": "simple_rnn", "units": [4], "dropout": 0.2, "l2": 1e-4, "learning_rate": 0.01, "batch_size": 8}
    one = dataclasses.replace(task, params=normalise(raw), max_epochs=3)
    here = Underway(one, FolderStore(tmp_path / "here"), keras_trainer.begin)
    expected = {r["epoch"]: r for r in (here.step() for _ in range(3))}
    store = FolderStore(tmp_path / "there")
    process = WorkerProcess.start("tunelab.keras_trainer", store_url=store.url)
    process.begin(one)
    told = [process.step(LONG)]
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Lost, match="SIGKILL"):
        process.step(LONG)
    process = WorkerProcess.start("tunelab.keras_trainer", store_url=store.url)
    try:
        process.begin(one)
        told += through(process)
        assert [(r["epoch"], r["again"]) for r in told] == [(1, False), (1, True), (2, False), (3, False)]
        for result in told:
            own = expected[result["epoch"]]
            assert timeless(result["metrics"]) == timeless(own["metrics"])
            for name in ("weights", "ended", "failed", "parameters", "fold"):
                assert result[name] == own[name], name
        chosen = max((r for r in told if r["weights"]), key=lambda r: r["epoch"])
        file = f"0001-e{chosen['epoch']:04d}.npz"
        models = [
            (
                store.get(f"weights/{file}"),
                Stored(file=file, fold=0, digest=chosen["weights"], threshold=chosen["metrics"]["threshold"]),
            )
        ]
        asked = Evaluation(params=one.params, data=one.data, models=models, pooled=None, cpus=1, gpus=0)
        answer = process.evaluate(asked, LONG)
        assert answer["validation"]["f1"] == pytest.approx(chosen["metrics"]["val_f1"], nan_ok=True)
        assert answer["validation"]["tp"] == chosen["metrics"]["tp"]
    finally:
        process.close()


def test_the_parent_imports_no_framework() -> None:
    code = "import sys, tunelab.process, tunelab.trial; print({'tensorflow', 'keras', 'ray', 'jax'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
