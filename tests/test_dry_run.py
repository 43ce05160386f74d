"""``tunelab search --dry-run``: what it says of real spaces on real data, and that it leaves nothing behind."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster
from rich.console import Console

import tunelab.tuning.run
from tunelab.cli import main
from tunelab.data.synthetic import SyntheticSettings, write_folder
from tunelab.dry_run import plan_search
from tunelab.errors import SpaceError, UsageError
from tunelab.journal import Journal
from tunelab.s3 import S3Options
from tunelab.tuning.hold import check_new

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and log files to the garbage collector, and warns of its own future
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

SPACE = """
name: tiny
trials: 8
epochs: {max: 9}
early_stopping: {grace: 3, reduction: 2}
shared:
  learning_rate: {loguniform: [1e-3, 1e-2]}
  batch_size: 8
  preprocessing: {samples: 32}
  dropout: 0
  l2: 0
families:
  simple_rnn: {units: {choice: [[6], [8]]}}
  dense_rnn: {dense: [6], units: [6]}
start_from:
  - {name: first, family: simple_rnn, units: [8], learning_rate: 0.005, batch_size: 8, preprocessing: {samples: 32},
     dropout: 0, l2: 0}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path / "tiny.yaml"


@pytest.fixture(scope="module")
def undealt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few scans, which are dealt to folds."""
    folder = tmp_path_factory.mktemp("dry") / "scans"
    write_folder(SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3), folder)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed is the quick trainer."""
    monkeypatch.setattr(tunelab.tuning.run, "TRAINER", "quick_trainer")
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("TUNELAB_QUICK_SECONDS", "0.4")


