"""Whole searches on a real local Ray: from a space to a ranked, exported, repeatable best configuration."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import yaml
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster
from rich.console import Console

from tunelab import journal
from tunelab.data.prepared import CacheOptions
from tunelab.data.synthetic import SyntheticSettings, synthesize, write_folder
from tunelab.errors import NoTrialSucceededError, UsageError
from tunelab.search import search

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and log files to the garbage collector, and warns of its own future
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

SETTINGS = SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3)

SPACE = """
name: tiny
epochs: {max: 2, patience: 5}
early_stopping: {grace: 1, reduction: 2}
shared:
  learning_rate: {loguniform: [1e-3, 1e-2]}
  batch_size: 4
  dropout: {uniform: [0, 0.4]}
  l2: {loguniform: [1e-6, 1e-3]}
families:
  simple_rnn: {units: {choice: [[6], [8]]}}
  dense_rnn: {dense: {choice: [[6], [8, 6]]}, units: [6]}
start_from:
  - {name: first, family: dense_rnn, dense: [8, 6], units: [6], learning_rate: 0.005, batch_size: 4, dropout: 0.1,
     l2: 1e-4}
"""
BASE = (
    "rank,trial,name,family,status,epochs,seconds,parameters,val_f1,threshold,val_f1_at_half,val_average_precision,"
    "precision,recall,tp,fp,fn,mean_jaccard"
)

OWN = '''
"""A family of one's own whose trials do what their params say."""
import os

import keras
from tunelab.models.layers import head, radar_inputs

def build(params, n_samples):
    if params.get("where"):
        with open(f"{params['where']}/{os.path.basename(os.environ['TUNELAB_CACHE'])}", "a") as file:
            file.write("x")
    if params["does"] == "raise":
        raise RuntimeError("this model cannot be built")
    inputs, x, mask = radar_inputs(n_samples)
    scale = float("nan") if params["does"] == "nan" else 1.0
    x = keras.layers.SimpleRNN(4, return_sequences=True)(x * scale, mask=mask)
    return head(inputs, x, "own")
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scans, as a user has one."""
    made = tmp_path_factory.mktemp("data") / "scans"
    write_folder(SETTINGS, made)
    dealt = synthesize(SETTINGS)
    rows = [f"{scan},{split}\n" for scan, split in zip(dealt.scans, dealt.splits, strict=True)]
    (made / "scans.csv").write_text("scan,split\n" + "".join(rows))
    return made


@pytest.fixture(scope="module")
def undealt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without splits of their own: few enough to be dealt to folds."""
    made = tmp_path_factory.mktemp("few") / "scans"
    write_folder(SETTINGS, made)
    return made


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of one's own, on the path of this process and of its children."""
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sys.modules.pop("own_models", None)
    return tmp_path


def quiet() -> Console:
    return Console(file=io.StringIO(), width=150)


def own_space(path: Path, *does: str, **more: str) -> Path:
    starts = [{"name": f"{i}-{d}", "family": "own_models:build", "does": d, **more} for i, d in enumerate(does)]
    (path / "own.yaml").write_text(yaml.safe_dump({"epochs": {"max": 1}, "start_from": starts}))
    return path / "own.yaml"


