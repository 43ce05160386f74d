"""A run in optuna-dashboard: really started and asked over HTTP; what it follows, what it refuses, how it ends."""

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
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from fault_proxy import FaultProxy
from optuna.trial import TrialState
from quick_run import SPACE

from tunelab.cli import main
from tunelab.dashboard import Followed, dashboard
from tunelab.errors import StateError, UsageError
from tunelab.journal import Journal
from tunelab.models import normalise
from tunelab.space import load_space
from tunelab.storage import FolderStore, open_store

ASSETS = Path(__file__).parent / "assets" / "releases"
PATIENT = 120.0
"""Seconds after which a dashboard is taken for hung."""


class Run:
    """A run's folder, to whose journal trials are added."""

    def __init__(self, folder: Path, name: str = "mine", space: str = SPACE) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        path = folder.parent / "space.yaml"
        path.write_text(space)
        self._space = load_space(path)
        self.journal = Journal.open(folder / "journal.jsonl")
        self.journal.append("run", name=name, identity={"space": dict(self._space.document)})

    def trial(self, trial: str, *values: float, status: str = "finished", family: str = "simple_rnn") -> None:
        own = {"units": [6]} if family == "simple_rnn" else {"dense": [8, 6], "units": [6]}
        shared = {"learning_rate": 0.001 * int(trial), "batch_size": 4, "dropout": 0.1, "l2": 1e-5}
        params = normalise({"family": family, **shared, **own})
        point = self._space.column_values(params)
        self.journal.append("suggestion", trial=trial, name="", seed=0, family=family, params=params, point=point)
        for epoch, value in enumerate(values, start=1):
            metrics = {"tune_average_precision": value, "val_f1": value / 2}
            told = {"epoch": epoch, "seconds": 1.0, "parameters": 7, "metrics": metrics}
            self.journal.append("result", trial=trial, **told)
        if status != "running":
            self.journal.append("end", trial=trial, status=status, cause="")

    def files(self) -> dict[str, bytes]:
        """All that is in the folder."""
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in self.folder.rglob("*")}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "run")
    yield made
    made.journal.close()


class Shown:
    """A dashboard in a process of its own."""

    def __init__(self, place: str, *options: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunelab", "dashboard", place, "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first.startswith(f"Dashboard of {place}: http://127.0.0.1:"), first + self.process.stdout.read()
        self.url = first.split()[-1].removesuffix("/dashboard/studies/0")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=PATIENT) as answer:
            assert answer.status == 200
            return bytes(answer.read())

    def api(self, path: str) -> Any:
        return json.loads(self.get(f"/api/studies{path}"))

    def names(self) -> list[str]:
        """The trials that are shown, by our names."""
        return [attributes(trial)["trial"] for trial in self.api("/0")["trials"]]

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENT)
        self._reader.join(timeout=PATIENT)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
        self.process.stdout.close()


@pytest.fixture
def show() -> Iterator[Callable[..., Shown]]:
    shown: list[Shown] = []

    def start(*words: str) -> Shown:
        shown.append(Shown(*words))
        return shown[-1]

    yield start
    for one in shown:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()


def attributes(trial: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in trial["user_attrs"]}


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_page_and_trials_are_served_new_ones_too_nothing_is_written_and_ctrl_c_is_a_good_end(
    run: Run, show: Callable[..., Shown]
) -> None:
    (run.folder / "optuna.log").write_bytes(b"\x00 damaged")
    run.trial("0001", 0.2, 0.4)
    run.trial("0002", 0.1, 0.3, family="dense_rnn", status="stopped")
    run.trial("0003", 0.5, status="running")
    before = run.files()
    shown = show(str(run.folder))
    assert b"<title>Optuna Dashboard</title>" in shown.get("/dashboard/studies/0")
    assert [study["study_name"] for study in shown.api("")["study_summaries"]] == ["mine"]
    study = shown.api("/0")
    assert study["directions"] == ["maximize"]
    assert [(trial["state"], trial["values"]) for trial in study["trials"]] == [("Complete", [0.4]), ("Pruned", [0.3])]
    assert attributes(study["trials"][0])["validation_f1"] == "0.2"
    dimensions = {"family", "learning_rate", "dropout", "l2", "simple_rnn.units", "dense_rnn.dense"}
    assert {one["name"] for one in study["union_search_space"]} == dimensions
    assert {one["name"] for one in study["intersection_search_space"]} == dimensions - {
        "simple_rnn.units",
        "dense_rnn.dense",
    }
    shown.api("/0/param_importances")
    assert run.files() == before
    run.journal.append("end", trial="0003", status="failed", cause="")
    run.trial("0004", 0.1)
    until(lambda: shown.names() == ["0001", "0002", "0003", "0004"])
    assert set(run.files()) == set(before)
    assert shown.end() == 0
    assert shown.lines == ["2 trials are over; more are shown as they end. Ctrl-C ends the dashboard."]


