"""``tunelab tensorboard``: the page is asked over HTTP, new points appear while it runs, and nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from fault_proxy import FaultProxy
from quick_run import children, command_of

from tunelab import tensorboard
from tunelab.cli import main
from tunelab.errors import StorageError, UsageError
from tunelab.following import check_loopback
from tunelab.journal import Journal
from tunelab.ranking import Epoch, Trial
from tunelab.storage import FolderStore, S3Store
from tunelab.tensorboard import EventFiles
from tunelab.tuning.hparams import TensorBoardLogs

PATIENT = 120.0
"""Seconds after which a page is taken for hung."""
URL = "s3://curves/runs/mine"


class Run:
    """A run's folder, to whose trials epochs are added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        journal = Journal.open(folder / "journal.jsonl")
        journal.append("run", name="mine", identity={})
        journal.close()
        self._trials: dict[str, Trial] = {}
        self.logs = TensorBoardLogs(folder / "tensorboard", ["units"])

    def learn(self, trial: str, *values: float) -> None:
        """Epochs of a trial, with their loss."""
        made = Trial(trial=trial, name="", family="lstm", params={"family": "lstm"}, point={"units": 8})
        one = self._trials.setdefault(trial, made)
        for loss in values:
            metrics = {"loss": loss, "tune_average_precision": 0.5, "val_f1": 0.5}
            one.epochs.append(Epoch(epoch=len(one.epochs) + 1, seconds=1.0, metrics=metrics))
            self.logs.epoch(one)

    def send(self, store: S3Store) -> None:
        """All of it, as it is now."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix != ".lock":
                store.put(path.relative_to(self.folder).as_posix(), path.read_bytes())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "run")
    yield made
    made.logs.close()


@pytest.fixture
def store(fault_proxy: FaultProxy) -> S3Store:
    client = boto3.client("s3")
    client.create_bucket(Bucket="curves")
    for one in client.list_objects_v2(Bucket="curves").get("Contents", []):
        client.delete_object(Bucket="curves", Key=one["Key"])
    return S3Store("curves", "runs/mine")


class Shown:
    """The command in a process of its own; its temporary folders are in ``temporary``."""

    def __init__(self, place: str, temporary: Path) -> None:
        temporary.mkdir(exist_ok=True)
        self.temporary = temporary
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunelab", "tensorboard", place, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first.startswith(f"TensorBoard of {place}: http://127.0.0.1:"), first + self.process.stdout.read()
        self.url = first.split()[-1]
        self.tree = children(self.process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def points(self, trial: str, tag: str = "train/loss") -> list[tuple[int, float]]:
        """Step and value of a trial's scalars, none while the page does not know it."""
        words = urllib.parse.urlencode({"run": f"{trial}_lstm", "tag": tag})
        try:
            with urllib.request.urlopen(f"{self.url}data/plugin/scalars/scalars?{words}", timeout=PATIENT) as answer:
                return [(step, round(value, 4)) for _, step, value in json.load(answer)]
        except urllib.error.HTTPError as error:
            with error:
                return []

    def end(self, number: int) -> int:
        """Send it a signal; its exit code once all that it started is gone."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENT)
        self._reader.join(timeout=PATIENT)
        until(lambda: not any(command_of(pid) for pid in self.tree))
        return code

    def left(self) -> list[str]:
        """Folders of this command that are there."""
        return [path.name for path in self.temporary.glob("tunelab-tensorboard-*")]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
        self.process.stdout.close()


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Callable[[str], Shown]]:
    shown: list[Shown] = []

    def start(place: str) -> Shown:
        shown.append(Shown(place, tmp_path / "temporary"))
        return shown[-1]

    yield start
    for one in shown:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_local_run_is_followed_and_ctrl_c_is_a_good_end(run: Run, show: Callable[[str], Shown]) -> None:
    shown = show(str(run.folder))
    assert any(b"tensorboard.main" in command_of(pid) for pid in shown.tree)
    run.learn("0001", 0.5)
    until(lambda: shown.points("0001") == [(1, 0.5)])
    run.learn("0001", 0.25)
    run.learn("0002", 0.75)
    until(lambda: shown.points("0001") == [(1, 0.5), (2, 0.25)] and shown.points("0002") == [(1, 0.75)])
    shown.tree += children(shown.process.pid)
    assert shown.end(signal.SIGINT) == 0
    assert shown.lines == ["No event files yet; they are read as they are written. Ctrl-C ends TensorBoard."]


def test_a_run_in_a_bucket_is_followed_and_its_copy_goes_away(
    run: Run, store: S3Store, show: Callable[[str], Shown]
) -> None:
    run.learn("0001", 0.5)
    run.send(store)
    before = store.list()
    shown = show(URL)
    until(lambda: shown.points("0001") == [(1, 0.5)])
    run.learn("0001", 0.25)
    run.learn("0002", 0.75)
    run.send(store)
    until(lambda: shown.points("0001") == [(1, 0.5), (2, 0.25)] and shown.points("0002") == [(1, 0.75)])
    assert len(shown.left()) == 1
    shown.tree += children(shown.process.pid)
    assert shown.end(signal.SIGTERM) == 143
    assert shown.left() == []
    assert shown.lines == ["2 event files; more are read as they are written. Ctrl-C ends TensorBoard."]
    assert len(store.list()) == len(before) + 1


def test_what_a_killed_command_started_ends_too(run: Run, show: Callable[[str], Shown]) -> None:
    shown = show(str(run.folder))
    shown.tree += children(shown.process.pid)
    assert shown.tree
    assert shown.end(signal.SIGKILL) == -signal.SIGKILL


class TestEventFiles:
    def test_only_what_is_new_or_grew_is_brought(
        self, run: Run, store: S3Store, fault_proxy: FaultProxy, tmp_path: Path
    ) -> None:
        run.learn("0001", 0.5)
        run.learn("0002", 0.5)
        run.send(store)
        copy = EventFiles(store, made(tmp_path / "copy"))
        assert copy.look() == 3, "the columns, and two trials"
        assert names(tmp_path / "copy") == names(run.folder, "tensorboard/")
        (grown,) = (tmp_path / "copy/tensorboard/0001_lstm").iterdir()
        number = grown.stat().st_ino
        run.learn("0001", 0.25)
        run.send(store)
        fault_proxy.clear()
        assert (copy.look(), copy.look()) == (1, 0)
        gets = [asked for asked in fault_proxy.asked if asked.method == "GET" and "tfevents" in asked.path]
        assert len(gets) == 1
        assert grown.stat().st_ino == number, "TensorBoard reads on in the file that it opened"
        assert names(tmp_path / "copy") == names(run.folder, "tensorboard/")

    def test_another_file_of_the_same_name_takes_its_place(self, store: S3Store, tmp_path: Path) -> None:
        copy = EventFiles(store, made(tmp_path / "copy"))
        for data in (b"what was first", b"another", b""):
            store.put("tensorboard/0001/events.out.tfevents.1", data)
            assert copy.look() == 1
            assert (tmp_path / "copy/tensorboard/0001/events.out.tfevents.1").read_bytes() == data

    def test_other_files_stay_where_they_are(self, store: S3Store, tmp_path: Path) -> None:
        store.put("tensorboard/plugins/profile/trace.json", b"{}")
        store.put("weights/0001.tfevents", b"x")
        assert EventFiles(store, made(tmp_path / "copy")).look() == 0
        assert names(tmp_path / "copy") == {}

    def test_what_cannot_be_brought_is_said_and_tried_again(
        self, store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tensorboard, "MOST_OF_A_FILE", 10)
        store.put("tensorboard/a.tfevents", b"x" * 11)
        store.put("tensorboard/b.tfevents", b"x")
        copy = EventFiles(store, made(tmp_path / "copy"))
        with pytest.raises(StorageError, match=f"{URL}/tensorboard/a.tfevents: has 11 bytes, more than 10 bytes"):
            copy.look()
        assert list(names(tmp_path / "copy")) == ["tensorboard/b.tfevents"]
        store.put("tensorboard/a.tfevents", b"x")
        assert copy.look() == 1

    def test_nothing_is_written_where_the_copy_was(self, store: S3Store, tmp_path: Path) -> None:
        store.put("tensorboard/a.tfevents", b"x")
        EventFiles(store, tmp_path / "gone").look()
        over = threading.Event()
        over.set()
        EventFiles(store, made(tmp_path / "copy"), over).look()
        assert not (tmp_path / "gone").exists()
        assert names(tmp_path / "copy") == {}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def names(folder: Path, below: str = "") -> dict[str, bytes]:
    """The files below a folder, by their keys."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {key: data for key, data in found.items() if key.startswith(below)}


