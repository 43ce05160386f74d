"""Runs that are killed, damaged, held or changed, and gone on with: nothing acknowledged is lost, nor told twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from quick_run import QuickRun, check_run

from tunelab import journal
from tunelab.cli import main
from tunelab.report import write_report

ASSETS = Path(__file__).parent / "assets" / "releases"

ray = pytest.mark.ray


@pytest.fixture
def quick(tmp_path: Path) -> QuickRun:
    return QuickRun(folder=tmp_path)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    """A run whose driver was killed in its midst; tests work on copies."""
    run = QuickRun(folder=tmp_path_factory.mktemp("killed")).search("--trials", "4")
    run.wait_for(lambda records: sum(r["kind"] == "result" for r in records) >= 6)
    run.kill()
    return run


@pytest.fixture
def copy(killed: QuickRun, tmp_path: Path) -> QuickRun:
    """The killed run, in a folder of the test's own."""
    shutil.copytree(killed.folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".ray"))
    text = (tmp_path / "runs" / "run" / "journal.jsonl").read_text()
    assert str(killed.folder / "space.yaml") in text
    return QuickRun(folder=tmp_path)


def results(records: list[dict[str, Any]]) -> int:
    return sum(record["kind"] == "result" for record in records)


def rewritten(records: list[dict[str, Any]], path: Path) -> None:
    """A journal of these records, with new numbers and digests."""
    path.unlink()
    made = journal.Journal.open(path)
    for record in records:
        made.append(record["kind"], **{k: v for k, v in record.items() if k not in ("seq", "clock", "kind", "digest")})
    made.close()


@ray
def test_a_killed_run_goes_on_and_a_done_one_stays_done(copy: QuickRun, killed: QuickRun) -> None:
    before = copy.journal.read_bytes()
    assert copy.resume().end() == 0, copy.said
    counted = check_run(copy.run, before=before, said=killed.said)
    assert (counted.trials, counted.duplicated) == (4, 0)
    assert f"Goes on: {killed.count('suggestion')} trials and" in copy.said
    whole = copy.records()
    assert copy.resume().end() == 0, copy.said
    assert [r["kind"] for r in copy.records()[len(whole) :]] == ["session", "close"]
    assert "The winner answers the test split" not in copy.said
    assert copy.resume("--trials", "9").end() == 2
    assert "has used its test split, which answers once" in copy.said


@ray
def test_a_signal_ends_a_search_within_seconds_though_an_epoch_takes_minutes(quick: QuickRun) -> None:
    quick.environment["TUNELAB_QUICK_SECONDS"] = "600"
    quick.search("--trials", "4")
    quick.wait_for(lambda records: sum(r["kind"] == "suggestion" for r in records) >= 2)
    quick.kill(signal.SIGTERM)
    assert quick.end(30) == 143, quick.said
    assert f"Go on with: tunelab resume {quick.run}" in quick.said
    assert {r["status"] for r in quick.records() if r["kind"] == "end"} == {"interrupted"}
    quick.environment["TUNELAB_QUICK_SECONDS"] = "0"
    assert quick.resume().end() == 0, quick.said
    assert check_run(quick.run).trials == 4


@ray
def test_more_trials_and_more_time_can_be_asked_for(quick: QuickRun) -> None:
    quick.search("--trials", "50", "--time-budget", "30s")
    quick.wait_for(lambda records: results(records) >= 4)
    quick.kill(signal.SIGINT)
    assert quick.end() == 130, quick.said
    others = ("--cpus-per-trial", "0.5", "--gpus-per-trial", "0")
    assert quick.resume("--trials", "3", "--time-budget", "10m", *others).end() == 0, quick.said
    assert re.search(r"^Where: this machine, .* cores: --local\.$", quick.said, re.MULTILINE)
    counted = check_run(quick.run)
    assert counted.trials >= 3
    changed = [r["options"] for r in quick.records() if r["kind"] == "change"]
    assert [(c["trials"], c["time_budget"]) for c in changed] == [(3, 600.0)]
    assert [(c["cpus_per_trial"], c["gpus_per_trial"]) for c in changed] == [(0.5, 0.0)]