def test_the_page_changes_nothing(run: Run, show: Callable[..., Shown]) -> None:
    run.trial("0001", 0.2)
    shown = show(str(run.folder))
    for method, path in (("DELETE", "/api/studies/0"), ("POST", "/api/studies"), ("PUT", "/api/studies/0/note")):
        asked = urllib.request.Request(shown.url + path, data=b"{}", method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=PATIENT)
        with refused.value as answer:
            assert answer.code == 405
            assert json.loads(answer.read()) == {"reason": "tunelab dashboard only shows; nothing is changed"}
    assert shown.names() == ["0001"]


def test_a_run_in_a_bucket_is_shown_from_there(
    run: Run, show: Callable[..., Shown], fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    run.trial("0001", 0.2)
    boto3.client("s3").create_bucket(Bucket="dashboard")
    store = open_store("s3://dashboard/runs/mine")
    store.put("journal.jsonl", (run.folder / "journal.jsonl").read_bytes())
    shown = show("s3://dashboard/runs/mine")
    assert shown.names() == ["0001"]
    assert shown.end() == 0
    assert store.list() == ["journal.jsonl"]
    followed = Followed(store)
    assert followed.look() == 1
    run.trial("0002", 0.3)
    store.put("journal.jsonl", (run.folder / "journal.jsonl").read_bytes())
    assert (followed.look(), followed.look(), followed.over) == (1, 0, 2)


def test_a_torn_last_line_is_looked_at_when_it_is_whole(run: Run, tmp_path: Path) -> None:
    run.trial("0001", 0.2)
    run.trial("0002", 0.3)
    raw = (run.folder / "journal.jsonl").read_bytes()
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "journal.jsonl"
    copy.write_bytes(raw[:-10])
    followed = Followed(FolderStore(copy.parent))
    assert followed.look() == 1
    copy.write_bytes(raw)
    assert followed.look() == 1
    assert followed.study is not None
    assert [trial.user_attrs["trial"] for trial in followed.study.trials] == ["0001", "0002"]


def test_another_run_in_its_place_is_no_more_of_the_same(run: Run, tmp_path: Path) -> None:
    run.trial("0001", 0.2)
    followed = Followed(FolderStore(run.folder))
    followed.look()
    other = Run(tmp_path / "other" / "run")
    for number in range(1, 5):
        other.trial(f"{number:04d}", 0.2)
    other.journal.close()
    (run.folder / "journal.jsonl").write_bytes((other.folder / "journal.jsonl").read_bytes())
    with pytest.raises(StateError, match="is not the run that it was; start the dashboard again"):
        followed.look()
    assert followed.over == 1


def test_a_journal_that_is_away_for_a_while_is_said_once_and_looked_at_again(
    run: Run, show: Callable[..., Shown]
) -> None:
    run.trial("0001", 0.2)
    path = run.folder / "journal.jsonl"
    shown = show(str(run.folder))
    path.rename(run.folder / "away")
    until(lambda: len(shown.lines) > 1)
    (run.folder / "away").rename(path)
    run.trial("0002", 0.3)
    until(lambda: shown.names() == ["0001", "0002"])
    assert shown.end() == 0
    assert shown.lines[1:] == [
        f"Warning: {run.folder}: holds no run (no journal.jsonl); check the name with: tunelab list"
    ]


def test_a_changed_space_is_that_of_the_trials_after_it(run: Run) -> None:
    run.trial("0001", 0.2)
    followed = Followed(FolderStore(run.folder))
    followed.look()
    document = {"families": {"simple_rnn": {"units": {"choice": [[6], [9]]}, "dropout": {"uniform": [0, 1]}}}}
    fixed = {"learning_rate": 0.002, "batch_size": 4, "l2": 1e-5}
    run.journal.append("change", identity={"space": {**document, "shared": fixed}})
    run.trial("0002", 0.3)
    assert followed.look() == 1
    assert followed.study is not None
    assert set(followed.study.trials[1].params) == {"simple_rnn.units", "simple_rnn.dropout"}


@pytest.mark.parametrize("name", ["0.1.0-done", "0.1.0-killed"])
def test_runs_of_the_first_release_are_shown(name: str) -> None:
    followed = Followed(FolderStore(ASSETS / name))
    added = followed.look()
    assert followed.study is not None
    assert added == len(followed.study.trials) >= 1
    for trial in followed.study.trials:
        assert set(trial.params) == {"learning_rate", "simple_rnn.units"}


NO_SPACES: list[Any] = [None, [], {"space": None}, {"space": []}, {"space": {"families": {"simple_rnn": 3}}}]


@pytest.mark.parametrize("identity", NO_SPACES)
def test_a_run_whose_space_nobody_knows_shows_its_trials_all_the_same(
    run: Run, tmp_path: Path, identity: object
) -> None:
    other = Journal.open(tmp_path / "other" / "journal.jsonl")
    other.append("run", name=None, identity=identity)
    run.trial("0001", 0.2)
    for record in run.journal.records[1:]:
        other.append(
            record["kind"], **{k: v for k, v in record.items() if k not in ("seq", "time", "clock", "kind", "digest")}
        )
    other.close()
    followed = Followed(FolderStore(tmp_path / "other"))
    assert followed.look() == 1
    assert followed.space is None
    assert followed.study is not None
    assert followed.study.study_name == "other"
    (trial,) = followed.study.trials
    assert (trial.state, trial.params, trial.user_attrs["params.units"]) == (TrialState.COMPLETE, {}, [6])


def test_nothing_that_a_journal_names_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harm.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    made = Journal.open(tmp_path / "run" / "journal.jsonl")
    space = {"families": {"harm:build": {"width": {"choice": [1, 2]}, "dropout": 0}}}
    made.append("run", name="\x1b[31mred", identity={"space": space})
    params = {"family": "harm:build", "width": 2, "dropout": 0}
    made.append("suggestion", trial="0001", name="", seed=0, family="harm:build", params=params, point={})
    made.append("end", trial="0001", status="stopped", cause="\x1b]0;title\x07")
    made.close()
    followed = Followed(FolderStore(tmp_path / "run"))
    assert followed.look() == 1
    assert followed.study is not None
    assert followed.study.trials[0].params == {"harm:build.width": 2}
    assert "harm" not in sys.modules


def test_without_the_extra_it_says_how_to_get_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)  # as if it were not installed
    assert main(["dashboard", str(run.folder)]) == 2
    said = "tunelab: the dashboard needs optuna-dashboard, which is not installed; pip install 'tunelab[dashboard]'\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [(b"", 7, "line 1: is no JSON"), (None, 7, "holds no run (no journal.jsonl)")],
    ids=["damaged", "none"],
)
def test_what_is_no_run_is_refused(
    run: Run, damage: bytes | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run.folder / "journal.jsonl"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(b"x" + path.read_bytes() * 2)
    assert main(["dashboard", str(run.folder), "--port", "0"]) == code
    assert said in capsys.readouterr().err


def test_an_address_that_cannot_be_listened_at_is_refused(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: Address already in use; give another --port, 0 for any"):
            dashboard(FolderStore(run.folder), port=port, say=pytest.fail)
    with pytest.raises(UsageError, match=r"--port 70000: .*must be 0-65535"):
        dashboard(FolderStore(run.folder), port=70_000, say=pytest.fail)
    with pytest.raises(UsageError, match=r"--host no\.such\.host\.invalid --port 0: "):
        dashboard(FolderStore(run.folder), host="no.such.host.invalid", port=0, say=pytest.fail)


def test_other_hosts_than_the_loopback_come_with_a_note(run: Run) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            raise KeyboardInterrupt

    dashboard(FolderStore(run.folder), host="0.0.0.0", port=0, say=say)
    assert said[0].startswith(f"Dashboard of {run.folder}: http://0.0.0.0:")
    assert said[2] == "Note: whoever reaches this address sees the run; nobody is asked who they are."
