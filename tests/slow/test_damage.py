"""Every state file of a run, cut or with one bit flipped at random: gone on with, or refused, never in silence."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import damage
import pytest
from damage import KINDS, copied, file_of, forget
from evidence import Loop
from quick_run import QuickRun
from reference import differences
from runs import Scans, broken, lost_lines, whole_lines

import tunelab.lease
import tunelab.resume
import tunelab.trial
from tunelab import journal
from tunelab.archive import MANIFEST, Manifest
from tunelab.cli import main
from tunelab.mirror import Mirror
from tunelab.ranking import Leaderboard
from tunelab.storage import S3Store

pytestmark = [
    pytest.mark.slow,
    # Ray warns of its own future when it is imported
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

SPACE = """
name: quick
epochs: {max: 4, patience: 9}
early_stopping: {grace: 4, reduction: 2}
shared: {learning_rate: {loguniform: [1e-3, 1.0]}, batch_size: 4, dropout: {uniform: [0, 0.4]}, l2: 0}
families: {simple_rnn: {units: {choice: [[6], [8]]}}, dense_rnn: {dense: {choice: [[6], [8, 6]]}, units: [6]}}
"""
WITH_RAY = 97
"""Every so many rounds the whole command goes on, Ray included."""
Change = Callable[[bytes, random.Random], tuple[bytes, str]]


@dataclass(frozen=True, kw_only=True)
class Bases:
    """Runs to damage copies of."""

    midst: QuickRun
    """Killed while trials were under way."""
    ended: QuickRun
    """Killed before the winner answered test; the file that the space came from is gone."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, scans: Scans) -> Bases:
    made = {}
    for name in ("midst", "ended"):
        run = QuickRun(folder=tmp_path_factory.mktemp(name))
        run.environment |= {"TUNELAB_QUICK_SECONDS": "0.3", "TUNELAB_QUICK_SHARE": "0"}
        run.search("--trials", "4", "--data", str(scans.dealt), "--sync-every", "0.2s", space=SPACE)
        if name == "midst":
            run.wait_for(lambda records: sum(r["kind"] == "result" for r in records) >= 11)
            run.kill_all()
        else:
            assert run.end() == 0, run.said
            forget(run, b'"kind":"final"')
            (run.folder / "space.yaml").unlink()
        made[name] = run
    return Bases(**made)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, s3_port: int, tmp_path: Path) -> Path:
    """A working directory, a bucket, and resumes without Ray."""
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "AWS_ACCESS_KEY_ID": "slow",
        "AWS_SECRET_ACCESS_KEY": "slow",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="slow")
    client.close()
    real = tunelab.lease.clock
    monkeypatch.setattr(tunelab.lease, "clock", lambda: 600 * real())  # a lease of another host is waited for
    monkeypatch.setattr(tunelab.resume, "run_search", damage.run_in_turns)
    monkeypatch.setattr(tunelab.trial, "CHECKPOINT_SHARE", 0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(kw_only=True)
class Damaged:
    """A run with a damaged file, and what became of it."""

    run: QuickRun
    file: str
    how: str
    original: bytes
    """The journal before the damage."""
    raw: bytes
    """The damaged file."""
    whole: bytes
    """The same before."""
    newest: str = ""
    """The newest file of its folder."""
    code: int = -1
    said: str = ""

    @property
    def records(self) -> list[dict[str, Any]]:
        return self.run.records()


def begin(number: int, bases: Bases, change: Change, rng: random.Random, here: Path) -> Damaged:
    """A copy of a run with a damaged file."""
    kind = KINDS[number % len(KINDS)]
    base = bases.midst if kind.startswith(("checkpoints/", "s3:")) or rng.random() < 0.5 else bases.ended
    run = copied(base, here / f"round-{number}")
    original = run.journal.read_bytes()
    if kind.startswith("s3:"):
        store = S3Store("slow", f"{here.name}-{number}/run")
        Mirror(run.run, store).sync()
        whole = store.get(MANIFEST)
        raw, how = change(whole, rng)
        store.put(MANIFEST, raw)
        return Damaged(run=run, file=kind, how=how, original=original, raw=raw, whole=whole)
    file = file_of(kind, run.run, rng)
    path = run.run / file
    whole = path.read_bytes()
    raw, how = change(whole, rng)
    path.write_bytes(raw)
    newest = max(one.name for one in path.parent.iterdir())
    return Damaged(run=run, file=file, how=how, original=original, raw=raw, whole=whole, newest=newest)


def go_on(one: Damaged, number: int, here: Path) -> None:
    """Resume it: here, or with Ray."""
    place = str(one.run.run)
    if one.file.startswith("s3:"):
        place = f"s3://slow/{here.name}-{number}/run"
        shutil.rmtree(one.run.folder)
        one.run = QuickRun(folder=here)
    elif number % WITH_RAY == 0:
        one.code = one.run.resume().end()
        one.said = one.run.said
        return
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            one.code = main(["resume", place, "--local"])
        except Exception:  # noqa: BLE001 - whatever escapes is what is looked for
            told.write(traceback.format_exc())
    one.said = told.getvalue()


def judge(one: Damaged) -> dict[str, object]:
    """What came of it: an outcome in words, or what is wrong."""
    name = one.file.rpartition("/")[2]
    if one.code == 7:
        named = name in one.said and (name != "journal.jsonl" or "line " in one.said or "is empty" in one.said)
        kept = (
            name == "journal.jsonl"
            or not one.run.journal.exists()
            or one.run.journal.read_bytes().startswith(one.original)
        )
        wrong = "" if named else "the refusal does not name the file"
        return {"outcome": "refused", "broken": wrong or ("" if kept else "a refusal has changed the journal")}
    if one.code != 0:
        return {"outcome": "neither refused nor done", "broken": f"exit code {one.code}"}
    known = whole_lines(one.raw) if name == "journal.jsonl" else one.original
    fault, results, twice = broken(one.run.run, before=known, said=one.said, done=True)
    compared, different = differences(one.run.run, "quick_trainer")
    fences = [r["fence"] for r in one.records if r["kind"] == "session"]
    if fences != sorted(set(fences)) and not one.file.startswith("s3:"):  # they are counted in each folder
        fault = fault or f"fences do not grow: {fences}"
    outcome = _outcome(one, name)
    return {
        "outcome": outcome or "unnoticed", "unnoticed": int(not outcome), "acknowledged": known.count(b"\n"),
        "results": results, "lost": lost_lines(known, one.run.journal.read_bytes()), "duplicated": twice,
        "compared": compared, "different": different[:5], "broken": fault,
    }  # fmt: skip


def _outcome(one: Damaged, name: str) -> str:
    """Why it is well that the run went on; empty when it is not."""
    if name == "journal.jsonl":
        if whole_lines(one.raw) == one.raw:
            return "journal cut between two lines" if one.original.startswith(one.raw) else ""
        return (
            "said: cut off"
            if f"an unfinished last line of {len(one.raw) - len(whole_lines(one.raw)):,} bytes" in one.said
            else ""
        )
    if one.file.startswith("checkpoints/"):
        if any(r["kind"] == "note" and one.file in r["text"] for r in one.records):
            return "said: a damaged checkpoint"
        return "not read" if _not_needed(one) else ""
    if one.file.startswith("weights/"):
        (final,) = [r for r in one.records if r["kind"] == "final"]
        winner = f"{final['trial']}-e{final['epoch']:04d}.npz"
        return "written again" if _changed(one) else "not used" if name != winner else ""
    if one.file.startswith("s3:"):
        if "missing or damaged there" in one.said:
            return "said: missing in the bucket"
        return "means nothing" if _files(one.raw) == _files(one.whole) else ""
    return "written again" if _changed(one) else ""


def _changed(one: Damaged) -> bool:
    path = one.run.run / one.file
    return not path.exists() or path.read_bytes() != one.raw


def _not_needed(one: Damaged) -> bool:
    """Whether a checkpoint is of a trial that does not go on, or there was a newer one."""
    records = journal.parse(one.original, "journal")[0]
    trial, name = one.file.split("/")[1:]
    over = not Leaderboard(records).trials[trial].unfinished or any(
        r["kind"] == "decision" and r["trial"] == trial for r in records
    )
    return over or one.newest > name


def _files(raw: bytes) -> Any:
    """What a manifest names; the number of the lease in it is nobody's concern."""
    with contextlib.suppress(ValueError):
        return Manifest.model_validate_json(raw).files
    return raw


def rounds(kept: Loop, bases: Bases, change: Change, here: Path) -> None:
    for number in kept.numbers():
        rng = kept.draw(number)
        one = begin(number, bases, change, rng, here)
        go_on(one, number, here)
        facts = judge(one)
        if any(facts.get(key) for key in ("broken", "unnoticed", "different", "lost", "duplicated")):
            facts["said"] = one.said[-1500:]
        kept.write(number, file=one.file, how=one.how, code=one.code, with_ray=number % WITH_RAY == 0, **facts)
        for folder in (here / f"round-{number}", here / "runs"):
            shutil.rmtree(folder, ignore_errors=True)
    kept.end()


def test_a_cut_file_is_never_a_new_start(loop: Callable[[str, int, int], Loop], bases: Bases, here: Path) -> None:
    """Each kind of file at a hundred places."""
    rounds(loop("cuts", 1, 100 * len(KINDS)), bases, damage.cut, here)


def test_no_flipped_bit_goes_unnoticed(loop: Callable[[str, int, int], Loop], bases: Bases, here: Path) -> None:
    """A thousand of them."""
    rounds(loop("bit flips", 1, 1000), bases, damage.flip, here)
