"""What this side does with a search that goes to a cluster; the cluster itself is one of the tests' own making."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster_files import GOOD, OWN

from tunelab.cli import main
from tunelab.cluster import remote, where
from tunelab.cluster.file import ClusterFile, load_cluster_file
from tunelab.cluster.job import Job
from tunelab.cluster.package import HERE
from tunelab.cluster.prices import price
from tunelab.cluster.remote import (
    Asked,
    attach,
    check_data,
    costs,
    finished,
    gpus_there,
    hand_over,
    storage_of,
)
from tunelab.cluster.versions import ASKED
from tunelab.cluster.where import Cluster, Head, Place
from tunelab.cluster.words import replaced, without
from tunelab.errors import EXIT_TERMINATED, UsageError
from tunelab.spending import PRICES

OURS = ("--cluster", "--storage", "--name")


@dataclass
class Taken:
    """Stands for the jobs of a cluster: remembers what was handed over, and what lay in the folder."""

    submitted: list[tuple[str, list[str], set[str], str, dict[str, str]]] = field(default_factory=list)
    over: Job | BaseException | None = None
    skipped: list[int] = field(default_factory=list)
    again: list[bool] = field(default_factory=list)
    """Of each that was submitted: whether it goes on with a run."""

    def submit(
        self, run: str, command: str, folder: Path, storage: str, environment: Mapping[str, str], *, again: bool = False
    ) -> None:
        taken = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        self.submitted.append((run, shlex.split(command), taken, storage, dict(environment)))
        self.again.append(again)

    def follow(self, run: str, write: Any, *, skip: int = 0) -> Job:
        self.skipped.append(skip)
        write("a line\nand a half")
        if isinstance(self.over, BaseException):
            raise self.over
        return self.over or job(run=run)


def job(**given: Any) -> Job:
    usual = {"run": "r", "status": "SUCCEEDED", "storage": "s3://lab/r", "begun": 1.0, "exit_code": 0, "message": ""}
    return Job(**{**usual, **given})


@pytest.fixture
def file(tmp_path: Path) -> ClusterFile:
    path = tmp_path / "lab.yaml"
    path.write_text(GOOD)
    return load_cluster_file(path)


@pytest.fixture
def cluster(file: ClusterFile) -> Cluster:
    return Cluster(file=file, head=Head(host="10.0.0.1", identity="i-1", user="ubuntu", key=""))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    there = Taken()

    @contextmanager
    def jobs_of(cluster: Cluster) -> Iterator[Taken]:
        yield there

    monkeypatch.setattr(remote, "jobs_of", jobs_of)
    return there


def asked(*words: str, **given: Any) -> Asked:
    usual: dict[str, Any] = {"space": None, "data": None, "storage": None, "name": None, "gpus": None}
    return Asked(words=words, **{**usual, **given})


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("--trials 3 --name a --seed 1", "--trials 3 --seed 1"),
        ("--name=a --storage s3://b/c x.yaml", "x.yaml"),
        ("x.yaml --storage=s3://b/c=d --name a", "x.yaml"),
        ("--name --name x.yaml", "x.yaml"),
        ("--cluster c.yaml --trials=3", "--trials=3"),
        ("--clus c.yaml --na a --st=s3://b/c --trials 3", "--trials 3"),
        ("--names a", "--names a"),
        ("x.yaml --debug", "x.yaml --debug"),
        ("", ""),
        ("--name", ""),
    ],
)
def test_a_command_line_without_some_options(words: str, kept: str) -> None:
    given = words.split()
    before = list(given)
    assert without(given, OURS) == kept.split()
    assert given == before


@pytest.mark.parametrize(
    ("words", "then"),
    [
        ("a --trials 3", "b --trials 3"),
        ("--trials a a", "--trials a b"),
        ("--trials=2 a --seed a", "--trials=2 b --seed a"),
        ("--debug a", "--debug b"),
        ("--debug a --name a", "--debug b --name a"),
    ],
)
def test_a_command_line_with_another_word(words: str, then: str) -> None:
    given = words.split()
    before = list(given)
    assert replaced(given, "a", "b") == then.split()
    assert given == before


def test_where_results_go(file: ClusterFile, tmp_path: Path) -> None:
    assert storage_of(None, file) == "s3://lab-radar/runs"
    assert storage_of("s3://other/x", file) == "s3://other/x"
    with pytest.raises(
        UsageError, match=r"--storage: runs: a cluster's disks go with its machines, .* s3://BUCKET/runs"
    ):
        storage_of("runs", file)
    (tmp_path / "none.yaml").write_text(GOOD.replace("  storage: s3://lab-radar/runs\n", ""))
    none = load_cluster_file(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"none\.yaml: provider\.storage: missing: a cluster's disks go with"):
        storage_of(None, none)
    with pytest.raises(UsageError, match="s3://BUCKET"):
        storage_of("s3://BUCKET/runs", file)


@pytest.mark.parametrize("data", [None, "s3://lab/scans", "~/lab/code", "~/lab/code/deep"])
def test_scans_that_the_nodes_can_read(file: ClusterFile, data: str | None) -> None:
    check_data(data, file)


@pytest.mark.parametrize("data", ["scans", "/data/scans", "~/lab", "~/lab/codes", ""])
def test_scans_that_they_cannot(file: ClusterFile, data: str) -> None:
    with pytest.raises(UsageError, match=f"--data: {data}: the cluster's machines cannot read this machine's disk"):
        check_data(data, file)


@pytest.mark.parametrize(
    ("text", "there"),
    [
        (GOOD, True),
        (GOOD.replace("{CPU: 4, GPU: 1}", "{CPU: 4}"), False),
        (GOOD.replace("resources: {CPU: 4, GPU: 1}", "resources:"), False),
        (GOOD.replace("{CPU: 4, GPU: 1}", "{CPU: 4}").replace("{CPU: 0}", "{CPU: 0, GPU: 1}"), False),
        (OWN, False),
    ],
)
def test_whether_workers_have_gpus(tmp_path: Path, text: str, there: bool) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert gpus_there(load_cluster_file(tmp_path / "c.yaml")) is there


@pytest.mark.parametrize(
    ("over", "code", "said"),
    [
        (job(), 0, ""),
        (job(status="FAILED", exit_code=4), 4, ""),
        (job(status="FAILED", exit_code=None, message="the node died"), 1, "r ended: the node died\n"),
        (job(status="FAILED", exit_code=0), 1, ""),
        (
            job(status="STOPPED", exit_code=0),
            EXIT_TERMINATED,
            "r was stopped; go on with: tunelab resume s3://lab/r{at}\n",
        ),
    ],
)
def test_how_a_search_ended(
    file: ClusterFile, capsys: pytest.CaptureFixture[str], over: Job, code: int, said: str
) -> None:
    assert finished(over, file) == code
    costs = f"The cluster goes on running, and costs; end it: tunelab cluster down {file.path}\n"
    assert capsys.readouterr() == ("", said.format(at=f" --cluster {file.path}") + costs)


def test_who_goes_leaves_it_running(file: ClusterFile, taken: Taken, capsys: pytest.CaptureFixture[str]) -> None:
    taken.over = KeyboardInterrupt()
    assert attach(taken, "r", file, skip=5) == 0  # type: ignore[arg-type]
    assert taken.skipped == [5]
    shown = capsys.readouterr()
    assert shown.out == "a line\nand a half"
    at = f"r --cluster {file.path}"
    assert shown.err == (
        f"\nThe search goes on. Look again: tunelab attach {at}; end it: tunelab stop {at}; end the cluster: tunelab "
        f"cluster down {file.path}\n"
    )


def test_the_usual_file_needs_no_name(tmp_path: Path, taken: Taken, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cluster.yaml").write_text(GOOD)
    taken.over = KeyboardInterrupt()
    assert attach(taken, "r", load_cluster_file(tmp_path / "cluster.yaml")) == 0  # type: ignore[arg-type]
    assert "Look again: tunelab attach r; end it: tunelab stop r; " in capsys.readouterr().err


def test_nothing_typed_is_all_that_is_needed(
    cluster: Cluster, taken: Taken, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hand_over(cluster, asked()) == 0
    ((run, command, files, storage, environment),) = taken.submitted
    assert taken.again == [False]
    assert command[:5] == ["python", "-u", "-m", "tunelab.handed_over", "search"]
    assert command[5:] == [
        *("--address", "auto", "--storage", "s3://lab-radar/runs", "--name", run, "--gpus-per-trial", "1")
    ]
    assert run.startswith("quick-")
    assert storage == f"s3://lab-radar/runs/{run}"
    assert {"tunelab/handed_over.py", "search_spaces/quick.yaml"} <= files
    assert json.loads(environment[ASKED])["versions"]["ray"]
    told = capsys.readouterr().err
    assert f"Handed over to 10.0.0.1 as {run}; results go to {storage}\n" in told
    assert f"Ctrl-C leaves it running; tunelab attach {run} --cluster {cluster.file.path} comes back.\n" in told


def test_what_was_typed_goes_along(cluster: Cluster, taken: Taken, tmp_path: Path) -> None:
    space = tmp_path / "my radar.yaml"
    space.write_text("start_from:\n  - {family: lstm}\n")
    words = (str(space), "--cluster", "lab.yaml", "--storage", "s3://b12/c", "--name", "mine", "--trials", "3")
    words += ("--data", "s3://lab/scans", "--gpus-per-trial", "0.5")
    search = asked(*words, space=str(space), storage="s3://b12/c", name="mine", data="s3://lab/scans", gpus=0.5)
    taken.over = job(status="FAILED", exit_code=4)
    assert hand_over(cluster, search) == 4
    ((run, command, files, storage, _),) = taken.submitted
    assert command[5:] == [
        *(f"{HERE}my radar.yaml", "--trials", "3", "--data", "s3://lab/scans", "--gpus-per-trial", "0.5"),
        *("--address", "auto", "--storage", "s3://b12/c", "--name", "mine"),
    ]
    assert (run, storage) == ("mine", "s3://b12/c/mine")
    assert "space/my radar.yaml" in files


def test_the_head_is_told_what_machines_cost_and_so_is_the_user(
    cluster: Cluster, taken: Taken, capsys: pytest.CaptureFixture[str]
) -> None:
    hand_over(cluster, asked("--time-budget", "2h", time_budget=7200.0))
    known = price(cluster.file)
    assert known is not None
    assert known.high is not None
    assert json.loads(taken.submitted[0][4][PRICES]) == {"head": 0.192, "spot": 0.16, "sure": 0.526}
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"Price: {known.line()}"
    assert said[1] == (
        f"Estimated cost of the search: {known.high * 2:.2f} US dollars at most; the cluster costs until its end."
    )
    assert said[2].startswith("Handed over to ")


@pytest.mark.parametrize(
    ("seconds", "limit", "most"),
    [(None, None, None), (3600.0, 0.5, "0.50"), (None, 3.0, "3.00"), (3600.0, 99.0, "1.56"), (3600.0, None, "1.56")],
)
def test_what_a_search_costs_at_most(
    file: ClusterFile, seconds: float | None, limit: float | None, most: str | None
) -> None:
    said = costs(price(file), seconds, limit)
    assert len(said) == (1 if most is None else 2)
    if most is not None:
        assert f" {most} US dollars at most" in said[1]
    assert costs(None, seconds, limit) == []


def test_a_limit_of_cost_needs_prices(cluster: Cluster, taken: Taken, tmp_path: Path) -> None:
    hand_over(cluster, asked(max_cost=5.0))
    assert PRICES in taken.submitted[0][4]
    (tmp_path / "odd.yaml").write_text(GOOD.replace("InstanceType: m5.xlarge", "InstanceType: x9.large"))
    odd = Cluster(file=load_cluster_file(tmp_path / "odd.yaml"), head=cluster.head)
    with pytest.raises(UsageError) as told:
        hand_over(odd, asked(max_cost=5.0))
    assert str(told.value) == (
        "--max-cost: 5: not all prices are known; add provider.prices: {x9.large: dollars an hour} to "
        f"{odd.file.path}"
    )
    hand_over(odd, asked())
    assert PRICES not in taken.submitted[1][4], "what is not known is not guessed"
    (tmp_path / "own.yaml").write_text(OWN)
    own = Cluster(file=load_cluster_file(tmp_path / "own.yaml"), head=cluster.head)
    with pytest.raises(UsageError, match="--max-cost: 5: nobody bills machines of your own by the hour; leave it out"):
        hand_over(own, asked(max_cost=5.0))
    assert len(taken.submitted) == 2


def test_gpus_that_the_space_names_are_not_named_again(cluster: Cluster, taken: Taken, tmp_path: Path) -> None:
    space = tmp_path / "s.yaml"
    space.write_text("resources: {gpus: 0}\nstart_from:\n  - {family: lstm}\n")
    hand_over(cluster, asked(str(space), space=str(space)))
    assert "--gpus-per-trial" not in taken.submitted[0][1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "/scans"}, "--data: /scans"),
        ({"storage": "runs"}, "--storage: runs"),
        ({"name": "a/b"}, "--name: 'a/b' must be"),
        ({"space": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_handed_over(
    cluster: Cluster, taken: Taken, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        hand_over(cluster, asked(**given))
    assert taken.submitted == []


@pytest.mark.parametrize(("status", "code"), [("RUNNING", 0), ("PENDING", 0), ("FAILED", 7), ("SUCCEEDED", 7)])
def test_a_search_that_has_sent_nothing_yet_has_a_status(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: str,
    code: int,
) -> None:
    @contextmanager
    def jobs_of(cluster: Cluster) -> Iterator[Any]:
        one = job(run="second", status=status, storage=str(tmp_path / "nothing"))
        yield SimpleNamespace(find=lambda name: one, all=lambda: [one])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "jobs_of", jobs_of)
    monkeypatch.setattr(where, "place", lambda **given: Place(why="", cluster=cluster))
    assert main(["status", "second"]) == code
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == f"On lab, 10.0.0.1: {status.lower()}"
    yet = f"Nothing of it is at {tmp_path / 'nothing'} yet; what it says: tunelab logs second"
    assert (yet in said.out) == (code == 0)
    assert ("holds no run" in said.err) == (code != 0)
    assert main(["list"]) == 0
    assert capsys.readouterr().out == f"{'second':<32} {status.lower():<12} on the cluster, {tmp_path / 'nothing'}\n"
