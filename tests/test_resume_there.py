"""`tunelab resume` typed on a machine from which a cluster was brought up: what goes there, and what is refused."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cluster_files import GOOD, OWN

from tunelab import journal as journals
from tunelab import resume_there as room
from tunelab.cli import main, parser
from tunelab.cluster import where
from tunelab.cluster.file import load_cluster_file
from tunelab.cluster.job import Job
from tunelab.cluster.package import HERE
from tunelab.cluster.prices import price
from tunelab.cluster.where import Cluster, Head, Place
from tunelab.command import s3_options
from tunelab.errors import RunBusyError, StateError, TunelabError, UsageError
from tunelab.journal import Journal
from tunelab.resume_there import Again, folder_here, resume_there
from tunelab.spending import PRICES
from tunelab.storage import FolderStore

URL = "s3://lab-radar/runs/second"
SPACE: dict[str, Any] = {"families": {"lstm": {"units": {"choice": [[6], [8]]}}}}


@dataclass
class Taken:
    """Stands for the jobs of a cluster: remembers what was handed over, and what lay in the folder."""

    known: list[Job] = field(default_factory=list)
    submitted: list[tuple[str, list[str], set[str], str, dict[str, str]]] = field(default_factory=list)

    def newest(self, run: str) -> Job | None:
        return next((job for job in self.known if job.run == run), None)

    def submit(
        self, run: str, command: str, folder: Path, storage: str, environment: Mapping[str, str], *, again: bool = False
    ) -> None:
        assert again
        taken = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        self.submitted.append((run, shlex.split(command), taken, storage, dict(environment)))

    def follow(self, run: str, write: Any, *, skip: int = 0) -> Job:
        return job(run, "FAILED", exit_code=4)


def job(run: str, status: str, **given: Any) -> Job:
    usual: dict[str, Any] = {"storage": URL, "begun": 1.0, "exit_code": None, "message": ""}
    return Job(run=run, status=status, **{**usual, **given})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "lab.yaml").write_text(GOOD)
    head = Head(host="10.0.0.1", identity="i-1", user="ubuntu", key="")
    return Cluster(file=load_cluster_file(tmp_path / "lab.yaml"), head=head)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    there = Taken()

    @contextmanager
    def jobs_of(cluster: Cluster) -> Iterator[Taken]:
        yield there

    monkeypatch.setattr(room, "jobs_of", jobs_of)
    return there


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of a bucket's ``s3://lab-radar/runs``, or of whatever prefix is asked for."""
    monkeypatch.setattr(room, "open_store", lambda url, s3: FolderStore(tmp_path / "bucket" / url.rpartition("/")[2]))
    return tmp_path / "bucket"


@pytest.fixture
def run(bucket: Path) -> Callable[..., Path]:
    """Makes a run there."""

    def make(name: str = "second", space: Any = SPACE, **options: Any) -> Path:
        return journal(bucket / name, space, {"gpus_per_trial": None, **options})

    return make


def journal(folder: Path, space: Any, options: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True)
    made = Journal.open(folder / "journal.jsonl")
    made.append("run", name=folder.name, options=options, identity={"space": space})
    made.append("session")
    made.append("machines", there={"head": 1}, dollars=0.192)
    made.append("close", status="interrupted")
    made.close()
    return folder


def asked(*words: str) -> Again:
    """As the command line makes it of words."""
    args: argparse.Namespace = parser().parse_args(["resume", *words])
    return Again(
        words=words,
        run=args.folder,
        space=args.space,
        data=args.data,
        gpus=args.gpus_per_trial,
        time_budget=args.time_budget,
        max_cost=args.max_cost,
        s3=s3_options(args),
    )


