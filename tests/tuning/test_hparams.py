"""TensorBoard's files, read back by TensorBoard itself: its accumulator, and a real server over HTTP."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from tunelab.errors import StorageError
from tunelab.ranking import Epoch, Trial
from tunelab.tuning.hparams import TensorBoardLogs, folder_name, tag

ROOT = Path(__file__).resolve().parents[2]
DIMENSIONS = ["learning_rate", "class_weight", "units", "masking", "convolutions.0.kernel", "never_set"]


def trial(name: str, family: str, **point: Any) -> Trial:
    return Trial(trial=name, name="", family=family, params={"family": family, **point}, point=point)


def learn(of: Trial, epoch: int, dense: float, f1: float, **more: float) -> Trial:
    metrics = {"loss": 1 / epoch, "tune_loss": 0.7, "tune_average_precision": dense, "val_f1": f1, "tp": 12.0, **more}
    of.epochs.append(Epoch(epoch=epoch, seconds=2.0 * epoch, metrics=metrics))
    return of


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[TensorBoardLogs]:
    """Whose files are closed in the end, whatever the test did."""
    opened = TensorBoardLogs(tmp_path, DIMENSIONS)
    yield opened
    opened.close()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {name: [(e.step, round(e.value, 6)) for e in read.Scalars(name)] for name in read.Tags()["scalars"]}


def plugin_content(folder: Path, name: str) -> bytes:
    read = EventAccumulator(str(folder))
    read.Reload()
    return read.PluginTagToContent(metadata.PLUGIN_NAME)[name]


class TestScalars:
    def test_curves_are_grouped_by_split(self, logs: TensorBoardLogs, tmp_path: Path) -> None:
        one = trial("0001", "lstm", units=[100])
        logs.start(one)
        logs.epoch(learn(one, 1, 0.2, 0.1, threshold=0.4, val_f1_at_half=0.05, mean_jaccard=0.03))
        logs.epoch(learn(one, 2, 0.3, 0.25))
        found = scalars(tmp_path / "0001_lstm")
        assert found["train/loss"] == [(1, 1.0), (2, 0.5)]
        assert found["tune/average_precision"] == [(1, 0.2), (2, 0.3)]
        assert found["tune/threshold"] == [(1, 0.4)]
        assert found["validation/f1"] == [(1, 0.1), (2, 0.25)]
        assert found["validation/f1_at_half"] == [(1, 0.05)]
        assert found["validation/mean_jaccard"] == [(1, 0.03)]
        assert found["validation/tp"] == [(1, 12.0), (2, 12.0)]

    def test_points_are_there_before_a_trial_ends(self, logs: TensorBoardLogs, tmp_path: Path) -> None:
        one = trial("0001", "lstm")
        logs.epoch(learn(one, 1, 0.2, 0.1))
        assert scalars(tmp_path / "0001_lstm")["validation/f1"] == [(1, 0.1)]

    def test_the_chosen_epoch_is_followed(self, logs: TensorBoardLogs, tmp_path: Path) -> None:
        one = trial("0001", "lstm")
        for epoch, (dense, f1) in enumerate([(0.2, 0.1), (0.4, 0.3), (0.3, 0.9)], start=1):
            logs.epoch(learn(one, epoch, dense, f1))
        found = scalars(tmp_path / "0001_lstm")
        assert found["chosen/validation_f1"] == [(1, 0.1), (2, 0.3), (3, 0.3)]
        assert found["chosen/epoch"] == [(1, 1.0), (2, 2.0), (3, 2.0)]

    def test_what_is_undefined_is_left_out(self, logs: TensorBoardLogs, tmp_path: Path) -> None:
        one = trial("0001", "lstm")
        logs.epoch(learn(one, 1, math.nan, math.nan, precision=math.inf))
        found = scalars(tmp_path / "0001_lstm")
        assert "validation/f1" not in found
        assert "validation/precision" not in found
        assert found["train/loss"] == [(1, 1.0)]
        assert found["chosen/epoch"] == [(1, 1.0)]

    def test_a_trial_that_starts_again_is_written_anew(self, logs: TensorBoardLogs, tmp_path: Path) -> None:
        one = trial("0001", "lstm")
        first = TensorBoardLogs(tmp_path, [])
        for epoch in (1, 2, 3):
            first.epoch(learn(one, epoch, 0.1 * epoch, 0.1 * epoch))
        first.close()
        again = dataclasses.replace(one, epochs=one.epochs[:2])
        logs.start(again)
        logs.epoch(learn(again, 3, 0.35, 0.35))
        assert len(list((tmp_path / "0001_lstm").iterdir())) == 2
        assert scalars(tmp_path / "0001_lstm")["validation/f1"] == [(1, 0.1), (2, 0.2), (3, 0.35)]

    def test_a_trial_that_goes_back_an_epoch_overwrites_it(self, logs: TensorBoardLogs, tmp_path: Path) -> None:
        one = trial("0001", "lstm")
        for epoch in (1, 2, 3):
            logs.epoch(learn(one, epoch, 0.1 * epoch, 0.1 * epoch))
        back = dataclasses.replace(one, epochs=one.epochs[:1])
        logs.epoch(learn(back, 2, 0.22, 0.22))
        assert scalars(tmp_path / "0001_lstm")["validation/f1"] == [(1, 0.1), (2, 0.22)]

    @pytest.mark.parametrize(("status", "ended"), [("finished", 1), ("stopped", 1), ("failed", 2)])
    def test_the_end_is_written(self, logs: TensorBoardLogs, tmp_path: Path, status: Any, ended: int) -> None:
        one = trial("0001", "lstm")
        logs.start(one)
        one.status = status
        logs.end(one)
        content = plugin_content(tmp_path / "0001_lstm", metadata.SESSION_END_INFO_TAG)
        assert metadata.parse_session_end_info_plugin_data(content).status == ended

    def test_an_interrupted_trial_has_no_end_yet(self, tmp_path: Path) -> None:
        one = trial("0001", "lstm")
        for status in ("interrupted", "finished"):
            one.status = status
            TensorBoardLogs(tmp_path, []).end(one)
        content = plugin_content(tmp_path / "0001_lstm", metadata.SESSION_END_INFO_TAG)
        assert metadata.parse_session_end_info_plugin_data(content).status == 1

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "tensorboard").write_text("a file")
        with pytest.raises(StorageError) as caught:
            TensorBoardLogs(tmp_path / "tensorboard", []).start(trial("0001", "lstm"))
        said = "cannot be written: File exists; free space or choose another --storage"
        assert str(caught.value) == f"{tmp_path}/tensorboard: {said}"

    def test_files_are_closed_in_the_end(self, tmp_path: Path) -> None:
        logs = TensorBoardLogs(tmp_path, DIMENSIONS)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            logs.start(trial(f"{number:04}", "lstm"))
        assert len(os.listdir("/proc/self/fd")) > before
        logs.close()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_trial_that_waits_holds_no_file_and_goes_on_in_another(
        self, logs: TensorBoardLogs, tmp_path: Path
    ) -> None:
        one = trial("0001", "lstm")
        before = len(os.listdir("/proc/self/fd"))
        logs.told("suggestion", one)
        for epoch in (1, 2):
            logs.told("result", learn(one, epoch, 0.1 * epoch, 0.1 * epoch))
        logs.told("wait", one)
        assert len(os.listdir("/proc/self/fd")) == before
        logs.told("resumed", one)
        logs.told("result", learn(one, 3, 0.3, 0.3))
        one.status = "finished"
        logs.told("end", one)
        assert len(os.listdir("/proc/self/fd")) == before
        assert scalars(tmp_path / "0001_lstm")["validation/f1"] == [(1, 0.1), (2, 0.2), (3, 0.3)]
        content = plugin_content(tmp_path / "0001_lstm", metadata.SESSION_END_INFO_TAG)
        assert metadata.parse_session_end_info_plugin_data(content).status == 1


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("loss", "train/loss"),
        ("learning_rate", "train/learning_rate"),
        ("tune_f1", "tune/f1"),
        ("threshold", "tune/threshold"),
        ("val_average_precision", "validation/average_precision"),
        ("recall", "validation/recall"),
    ],
)
def test_tags(metric: str, name: str) -> None:
    assert tag(metric) == name


def test_a_folder_name_stays_in_its_folder() -> None:
    assert folder_name(trial("../../0001", "ls tm\n")) == "_.._0001_ls_tm_"
    assert folder_name(trial("0001", "lstm")) == "0001_lstm"


def test_writing_pulls_in_no_tensorflow(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tunelab.ranking import Trial\n"
        "from tunelab.tuning.hparams import TensorBoardLogs\n"
        "logs = TensorBoardLogs(Path(sys.argv[1]), ['units'])\n"
        "trial = Trial(trial='0001', name='', family='lstm', params={}, point={'units': [1]})\n"
        "logs.start(trial); trial.status = 'finished'; logs.end(trial); logs.close()\n"
        "print({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'ray', 'torch', 'jax', 'optuna'})"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert ran.stdout == "set()\n"


class Board:
    """A running TensorBoard."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/data"

    def ask(self, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self._base}/{path}", data, headers), timeout=30
        ) as answer:
            return json.load(answer)

    def experiment(self) -> Any:
        return self.ask("plugin/hparams/experiment", experimentName="")

    def sessions(self, **more: Any) -> list[Any]:
        statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
        body = {"experimentName": "", "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 100, **more}
        return self.ask("plugin/hparams/session_groups", **body)["sessionGroups"]


@pytest.fixture(scope="module", params=["true", "false"], ids=["data-server", "in-python"])
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A server on the folder, which is filled before; once with TensorBoard's fast reader, once with the plain one."""
    folder = tmp_path_factory.mktemp("tensorboard")
    fill(folder)
    log = tmp_path_factory.mktemp("log") / "server.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--host", "127.0.0.1"]
    command += ["--load_fast", request.param, "--reload_interval", "1"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        found = Board(eventually(lambda: port_in(log.read_text()), log))
        eventually(lambda: len(found.ask("runs")) >= 4, log)
        yield found
    finally:
        server.terminate()
        server.wait(timeout=30)


def port_in(text: str) -> int | None:
    words = [word for word in text.split() if word.startswith("http://127.0.0.1:")]
    return int(words[0].rstrip("/").rsplit(":", 1)[1]) if words else None


def eventually(value: Callable[[], Any], log: Path, seconds: float = 90) -> Any:
    until = time.monotonic() + seconds
    while True:
        try:
            if found := value():
                return found
        except urllib.error.URLError:
            pass
        assert time.monotonic() < until, f"did not happen in time:\n{log.read_text()}"
        time.sleep(0.1)


def fill(folder: Path) -> None:
    logs = TensorBoardLogs(folder, DIMENSIONS)
    deep = trial("0001", "lstm", learning_rate=1e-3, class_weight=1, units=[100, 200], masking=True)
    conv = trial("0002", "conv_rnn", **{"learning_rate": 5e-3, "class_weight": 4, "convolutions.0.kernel": 10})
    bad = trial("0003", "conv_rnn", **{"learning_rate": 0.2, "convolutions.0.kernel": 5})
    going = trial("0004", "lstm", learning_rate=2e-3, units=[64], masking=False)
    for one in (deep, conv, bad, going):
        logs.start(one)
    for epoch in (1, 2, 3):
        logs.epoch(learn(deep, epoch, [0, 0.2, 0.3, 0.25][epoch], 0.1 * epoch))
        logs.epoch(learn(conv, epoch, 0.1 * epoch, 0.11 * epoch))
    logs.epoch(learn(going, 1, 0.15, 0.12))
    for one, status in ((deep, "finished"), (conv, "stopped"), (bad, "failed")):
        one.status = status
        logs.end(one)
    logs.close()


def test_the_server_shows_every_column_and_every_trial(board: Board) -> None:
    experiment = board.experiment()
    assert [info["name"] for info in experiment["hparamInfos"]] == ["family", *sorted(DIMENSIONS)]
    headings = {info["name"]["tag"]: info["displayName"] for info in experiment["metricInfos"]}
    assert headings["chosen/validation_f1"] == "validation F1, chosen epoch"

    found = {group["name"]: group for group in board.sessions()}
    assert sorted(found) == ["0001", "0002", "0003", "0004"]
    assert found["0001"]["hparams"] == {
        "family": "lstm", "learning_rate": 1e-3, "class_weight": 1.0, "units": "[100, 200]", "masking": True,
    }  # fmt: skip
    assert found["0002"]["hparams"]["convolutions.0.kernel"] == 10
    assert "units" not in found["0002"]["hparams"]
    status = {name: group["sessions"][0].get("status", "STATUS_UNKNOWN") for name, group in found.items()}
    assert status == {
        "0001": "STATUS_SUCCESS", "0002": "STATUS_SUCCESS", "0003": "STATUS_FAILURE", "0004": "STATUS_UNKNOWN",
    }  # fmt: skip


def test_the_table_shows_the_chosen_epoch(board: Board) -> None:
    shown = {
        group["name"]: {value["name"]["tag"]: round(value["value"], 6) for value in group.get("metricValues", [])}
        for group in board.sessions()
    }
    assert shown["0001"] == {"chosen/validation_f1": 0.2, "chosen/tune_average_precision": 0.3, "chosen/epoch": 2.0}
    assert shown["0002"]["chosen/validation_f1"] == 0.33
    assert shown["0003"] == {}


def test_a_column_that_few_have_can_be_sorted_by(board: Board) -> None:
    by = {"hparam": "convolutions.0.kernel", "order": "ORDER_DESC", "missingValuesFirst": False}
    names = [group["name"] for group in board.sessions(colParams=[by])]
    assert names[:2] == ["0002", "0003"]
    assert sorted(names[2:]) == ["0001", "0004"]


def test_the_server_shows_the_curves(board: Board) -> None:
    points = board.ask("plugin/scalars/scalars?run=0001_lstm&tag=validation/f1")
    assert [(step, round(value, 6)) for _, step, value in points] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_trial_at_a_lower_fidelity_says_so_where_there_are_steps(tmp_path: Path) -> None:
    for folder, dimensions in (("steps", ["units", "fidelity"]), ("none", ["units"])):
        logs = TensorBoardLogs(tmp_path / folder, dimensions)
        for name, fidelity in (("0001", {"data": 0.1}), ("0002", {})):
            logs.start(dataclasses.replace(trial(name, "lstm", units=[4]), fidelity=fidelity))
        logs.close()

    def told(folder: str, name: str) -> dict[str, Any]:
        content = plugin_content(tmp_path / folder / f"{name}_lstm", metadata.SESSION_START_INFO_TAG)
        values = metadata.parse_session_start_info_plugin_data(content).hparams
        return {key: value.string_value for key, value in values.items()}

    assert [told("steps", name)["fidelity"] for name in ("0001", "0002")] == ["at 10 % of the data", "full"]
    assert "fidelity" not in told("none", "0001")