@pytest.fixture
def cluster(quick: None) -> Iterator[str]:
    """The address of a Ray that says it has two GPUs."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "num_gpus": 2, "include_dashboard": False})
    yield made.address
    ray.shutdown()
    made.shutdown()


def quiet() -> Console:
    return Console(file=io.StringIO(), width=150)


@pytest.mark.tf
def test_the_command_says_what_would_be_done_and_does_nothing(tiny: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tunelab.search", str(tiny), "--dry-run", "--local", "--concurrent", "1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "Searching tiny (simple_rnn, dense_rnn) on this machine: 8 trials, 9 epochs each at most."
    assert lines[1].startswith("Data: embedded synthetic data set: 200 scans, ")
    assert "Dimensions: simple_rnn 2, dense_rnn 1." in lines
    assert "To try first: first." in lines
    # rungs 3 and 6: 8 trials to epoch 3, half of 7 and the one to try first to 6, half of those to 9
    assert (
        "Early stopping: trials are compared at epochs 3, 6, and 1 in 2 goes on: about 44 epochs (an estimate) "
        "instead of 72."
    ) in lines
    assert re.search(
        r"Sizes, of 200 that fit: [\d,]+ parameters, [\d,]+ multi.* \(simple_rnn rnn6\), to .*\.", done.stdout
    )
    assert "Places: 1 trial at a time on this machine, 1 CPU and no GPU each." in lines
    timed = re.findall(
        r"Timed: (\w+) \(.*\): ([\d.]+) s an epoch, ([\d.]+) s more for the first of its kind\.", done.stdout
    )
    assert [name for name, _, _ in timed] == ["simple_rnn", "dense_rnn"]
    assert all(0 < float(epoch) < 60 for _, epoch, _ in timed)
    assert re.search(
        r"Expected: end \d\d:\d\d, in (\d+m)?\d+s, when all its trials are over: about 8 trials, 44 epochs\.",
        done.stdout,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


@pytest.mark.tf
def test_from_python_the_facts_are_there(tiny: Path, undealt: Path, tmp_path: Path) -> None:
    shown = io.StringIO()
    found = plan_search(
        tiny, data=undealt, storage=tmp_path / "runs", time_budget=3600.0, concurrent=1,
        console=Console(file=shown, width=150),
    )  # fmt: skip
    assert (found.places, found.gpus, list(found.rungs)) == (1, 0.0, [3, 6])
    assert all(one.seconds > 0 and one.first > one.seconds for one in found.families)
    assert found.forecast is not None
    assert found.end is not None
    assert found.end > datetime.now()
    assert found.forecast.ends_by == "time"
    assert found.forecast.most_epochs > found.forecast.epochs > found.epochs, "what goes on trains the other folds"
    assert "Folds: what is not stopped on the first is trained on 4 more." in shown.getvalue()
    assert "when its time is over: about " in shown.getvalue()
    assert not (tmp_path / "runs").exists()


def test_on_a_cluster_its_nodes_are_timed_and_gpu_hours_told(tiny: Path, cluster: str, tmp_path: Path) -> None:
    shown = io.StringIO()
    found = plan_search(
        tiny, storage=tmp_path / "runs", address=cluster, gpu_hours=5 / 3600, console=Console(file=shown, width=150)
    )
    assert (found.places, found.gpus) == (2, 1.0)
    assert (
        f"Places: 2 trials at a time on the nodes of {cluster} that are there now, 1 CPU and 1 GPU" in shown.getvalue()
    )
    assert found.forecast is not None
    assert found.forecast.gpu_hours == pytest.approx(5 / 3600)
    assert "when its GPU-hours are used: about " in shown.getvalue()
    assert ", 0.00 GPU-hours." in shown.getvalue()

    shown.truncate(0)
    full = plan_search(
        tiny, storage=tmp_path / "runs", address=cluster, cpus_per_trial=4.0, console=Console(file=shown, width=150)
    )
    assert (full.places, full.forecast, full.end) == (0, None, None)
    assert f"Places: no node of {cluster} has room for a trial now (4 CPU and 1 GPU each)" in shown.getvalue()
    assert shown.getvalue().endswith("Expected: not known.\n")


def test_what_there_was_no_time_for_is_estimated_and_said(
    tiny: Path, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELAB_QUICK_FAULTS", "hang@1/0002")
    one_place: dict[str, Any] = {"storage": tmp_path / "runs", "gpus_per_trial": 0.0, "concurrent": 1}
    shown = io.StringIO()
    found = plan_search(tiny, probe=15.0, console=Console(file=shown, width=150), **one_place)
    cheap, dear = sorted(found.families, key=lambda one: one.seconds)
    assert dear.seconds > cheap.seconds > 0.4
    assert dear.how.endswith(f"; estimated from {cheap.expected.family} by their multiplications")
    assert re.search(r"\(no epoch ended in \d+s; estimated from", shown.getvalue())
    assert found.forecast is not None

    monkeypatch.setenv("TUNELAB_QUICK_FAULTS", "raise@1")
    shown = io.StringIO()
    found = plan_search(tiny, console=Console(file=shown, width=150), **one_place)
    assert found.forecast is None
    assert all(math.isnan(one.seconds) for one in found.families)
    assert "Timed: simple_rnn (rnn8): ValueError: the fault that was asked for." in shown.getvalue()
    assert "Expected: not known: not every family has a time; allow more with --probe (30 s)." in shown.getvalue()


def test_errors_are_those_of_the_search(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(SPACE.replace("choice", "choise", 1))
    with pytest.raises(SpaceError, match="choise"):
        plan_search(tmp_path / "bad.yaml", console=quiet())
    with pytest.raises(UsageError, match="--trials: 0 is less than one"):
        plan_search(tiny, trials=0, console=quiet())
    with pytest.raises(UsageError, match="--gpus-per-trial: a trial asks for 99 GPU, this machine has"):
        plan_search(tiny, gpus_per_trial=99.0, storage=tmp_path, console=quiet())
    with pytest.raises(UsageError, match="--gpu-hours: 1: trials use no GPU here"):
        plan_search(tiny, gpu_hours=1.0, gpus_per_trial=0.0, storage=tmp_path, console=quiet())
    before = Journal.open(tmp_path / "old" / "journal.jsonl")
    before.append("run", name="old")
    before.close()
    kept = (tmp_path / "old" / "journal.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"old: holds a run already; give another --name"):
        plan_search(tiny, storage=tmp_path, name="old", console=quiet())
    assert (tmp_path / "old" / "journal.jsonl").read_bytes() == kept
    for probe in (0.0, math.nan, math.inf):
        with pytest.raises(UsageError, match=r"--probe: .* is no time to train in; write such as 30s"):
            plan_search(tiny, probe=probe, console=quiet())


def test_a_place_in_a_bucket_is_looked_at_and_left_as_it_is(
    tiny: Path, tmp_path: Path, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**names, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}"}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="dry")
    client.put_object(Bucket="dry", Key="lab/old/run.yaml", Body=b"name: old")
    with pytest.raises(UsageError, match="s3://dry/lab/old: holds a run already"):
        plan_search(tiny, storage="s3://dry/lab", name="old", console=quiet())
    check_new(tmp_path / "new", "s3://dry/lab/new", S3Options())
    assert [item["Key"] for item in client.list_objects_v2(Bucket="dry")["Contents"]] == ["lab/old/run.yaml"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_a_probe_without_a_dry_run_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--probe", "10s"]) == 2
    assert "--probe: goes with --dry-run, which is not given" in capsys.readouterr().err


def test_what_another_scheduler_lets_through_is_counted_in_full(tiny: Path, quick: None, tmp_path: Path) -> None:
    document = yaml.safe_load(tiny.read_text())
    document["early_stopping"] = {"scheduler": "median"}
    tiny.write_text(yaml.safe_dump(document))
    shown = io.StringIO()
    where: dict[str, Any] = {"storage": tmp_path / "runs", "gpus_per_trial": 0.0, "concurrent": 1}
    found = plan_search(tiny, console=Console(file=shown, width=150), **where)
    assert "Early stopping: what median lets through is not foreseen; 72 epochs at most." in shown.getvalue()
    assert (found.rungs, found.epochs, found.most_epochs) == ([], 72, 72)