def test_a_name_is_all_that_is_needed(
    cluster: Cluster, taken: Taken, run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    assert resume_there(cluster, asked("second", "--trials", "9")) == 4
    ((name, command, files, storage, environment),) = taken.submitted
    assert (name, storage) == ("second", URL)
    assert command == [
        *("python", "-u", "-m", "tunelab.handed_over", "resume", URL, "--trials", "9"),
        *("--address", "auto", "--gpus-per-trial", "1"),
    ]
    assert "tunelab/resume.py" in files
    assert not [path for path in files if path.startswith("space/")], "the space is the one of the journal"
    assert json.loads(environment[PRICES]) == {"head": 0.192, "spot": 0.16, "sure": 0.526}
    said = capsys.readouterr().err
    assert f"Handed over to 10.0.0.1 as second; results go to {URL}\n" in said
    assert f"tunelab attach second --cluster {cluster.file.path} comes back.\n" in said


def test_a_url_and_changes_go_along_as_typed(
    cluster: Cluster, taken: Taken, run: Callable[..., Path], tmp_path: Path
) -> None:
    run("mine", gpus_per_trial=0.5)
    space = tmp_path / "my radar.yaml"
    space.write_text("start_from:\n  - {family: lstm}\n")
    words = ("--accept-changes", "s3://other/x/mine/", "--space", str(space), "--cluster", "lab.yaml")
    resume_there(cluster, asked(*words, "--time-budget=2h", "--data", "s3://lab/scans"))
    ((name, command, files, storage, _),) = taken.submitted
    assert (name, storage) == ("mine", "s3://other/x/mine")
    assert command[4:] == [
        *("resume", "--accept-changes", "s3://other/x/mine", "--time-budget=2h", "--data", "s3://lab/scans"),
        *("--space", f"{HERE}my radar.yaml", "--address", "auto"),
    ]
    assert "space/my radar.yaml" in files


def test_a_run_goes_on_where_the_cluster_knows_it_to_be(
    cluster: Cluster, taken: Taken, run: Callable[..., Path]
) -> None:
    run()
    taken.known = [job("second", "STOPPED", storage="s3://elsewhere/deep/second")]
    resume_there(cluster, asked("second"))
    assert taken.submitted[0][3] == "s3://elsewhere/deep/second"


@pytest.mark.parametrize(
    ("given", "named", "adds"),
    [(None, (), True), (2.0, (), False), (0.0, (), False), (None, ("--gpus-per-trial", "0"), False)],
)
def test_gpus_are_asked_for_where_nobody_said_how_many(
    cluster: Cluster,
    taken: Taken,
    run: Callable[..., Path],
    given: float | None,
    named: tuple[str, ...],
    adds: bool,
) -> None:
    run(gpus_per_trial=given)
    resume_there(cluster, asked("second", *named))
    assert ("1" in taken.submitted[0][1]) is adds


def test_what_it_may_still_cost_is_said(
    cluster: Cluster, taken: Taken, run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The session before took half an hour, in which there was the head alone."""
    path = run(time_budget=3600.0) / "journal.jsonl"
    *before, last = (json.loads(line) for line in path.read_bytes().splitlines())
    last = {**{key: value for key, value in last.items() if key != "digest"}, "clock": before[-1]["clock"] + 1800.0}
    lines = [*path.read_bytes().splitlines(keepends=True)[:-1]]
    path.write_bytes(b"".join([*lines, journals._line({**last, "digest": journals._digest(last)})]))
    known = price(cluster.file)
    assert known is not None
    assert known.high is not None

    def most(*words: str) -> str:
        resume_there(cluster, asked("second", *words))
        said = capsys.readouterr().err
        return said.partition("Estimated cost of the search: ")[2].partition(" US dollars at most")[0]

    assert most() == f"{known.high * 0.5:.2f}"
    assert most("--time-budget", "2h") == f"{known.high * 1.5:.2f}"
    assert most("--max-cost", "0.5") == f"{0.5 - 0.192 / 2:.2f}"
    assert most("--max-cost", "0") == f"{known.high * 0.5:.2f}"
    assert most("--time-budget", "10m") == "0.00"


def test_a_limit_of_cost_needs_prices_as_in_a_search(
    cluster: Cluster, taken: Taken, run: Callable[..., Path], tmp_path: Path
) -> None:
    run(max_cost=7.0)
    (tmp_path / "own.yaml").write_text(OWN)
    own = Cluster(file=load_cluster_file(tmp_path / "own.yaml"), head=cluster.head)
    with pytest.raises(UsageError, match="--max-cost: 7: nobody bills machines of your own by the hour"):
        resume_there(own, asked("second"))
    assert taken.submitted == []
    resume_there(own, asked("second", "--max-cost", "0"))
    assert len(taken.submitted) == 1


def test_modules_of_the_runs_own_families_are_taken_along(
    cluster: Cluster, taken: Taken, run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(space={"families": {"own_net:family": {"units": [6]}}})
    with pytest.raises(UsageError) as told:
        resume_there(cluster, asked("second"))
    assert str(told.value) == (f"{URL}: its space: family: the module own_net is not found here; put it on PYTHONPATH")
    assert taken.submitted == []
    (tmp_path / "own_net.py").write_text("def family(params, samples):\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    resume_there(cluster, asked("second"))
    assert "own_net.py" in taken.submitted[0][2]
    assert "own_net" not in sys.modules, "what is taken along is not run here"


def test_a_run_that_goes_on_is_not_gone_on_with(cluster: Cluster, taken: Taken, run: Callable[..., Path]) -> None:
    run()
    at = f"second --cluster {cluster.file.path}"
    for status in ("PENDING", "RUNNING"):
        taken.known = [job("second", status)]
        for name in ("second", URL):
            with pytest.raises(RunBusyError) as told:
                resume_there(cluster, asked(name))
            assert str(told.value) == (
                f"second: runs on the cluster; look at it: tunelab attach {at}; end it first: tunelab stop {at}"
            )
    assert taken.submitted == []


@pytest.mark.parametrize("typed", ["runs/mine", "mine"])
@pytest.mark.parametrize("stored", ["", "s3://lab-radar/runs/mine"])
def test_a_run_in_a_folder_stays_here(
    cluster: Cluster, taken: Taken, run: Callable[..., Path], typed: str, stored: str
) -> None:
    run("mine")
    journal(Path("runs/mine"), SPACE, {"storage": stored})
    with pytest.raises(UsageError) as told:
        resume_there(cluster, asked(typed))
    bucket = f"tunelab sync runs/mine, then tunelab resume {stored} --cluster {cluster.file.path}"
    assert str(told.value) == (
        f"{typed}: the run is in a folder of this machine, runs/mine, and the cluster's machines cannot read its disk; "
        f"go on here: leave --cluster out{f'; or on the cluster, from its bucket: {bucket}' if stored else ''}"
    )
    assert taken.submitted == []


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("runs/nowhere",), UsageError, "RUN: runs/nowhere: no run is there on this machine; name one of the clust"),
        (("nowhere",), StateError, "nowhere: holds no run"),
        (("s3://lab-radar",), UsageError, "names a bucket, not a run in it"),
        (("",), UsageError, "RUN: empty"),
        (("a b",), UsageError, "'a b' must be 1 to 100 letters"),
        (("second", "--data", "/scans"), UsageError, "--data: /scans: the cluster's machines cannot read"),
        (("second", "--space", "nowhere.yaml"), UsageError, "nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_handed_over(
    cluster: Cluster,
    taken: Taken,
    run: Callable[..., Path],
    words: tuple[str, ...],
    error: type[TunelabError],
    message: str,
) -> None:
    run()
    with pytest.raises(error, match=message):
        resume_there(cluster, asked(*words))
    assert taken.submitted == []


@pytest.mark.parametrize(
    ("space", "options"),
    [
        (None, {}),
        (["lstm"], {}),
        (SPACE, []),
        (SPACE, {"max_cost": "7"}),
        (SPACE, {"time_budget": {}}),
        ({"families": 3}, {}),
    ],
)
def test_a_journal_that_tells_something_else_is_refused(
    cluster: Cluster, taken: Taken, bucket: Path, space: Any, options: Any
) -> None:
    journal(bucket / "second", space, options)
    with pytest.raises(StateError, match=rf"^{URL}/journal\.jsonl: "):
        resume_there(cluster, asked("second"))
    assert taken.submitted == []


def test_which_folder_a_name_means(tmp_path: Path) -> None:
    journal(Path("runs/a"), SPACE, {})
    assert folder_here("a") == Path("runs/a")
    assert folder_here("runs/a") == Path("runs/a")
    assert folder_here("runs/b") is None
    assert folder_here("s3://runs/a") is None
    assert folder_here("") is None
    journal(Path("a"), SPACE, {})
    assert folder_here("a") == Path("a"), "what was named goes before"
    assert folder_here(str(Path("runs/a").absolute())) == Path("runs/a").absolute()


def test_the_command_asks_where_as_a_search_does(
    cluster: Cluster,
    taken: Taken,
    run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run()
    calls: list[dict[str, Any]] = []

    def place(**given: Any) -> Place:
        calls.append(given)
        return Place(why="cluster lab: because", cluster=cluster)

    monkeypatch.setattr(where, "place", place)
    assert main(["resume", "second", "--cluster", "lab.yaml", "--trials", "3"]) == 4
    assert calls == [{"address": None, "local": False, "file": "lab.yaml", "folder": Path.cwd()}]
    assert capsys.readouterr().out == "Where: cluster lab: because\n"
    assert taken.submitted[0][1][4:8] == ["resume", URL, "--trials", "3"]


def test_a_run_in_a_folder_goes_on_here_though_a_cluster_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def place(**given: Any) -> Place:
        calls.append(given)
        return Place(why="this machine")

    monkeypatch.setattr(where, "place", place)
    journal(Path("runs/second"), SPACE, {})
    for typed in ("second", "runs/second"):
        assert main(["resume", typed]) == 7
    assert main(["resume", "third"]) == 7
    assert [given["folder"] for given in calls] == [None, None, Path.cwd()]


def test_on_this_machine_a_name_is_looked_for_in_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "second", "--local"]) == 7
    assert "second: holds no run (no journal.jsonl)" in capsys.readouterr().err
    journal(Path("runs/second"), SPACE, {})
    assert main(["resume", "second", "--local"]) == 7
    assert f"{Path('runs/second').absolute()}: was written by tunelab" in capsys.readouterr().err