def command(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", *map(str, args)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_from_a_space_to_a_configuration_that_trains_again(folder: Path, tiny: Path, tmp_path: Path) -> None:
    done = command(
        "tunelab.search", tiny, "--data", folder, "--storage", tmp_path, "--name", "e2e", "--trials", "5", "--local",
        "--seed", "2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "e2e"
    table = rows(run)
    assert ",".join(table[0]).startswith(BASE + ",")
    assert {"learning_rate", "dropout", "l2", "units", "dense"} <= set(table[0])
    assert len(table) == 5
    assert {row["family"] for row in table} == {"simple_rnn", "dense_rnn"}
    assert [row["name"] for row in table].count("first") == 1

    report = json.loads((run / "report.json").read_text())
    assert report["trials"] == 5
    best = report["best"]
    assert best["trial"] == table[0]["trial"]
    records = journal.read(run / "journal.jsonl")
    assert records[0]["kind"] == "run"
    assert [r["kind"] for r in records][-2:] == ["final", "close"]
    chosen: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["kind"] == "result":
            seen = chosen.get(record["trial"])
            if seen is None or record["metrics"]["tune_average_precision"] > seen["tune_average_precision"]:
                chosen[record["trial"]] = record["metrics"]
    assert best["val_f1"] == max(m["val_f1"] for m in chosen.values() if m["val_f1"] is not None)
    final = next(r for r in records if r["kind"] == "final")
    assert best["test_f1"] == final["test"]["f1"]
    assert final["validation"]["f1"] == pytest.approx(best["val_f1"])
    facts = yaml.safe_load((run / "run.yaml").read_text())
    assert report["positives"] == facts["data"]["positives"]["validation"]
    p = report["positives"] / facts["data"]["traces_by_split"]["validation"]
    assert report["always_positive_f1"] == pytest.approx(2 * p / (1 + p))
    assert set(facts["data"]["splits"]) == {"train", "tune", "validation", "test"}
    assert list((run / "tensorboard").rglob("*tfevents*"))
    assert f"F1 {float(table[0]['val_f1']):.3f}" in done.stdout
    assert "always answering positive" in done.stdout
    assert "\x1b" not in done.stdout

    again = command("tunelab", "train", run / "best_config.yaml", "--data", folder, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    # a trial that was stopped had fewer epochs than it has now
    (line,) = [text for text in again.stdout.splitlines() if text.startswith(f"epoch {best['chosen_epoch']}: ")]
    assert f"validation F1 {best['val_f1']:.3f} at threshold" in line


CHAINS = """
name: chains
epochs: {max: 3, patience: 5}
early_stopping: {grace: 3}
data: {dtype: float16}
shared:
  batch_size: 4
  dropout: 0.1
  l2: 1e-4
  preprocessing: {choice: [{}, {samples: 32, background: scan, gain: 1}]}
  normalisation: {choice: [none, per_sample, global]}
  protocol: {choice: [pooled, incremental]}
  shard_epochs: 2
families:
  simple_rnn: {units: [6]}
start_from:
  - {name: raw, family: simple_rnn, units: [6], batch_size: 4, dropout: 0.1, l2: 1e-4, shard_epochs: 2}
  - {name: shards, family: simple_rnn, units: [6], batch_size: 4, dropout: 0.1, l2: 1e-4, shard_epochs: 2,
     protocol: incremental, normalisation: per_sample, preprocessing: {samples: 32, background: scan, gain: 1}}
"""


def test_preprocessing_normalisation_and_protocol_are_dimensions(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "chains.yaml").write_text(CHAINS)
    shown = io.StringIO()
    result = search(
        tmp_path / "chains.yaml", data=folder, storage=tmp_path, name="c", trials=4, concurrent=2,
        cache=CacheOptions(cache=tmp_path / "cache", workers=1), console=Console(file=shown, width=150),
    )  # fmt: skip
    said = shown.getvalue()
    assert "(as recorded) + " in said
    assert "Preprocessing: 32 samples, background scan, gain 1: 32 samples." in said
    assert len(prepared(tmp_path / "cache")) == 2  # each chain once, for all trials and the last evaluation
    table = {row["name"]: row for row in rows(result.folder)}
    assert table["shards"]["status"] == table["raw"]["status"] == "finished"
    assert (int(table["raw"]["epochs"]), int(table["shards"]["epochs"])) == (3, 3)
    records = journal.read(result.folder / "journal.jsonl")
    by_trial = [r["metrics"] for r in records if r["kind"] == "result" and r["trial"] == table["shards"]["trial"]]
    shards = [metrics["shard"] for metrics in by_trial]  # F1 after every shard that holds training scans
    assert (len(shards), shards) == (3, sorted(set(shards)))
    facts = yaml.safe_load((result.folder / "run.yaml").read_text())
    assert facts["data"]["samples"] == [32, 64]
    assert facts["data"]["options"] == {"dtype": "float16"}
    assert any("stored as float16" in note for note in facts["data"]["notes"])
    config = yaml.safe_load((result.folder / "best_config.yaml").read_text())
    assert config["data"] == {"dtype": "float16", "split_seed": 0}
    again = command(
        "tunelab", "train", result.folder / "best_config.yaml", "--data", folder, "--cache", tmp_path / "cache",
        cwd=tmp_path,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    best = result.report["best"]
    # a trial that was stopped had fewer epochs than it has now
    (line,) = [text for text in again.stdout.splitlines() if text.startswith(f"epoch {best['chosen_epoch']}: ")]
    assert f"validation F1 {best['val_f1']:.3f} at threshold" in line


def test_few_scans_are_cross_fitted(undealt: Path, tiny: Path, tmp_path: Path) -> None:
    """Trials that survive the first fold train the others; pooled counts rank them, and all folds answer test."""
    result = search(tiny, data=undealt, storage=tmp_path, name="few", trials=4, concurrent=2, console=quiet())
    records = journal.read(result.folder / "journal.jsonl")
    facts = yaml.safe_load((result.folder / "run.yaml").read_text())
    folds = facts["data"]["folds"]
    judged = sum(len(scans) for scans in folds.values())
    assert (len(folds), judged + len(facts["data"]["splits"]["test"])) == (5, 24)
    pooled = {r["trial"] for r in records if r["kind"] == "pooled"}
    status = {r["trial"]: r["status"] for r in records if r["kind"] == "end"}
    assert pooled == {trial for trial, how in status.items() if how == "finished"} != set()
    for trial, how in status.items():
        stored = sorted(path.name for path in (result.folder / "weights").glob(f"{trial}*.npz"))
        assert len(stored) == (5 if trial in pooled else 1), how
    table = rows(result.folder)
    assert [row["trial"] in pooled for row in table] == sorted((row["trial"] in pooled for row in table), reverse=True)
    final = next(r for r in records if r["kind"] == "final")
    assert (final["validation"]["scans"], final["test"]["models"]) == (judged, 5)
    assert final["validation"]["f1"] == pytest.approx(result.report["best"]["val_f1"])
    assert f"cross-fitted over 5 folds of {judged} scans" in (result.folder / "report.html").read_text()


def test_with_a_seed_and_one_trial_at_a_time_a_search_repeats_itself(folder: Path, tiny: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("one", "two"):
        result = search(tiny, data=folder, storage=tmp_path, name=name, trials=4, concurrent=1, seed=4, console=quiet())
        timed = ("seconds", "predict_ms")
        tables.append([{k: v for k, v in row.items() if k not in timed} for row in rows(result.folder)])
    assert tables[0] == tables[1]
    assert len({row["l2"] for row in tables[0]}) == 4


def test_a_trial_that_fails_or_diverges_ends_alone_with_its_cause(folder: Path, own: Path) -> None:
    result = search(own_space(own, "raise", "good", "nan"), data=folder, storage=own, name="mixed", console=quiet())
    assert result.exit_code == 0
    by_name = {row["name"]: row for row in rows(result.folder)}
    assert by_name["0-raise"]["status"] == "failed"
    assert by_name["0-raise"]["cause"] == "RuntimeError: this model cannot be built"
    assert by_name["2-nan"]["status"] == "failed"
    assert by_name["2-nan"]["cause"] == "the loss is nan in epoch 1"
    assert by_name["1-good"]["status"] == "finished"
    assert result.report["best"]["name"] == "1-good"
    assert result.report["failed"] == 2


def test_when_every_trial_fails_the_causes_are_grouped_and_the_report_is_there(folder: Path, own: Path) -> None:
    space = own_space(own, "raise", "raise", "nan")
    done = command("tunelab.search", space, "--data", folder, "--storage", own, "--name", "bad", cwd=own)
    assert done.returncode == 4
    assert "2 x RuntimeError: this model cannot be built" in done.stderr
    assert "1 x the loss is nan in epoch 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((own / "bad" / "report.json").read_text())["best"] is None


def test_resources_that_this_machine_cannot_give_are_refused(folder: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--gpus-per-trial: a trial asks for 99 GPU, this machine has \d"):
        search(tiny, data=folder, storage=tmp_path, name="gpus", gpus_per_trial=99, console=quiet())


def test_a_space_of_which_nothing_fits_is_refused_with_the_reason(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text(
        "families:\n  conv_rnn:\n    convolutions: [{filters: 2, kernel: 65, stride: 1}]\n    reduce: flatten\n"
        "    dense: {units: 4, activation: relu}\n    units: [4]\n    dropout: 0\n    l2: 0\n"
    )
    done = command("tunelab.search", "wide.yaml", "--data", folder, "--local", cwd=tmp_path)
    assert done.returncode == 2
    assert "do not fit the data; the last: convolutions.0.kernel: 65 is more than the 64 positions" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_an_address_where_nobody_listens_is_said_at_once(folder: Path, tiny: Path, tmp_path: Path) -> None:
    done = command("tunelab.search", tiny, "--data", folder, "--address", "127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 8
    assert "--address: nothing answers at 127.0.0.1:9" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_that_another_process_holds_is_left_alone(folder: Path, tiny: Path, tmp_path: Path) -> None:
    held = journal.Journal.open(tmp_path / "held" / "journal.jsonl")
    done = command(
        "tunelab.search", tiny, "--data", folder, "--storage", tmp_path, "--name", "held", "--local", cwd=tmp_path
    )
    held.close()
    assert done.returncode == 6
    assert f"held by process {os.getpid()}" in done.stderr


def test_a_run_is_never_mixed_with_an_earlier_one(folder: Path, tiny: Path, tmp_path: Path) -> None:
    before = journal.Journal.open(tmp_path / "old" / "journal.jsonl")
    before.append("run", name="old", version="0", seed=0)
    before.close()
    with pytest.raises(UsageError, match="holds a run already; give another --name"):
        search(tiny, data=folder, storage=tmp_path, name="old", console=quiet())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_search_in_good_order(
    folder: Path, tiny: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words = [sys.executable, "-m", "tunelab.search", str(tiny), "--data", str(folder), "--storage", str(tmp_path)]
    words += ["--name", "cut", "--trials", "500", "--max-epochs", "50"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "leads:" in line:
                break
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    report = json.loads((tmp_path / "cut" / "report.json").read_text())
    assert report["best"] is not None
    assert report["best"]["test_f1"] is None
    assert "interrupted" in report["status_counts"]
    assert (tmp_path / "cut" / "best_config.yaml").exists()
    assert journal.read(tmp_path / "cut" / "journal.jsonl")[-1]["status"] == "interrupted"


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head, whose cache the driver shares, and another node with a cache of its own."""
    monkeypatch.setenv("TUNELAB_CACHE", str(tmp_path / "cache-of-head"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1, env_vars={"TUNELAB_CACHE": str(tmp_path / "cache-of-node")})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_on_a_running_cluster_trials_go_to_both_nodes(folder: Path, own: Path, two_nodes: Cluster) -> None:
    (own / "nodes").mkdir()
    space = own_space(own, *["good"] * 6, where=str(own / "nodes"))
    result = search(
        space, data=folder, storage=own, name="cluster", address=two_nodes.address, gpus_per_trial=0, console=quiet()
    )
    assert result.report["trials"] == 6
    assert result.report["failed"] == 0
    assert len(list((own / "nodes").iterdir())) == 2
    head, node = (prepared(own / name) for name in ("cache-of-head", "cache-of-node"))
    assert [path.name for path in head] == [path.name for path in node]  # prepared once on each
    assert len(head) == 1
    labels = [(path / "labels").read_bytes() for path in (*head, *node)]
    assert labels[0] == labels[1]


def prepared(cache: Path) -> list[Path]:
    """The entries of a cache."""
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


def test_a_gpu_that_the_framework_does_not_see_fails_the_trial_at_once(
    folder: Path, tiny: Path, tmp_path: Path, two_nodes: Cluster
) -> None:
    """The node says it has a GPU, and there is none: the usual broken driver."""
    with pytest.raises(NoTrialSucceededError, match=r"2 x the trial asked for 1 GPU and tensorflow sees none"):
        search(tiny, data=folder, storage=tmp_path, name="gpu", trials=2, address=two_nodes.address, console=quiet())


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "canary-id",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="radar-runs")
    client.put_bucket_versioning(Bucket="radar-runs", VersioningConfiguration={"Status": "Enabled"})
    yield client
    server.stop()


@pytest.mark.parametrize("clustered", [False, True])
def test_with_scans_and_storage_on_s3_all_of_it_also_lands_there(
    folder: Path, tiny: Path, tmp_path: Path, bucket: Any, clustered: bool, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    address = request.getfixturevalue("two_nodes").address if clustered else None
    name = "clustered" if clustered else "alone"  # the server keeps its buckets as long as this process lives
    for path in (path for path in folder.rglob("*") if path.is_file()):
        bucket.upload_file(str(path), "radar-runs", f"scans-{name}/{path.relative_to(folder)}")
    result = search(
        tiny, data=f"s3://radar-runs/scans-{name}", storage="s3://radar-runs/lab", name=name, trials=2,
        gpus_per_trial=0, address=address, sync_every=1.0, console=quiet(),
    )  # fmt: skip
    facts = yaml.safe_load((result.folder / "run.yaml").read_text())
    assert (facts["data"]["source"], facts["data"]["scans"]) == (f"s3://radar-runs/scans-{name}", 24)
    listed = bucket.list_objects_v2(Bucket="radar-runs", Prefix=f"lab/{name}/")["Contents"]
    keys = {item["Key"].removeprefix(f"lab/{name}/") for item in listed}
    assert {"run.yaml", "journal.jsonl", "leaderboard.csv", "best_config.yaml", "report.json", "report.html"} <= keys
    assert any(key.startswith("tensorboard/") for key in keys)
    best = result.report["best"]
    assert f"weights/{best['trial']}-e{best['chosen_epoch']:04d}.npz" in keys
    assert not any(key.startswith((".ray/", "checkpoints/")) for key in keys)
    for key in ("journal.jsonl", "report.json", "report.html", "run.yaml"):
        stored = bucket.get_object(Bucket="radar-runs", Key=f"lab/{name}/{key}")["Body"].read()
        assert stored == (result.folder / key).read_bytes()
        assert b"canary" not in stored
    versions = bucket.list_object_versions(Bucket="radar-runs", Prefix=f"lab/{name}/report.json")["Versions"]
    assert len(versions) > 1, "the report was sent while the search went on, too"
    with pytest.raises(UsageError, match=f"s3://radar-runs/lab/{name}: holds a run already"):
        search(tiny, data=folder, storage="s3://radar-runs/lab", name=name, console=quiet())


def test_simulated_scans_are_searched(gprmax_small: Path, tiny: Path, tmp_path: Path) -> None:
    result = search(tiny, data=gprmax_small, storage=tmp_path, name="gpr", trials=2, max_epochs=1, console=quiet())
    assert result.report["best"]["val_f1"] > 0
    facts = yaml.safe_load((result.folder / "run.yaml").read_text())
    assert facts["data"]["scans"] == 83
    assert sum(facts["data"]["positives"].values()) + 0 < 479
    assert any("devlong00" in note for note in facts["data"]["notes"])


def test_the_time_budget_ends_a_search(folder: Path, own: Path) -> None:
    """Trials that never end by themselves are ended, ranked and reported when the time is over."""
    (own / "endless.yaml").write_text(
        "epochs: {max: 100000, patience: 100000}\nearly_stopping: {grace: 100000}\n"
        "start_from:\n"
        "  - {family: 'own_models:build', does: good}\n"
        "  - {family: 'own_models:build', name: b, does: good}\n"
    )
    result = search(own / "endless.yaml", data=folder, storage=own, name="t", time_budget=25.0, console=quiet())
    assert result.exit_code == 0
    assert result.report["status_counts"] == {"interrupted": 2}
    assert not math.isnan(result.report["best"]["val_f1"])
    assert {row["cause"] for row in rows(result.folder)} == {"the time was over"}