def test_without_it_it_says_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    assert main(["tensorboard", str(run.folder), "--port", "0"]) == 2
    assert capsys.readouterr() == ("", "tunelab: TensorBoard is not installed; pip install tensorboard\n")


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tensorboard", str(tmp_path), "--port", "0"]) == 7
    assert f"{tmp_path}: holds no run (no journal.jsonl)" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_listens_on_the_loopback_only(run: Run, host: str) -> None:
    with pytest.raises(UsageError, match=f"--host {host}: is not the loopback; TensorBoard asks nobody who they are"):
        tensorboard.tensorboard(FolderStore(run.folder), host=host, port=0, say=pytest.fail)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_every_name_of_the_loopback_will_do(host: str) -> None:
    check_loopback(host, "it")


def test_an_address_that_cannot_be_listened_at_is_refused(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: Address already in use; give another --port, 0 for any"):
            tensorboard.tensorboard(FolderStore(run.folder), port=port, say=pytest.fail)
    with pytest.raises(UsageError, match=r"--host no\.such\.host\.invalid"):
        check_loopback("no.such.host.invalid", "it")


def test_one_that_ends_by_itself_is_said(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In place of TensorBoard a program that says its address, or something else, and ends."""
    for code, said in (
        ("print('at http://127.0.0.1:1/'); print('why'); exit(3)", r"ended by itself \(exit code 3\): why; start it"),
        ("print('cannot')", r"--host 127\.0\.0\.1 --port 0: TensorBoard did not start: cannot; give another --port"),
        ("", "TensorBoard did not start: it said nothing"),
    ):
        program: Any = tmp_path / "program"
        program.write_text(f"#!{sys.executable}\n{code}\n")
        program.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(Exception, match=said):
            tensorboard.tensorboard(FolderStore(run.folder), port=0, say=lambda line: None)
        monkeypatch.undo()