@ray
def test_the_time_that_was_taken_before_counts(copy: QuickRun) -> None:
    """By the run's own clock: wall time of the first session is set back an hour, and into the next year."""
    records = copy.records()
    for i, record in enumerate(records):
        record["time"] += 3.2e7 if i % 2 else -3600
    clocks = [r["clock"] for r in records]
    raw = copy.journal.read_bytes()
    copy.journal.write_bytes(b"")
    lines = []
    for record in records:
        record = {k: v for k, v in record.items() if k != "digest"}
        record["clock"] = record["clock"] + 5000 if record["seq"] == len(records) - 1 else record["clock"]
        record["digest"] = journal._digest(record)
        lines.append(journal._line(record))
    copy.journal.write_bytes(b"".join(lines))
    assert max(clocks) < 1000
    assert raw != copy.journal.read_bytes()
    assert copy.resume("--time-budget", "4000s").end() == 0, copy.said
    # a result that the run was cut behind is owed its decision, which may be to wait, and nothing else is done
    new = copy.records()[len(records) :]

    def of(kind: str, some: list[Any]) -> set[tuple[str, int]]:
        return {(r["trial"], r["epoch"]) for r in some if r["kind"] == kind}

    owed = of("result", records) - of("decision", records) - of("wait", records)
    assert of("decision", new) | of("wait", new) <= owed
    kinds = {r["kind"] for r in new} - {"decision", "wait"}
    assert kinds == {"session", "change", "end", "final", "close"}
    causes = [r["cause"] for r in copy.records() if r["kind"] == "end" and r["status"] == "interrupted"]
    assert set(causes) == {"the time was over"}


@ray
def test_a_second_search_and_a_second_resume_are_told_who_holds_the_run(quick: QuickRun) -> None:
    quick.environment["TUNELAB_QUICK_SECONDS"] = "600"
    quick.search("--trials", "2")
    quick.wait_for(lambda records: len(records) >= 3)
    assert quick.process is not None
    other = QuickRun(folder=quick.folder)
    for again in (other.search, other.resume):
        again()
        assert other.end() == 6, other.said
        assert f"held by process {quick.process.pid} on {os.uname().nodename}" in other.said
    quick.kill_all()
    quick.environment["TUNELAB_QUICK_SECONDS"] = "0"
    assert quick.resume().end() == 0, quick.said
    fences = [r["fence"] for r in quick.records() if r["kind"] == "session"]
    assert fences == sorted(set(fences)), "each owner has a higher number"


@ray
def test_two_resumes_at_once_of_which_one_wins(copy: QuickRun) -> None:
    first, second = (QuickRun(folder=copy.folder) for _ in range(2))
    first.resume()
    second.resume()
    codes = sorted([first.end(), second.end()])
    assert codes == [0, 6], first.said + second.said
    check_run(copy.run)


