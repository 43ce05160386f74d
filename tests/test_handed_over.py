"""What the head does with a search that was handed over to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import boto3
import pytest

from tunelab import handed_over
from tunelab.cluster.package import HERE, packed, space_of
from tunelab.cluster.versions import ASKED, asked
from tunelab.errors import ClusterError
from tunelab.space import load_space, shipped


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str]]:
    """Command lines that were run, each with its folder; the job's own folder is the current one."""
    called: list[tuple[list[str], str]] = []

    def command(words: list[str]) -> int:
        called.append((words, os.getcwd()))
        return 7

    monkeypatch.setattr(handed_over, "command", command)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    return called


def tell(monkeypatch: pytest.MonkeyPatch, **said: Any) -> None:
    monkeypatch.setenv(ASKED, json.dumps({**asked(), **said}))


def test_it_runs_in_a_folder_that_stays_with_the_space_in_its_place(
    calls: list[tuple[list[str], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    tell(monkeypatch)
    assert handed_over.main(["search", f"{HERE}my radar.yaml", "--name", "a@space/b", "--trials", "3"]) == 7
    ((words, folder),) = calls
    assert words == ["search", f"{tmp_path}/job/space/my radar.yaml", "--name", "a@space/b", "--trials", "3"]
    assert folder == str(tmp_path / "home" / "tunelab-runs")
    assert ASKED not in os.environ, "nothing of it goes on to the trials"
    assert capsys.readouterr() == ("", "")
    os.chdir(tmp_path / "job")
    assert handed_over.main(["search"]) == 7, "the folder may be there already"


def test_it_refuses_where_packages_are_lacking(
    calls: list[tuple[list[str], str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    tell(monkeypatch, needs=["numpy>=999", "no-such-package"])
    assert handed_over.main(["search"]) == ClusterError.exit_code
    assert calls == []
    there = metadata.version("numpy")
    assert capsys.readouterr().err == (
        f"tunelab: the cluster lacks what tunelab needs: numpy>=999 is needed, and there is {there}; no-such-package "
        "is not installed; install it on all its machines with: ray up cluster.yaml\n"
    )
    assert not (tmp_path / "home").exists()


def test_it_tells_what_differs_and_goes_on(
    calls: list[tuple[list[str], str]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    tell(monkeypatch, versions={**asked()["versions"], "ray": "2.0.0"})
    assert handed_over.main(["search"]) == 7
    assert capsys.readouterr().out == (
        f"Note: ray {metadata.version('ray')} on the cluster, 2.0.0 where the search was started; "
        "the cluster's computes.\n"
    )
    monkeypatch.delenv(ASKED, raising=False)
    assert handed_over.main(["search"]) == 7, "typed by hand on a head, nothing is known of another side"
    assert len(calls) == 2


def test_the_whole_of_it_as_a_job_runs_it(tmp_path: Path) -> None:
    """What was packed finds its own code, and the space, and says what is wrong with a command line."""
    space = tmp_path / "radar.yaml"
    space.write_text(shipped("quick.yaml").read_text())
    job = tmp_path / "job"
    job.mkdir()
    packed(job, load_space(space), space)
    environment = {**os.environ, "HOME": str(tmp_path / "home"), ASKED: json.dumps(asked()), "PYTHONPATH": ""}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-u", "-m", "tunelab.handed_over", *words]
        return subprocess.run(command, cwd=job, env=environment, capture_output=True, text=True, timeout=120)

    models = run("models", f"{HERE}radar.yaml", "--samples", "64")
    assert (models.returncode, models.stderr) == (0, "")
    assert " parameters, " in models.stdout
    gone = run("models", f"{HERE}other.yaml")
    assert gone.returncode == 2
    assert f"{job}/space/other.yaml" in gone.stderr


OWN = """
def family(params, samples):
    import keras

    from tunelab.models.layers import head, radar_inputs

    inputs, x, mask = radar_inputs(samples)
    return head(inputs, keras.layers.GRU(params["units"], return_sequences=True)(x, mask=mask), "own")


family.dimensions = {"units": {"choice": [4, 6, 8]}}
"""


@pytest.mark.tf
@pytest.mark.ray
def test_a_run_goes_on_on_a_head_that_knows_nothing_of_it(
    tmp_path: Path, fault_proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first cluster only the bucket is left; the module of its family is taken along once more."""
    boto3.client("s3").create_bucket(Bucket="new-head")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own_new_head.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    space = tmp_path / "own.yaml"
    space.write_text("shared: {learning_rate: {loguniform: [1e-3, 1e-2]}}\nfamilies: {'own_new_head:family': }\n")
    options = ("--max-epochs", "1", "--concurrent", "1", "--storage", "s3://new-head/runs", "--name", "own")

    def head(number: int, *words: str) -> subprocess.Popen[str]:
        job = tmp_path / f"job-{number}"
        job.mkdir()
        packed(job, space_of(space), space if number == 1 else None)
        assert (job / "own_new_head.py").exists()
        # Ray leads the processes of a job to its folder
        environment = {**os.environ, "HOME": str(tmp_path / f"head-{number}"), "PYTHONPATH": str(job)}
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "tunelab.handed_over", *words, "--local"],
            cwd=job, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    first = head(1, "search", f"{HERE}own.yaml", "--trials", "40", *options)
    journal = tmp_path / "head-1" / "tunelab-runs" / "runs" / "own" / "journal.jsonl"
    deadline = time.monotonic() + 240
    while not (journal.exists() and b'"kind":"result"' in journal.read_bytes()):
        assert first.poll() is None, first.stdout and first.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 143, said
    assert "Go on with: tunelab resume s3://new-head/runs/own" in said
    for gone in ("job-1", "head-1"):
        shutil.rmtree(tmp_path / gone)
    second = head(2, "resume", "s3://new-head/runs/own", "--trials", "1")
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said
    assert "Goes on: " in said
    assert "Why the search ended: all trials were over." in said
    assert (tmp_path / "head-2" / "tunelab-runs" / "runs" / "own" / "report.html").exists()
