"""What the head does with a search that was handed over to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tunelab import handed_over
from tunelab.cluster.package import HERE, packed
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