@ray
def test_when_the_newest_checkpoint_is_damaged_the_one_before_is_used_and_said(quick: QuickRun) -> None:
    quick.environment |= {"TUNELAB_QUICK_SHARE": "0", "TUNELAB_QUICK_SECONDS": "0.3"}
    quick.search("--trials", "1", "--concurrent", "1")
    quick.wait_for(lambda records: results(records) >= 3)
    quick.kill_all()
    known = results(quick.records())
    *_, old, new = sorted((quick.run / "checkpoints" / "0001").iterdir())
    raw = bytearray(new.read_bytes())
    raw[len(raw) // 2] ^= 4
    new.write_bytes(raw)
    assert quick.resume().end() == 0, quick.said
    counted = check_run(quick.run)
    assert counted.duplicated == 0
    assert counted.results == 6
    assert known >= 3
    (note,) = [r["text"] for r in quick.records() if r["kind"] == "note"]
    assert note.startswith(f"checkpoints/0001/{new.name}: ")
    assert note.endswith(f"goes on from epoch {int(old.stem[1:])}")


@ray
def test_without_any_checkpoint_a_trial_begins_anew_and_tells_nothing_twice(copy: QuickRun) -> None:
    shutil.rmtree(copy.run / "checkpoints")
    assert copy.resume().end() == 0, copy.said
    assert check_run(copy.run).duplicated == 0


@ray
def test_a_torn_last_line_is_cut_off_and_said(copy: QuickRun) -> None:
    with copy.journal.open("ab") as file:
        file.write(b'{"seq":99,"time":1,"ki')
    assert copy.resume().end() == 0, copy.said
    assert "journal.jsonl: an unfinished last line of 22 bytes was cut off" in copy.said
    assert [r["cut"] for r in copy.records() if r["kind"] == "session"] == [0, 22]
    check_run(copy.run)


@ray
def test_files_that_only_describe_a_run_may_be_cut_or_gone(copy: QuickRun) -> None:
    for name in ("run.yaml", "leaderboard.csv", "lease.json", "run.lock"):
        path = copy.run / name
        path.write_bytes(path.read_bytes()[:17] if path.exists() else b"x")
    (copy.run / "space.yaml").unlink()
    assert copy.resume().end() == 0, copy.said
    check_run(copy.run)
    assert yaml.safe_load((copy.run / "run.yaml").read_text())["name"] == "run"
    assert yaml.safe_load((copy.run / "space.yaml").read_text())["name"] == "quick"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["resume", *words, "--local"])
    return code, capsys.readouterr().err


def test_a_damaged_line_is_named(copy: QuickRun, capsys: pytest.CaptureFixture[str]) -> None:
    lines = copy.journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"kind"', b'"kinb"', 1)
    copy.journal.write_bytes(b"".join(lines))
    code, said = refused(capsys, str(copy.run))
    assert code == 7
    assert said == f"tunelab: {copy.journal}: line 4: does not match its digest; restore the file from a copy\n"
    assert copy.journal.read_bytes() == b"".join(lines), "nothing is changed by a refusal"


def test_an_empty_journal_is_never_a_new_start(copy: QuickRun, capsys: pytest.CaptureFixture[str]) -> None:
    copy.journal.write_bytes(b"")
    code, said = refused(capsys, str(copy.run))
    assert (code, "is empty, so there is no run to go on with" in said) == (7, True)
    assert main(["search", str(copy.folder / "space.yaml"), "--storage", str(copy.run.parent), "--name", "run"]) == 2
    assert (
        f"holds a run already; give another --name, or go on with: tunelab resume {copy.run}" in capsys.readouterr().err
    )


def test_a_folder_without_a_run_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, str(tmp_path))
    assert code == 7
    assert said == (
        f"tunelab: {tmp_path}: holds no run (no journal.jsonl); name the folder of a run, or its s3:// URL\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "s3://bucket", "s3://bucket/..", "s3://bucket/runs/a b", "s3://bucket/-x"])
def test_names_are_checked_before_they_become_paths(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, name)
    assert code == 2
    assert said.startswith("tunelab: ")


CHANGES = {
    "space": "space: families: ",
    "seed": "seed: 0 -> 5",
    "data": "data: ",
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_was_changed_is_refused_with_the_difference(
    copy: QuickRun, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(copy.run)]
    if what == "space":
        changed = yaml.safe_load((copy.folder / "space.yaml").read_text())
        changed["families"]["simple_rnn"]["units"] = [8]
        (copy.folder / "other.yaml").write_text(yaml.safe_dump(changed))
        words += ["--space", str(copy.folder / "other.yaml")]
    elif what == "seed":
        words += ["--seed", "5"]
    else:
        assert main(["data", "synth", str(copy.folder / "scans"), "--traces", "20", "--samples", "64"]) == 0
        words += ["--data", str(copy.folder / "scans")]
    before = copy.journal.read_bytes()
    capsys.readouterr()
    code, said = refused(capsys, *words)
    assert code == 7
    assert f"{copy.run}: is not what the run was begun with:\n  " in said
    assert CHANGES[what] in said
    assert copy.journal.read_bytes() == before
    if what == "data":
        assert "cannot be compared; bring back what was there, or search again under another --name" in said
        assert refused(capsys, *words, "--accept-changes")[0] == 7
    else:
        assert "--accept-changes goes on" in said
        assert f"tunelab resume {copy.run} --space {copy.run / 'space.yaml'}" in said


def test_an_edited_run_yaml_does_not_rule_and_is_said(copy: QuickRun, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy.run / "run.yaml"
    path.write_text(path.read_text().replace("\nseed: 0\n", "\nseed: 3\n"))
    code, said = refused(capsys, str(copy.run))
    assert code == 7
    assert "seed: run.yaml says otherwise than the journal: 0 -> 3" in said


@ray
def test_a_changed_space_can_be_accepted(killed: QuickRun, copy: QuickRun) -> None:
    changed = yaml.safe_load((copy.folder / "space.yaml").read_text())
    del changed["families"]["simple_rnn"]
    (copy.folder / "other.yaml").write_text(yaml.safe_dump(changed))
    code = copy.resume("--space", str(copy.folder / "other.yaml"), "--accept-changes", "--trials", "6").end()
    assert code == 0, copy.said
    check_run(copy.run)
    assert "Changed: space: families: " in copy.said
    new = [r["family"] for r in copy.records() if r["kind"] == "suggestion"][killed.count("suggestion") :]
    assert new
    assert set(new) == {"dense_rnn"}
    # what was accepted is what the run is now
    assert copy.resume().end() == 0, copy.said


@pytest.mark.parametrize("name", ["0.1.0-done", "0.1.0-killed"])
def test_runs_of_0_1_0_are_read_and_refused_clearly(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / name
    shutil.copytree(ASSETS / name, run)
    before = (run / "journal.jsonl").read_bytes()
    code, said = refused(capsys, str(run))
    assert code == 7
    assert said == (
        f"tunelab: {run}: was written by tunelab 0.1.0, whose runs kept no checkpoints but Ray's own, which are not "
        f"opened; tunelab report {run} and tunelab status still read it; search again with: tunelab search --name "
        "NAME\n"
    )
    assert (run / "journal.jsonl").read_bytes() == before
    assert main(["status", str(run)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{name.partition('-')[2]}: {'done' if 'done' in name else 'open'}, by tunelab 0.1.0")
    report = write_report(run)
    assert report["best"]["val_f1"] > 0
    assert (report["best"]["test_f1"] is not None) == ("done" in name)


def test_a_run_of_a_later_format_is_refused(copy: QuickRun, capsys: pytest.CaptureFixture[str]) -> None:
    records = copy.records()
    records[0] |= {"format": 3, "version": "9.1"}
    rewritten(records, copy.journal)
    code, said = refused(capsys, str(copy.run))
    assert code == 7
    assert "was written by tunelab 9.1, in format 3, and this is" in said


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("suggestion", "trial", "../../etc/passwd"),
        ("suggestion", "params", None),
        ("result", "metrics", "none"),
        ("result", "trial", "0077"),
    ],
)
def test_a_journal_with_right_digests_and_wrong_content_is_refused(
    copy: QuickRun, kind: str, field: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    records = copy.records()
    next(r for r in records if r["kind"] == kind)[field] = value
    rewritten(records, copy.journal)
    code, said = refused(capsys, str(copy.run))
    assert code == 7, said
    assert "Traceback" not in said
    assert not list(copy.folder.parent.glob("etc"))


def test_status_and_list_say_what_runs_do(copy: QuickRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(copy.run)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"run: open, by tunelab 0.1.0, at {copy.run}\n")
    assert "of 4: " in told
    assert f"tunelab resume {copy.run}" in told
    (copy.run.parent / "broken").mkdir()
    (copy.run.parent / "broken" / "journal.jsonl").write_text("no journal\n{}\n")
    assert main(["list", str(copy.run.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("broken")
    assert "cannot be read: " in lines[0]
    assert lines[1].split()[:2] == ["run", "open"]
    assert main(["list", str(copy.folder / "nothing")]) == 0
    assert json.dumps(capsys.readouterr().out).startswith('"no runs at ')
