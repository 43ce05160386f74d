"""A run of many trials gone on with, against one of few: from the command to the first new epoch.

Both journals are written by the journal's own code, their trials drawn from the quick space, of twenty epochs at most.
Each round copies both runs, goes on with them in processes of their own, in turns, and times what is said: the replay
alone in this process, and ``tunelab resume`` until its first new result is in the journal, start of Ray and framework
included. Times of the two sides are of one machine in one run; the ratio says what the trials cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.sources import scratch
from tunelab.data.prepared import CacheOptions
from tunelab.journal import Journal, read
from tunelab.models import normalise, starts
from tunelab.planning import begin, plan_of
from tunelab.progress import progress_console
from tunelab.space import load_space, shipped
from tunelab.tuning.hold import new_run
from tunelab.tuning.plan import Options, Plan
from tunelab.tuning.record import Recorder
from tunelab.tuning.scheduler import RecordingScheduler
from tunelab.tuning.searcher import SpaceSearcher

METRICS = (
    "loss",
    "learning_rate",
    "tune_loss",
    "tune_average_precision",
    "tune_f1",
    "threshold",
    "val_loss",
    "val_f1",
    "val_f1_at_half",
)
METRICS += ("val_average_precision", "precision", "recall", "tp", "fp", "fn", "tn", "mean_jaccard")


def planned(folder: Path, trials: int) -> Plan:
    """A run that asks for one trial more than it has."""
    options = Options(space="", data=None, trials=trials + 1, max_epochs=20)
    return plan_of(
        options,
        load_space(shipped("quick.yaml")),
        folder,
        begun=time.monotonic(),
        address=None,
        cache=CacheOptions(),
        debug=False,
        console=progress_console(),
    )


def write_run(folder: Path, trials: int) -> None:
    """A journal as a search of so many trials leaves it when its driver is killed after the last of them."""
    plan = planned(folder, trials)
    rng = np.random.default_rng(0)
    with new_run(folder, "", plan.options.s3) as hold:
        begin(plan, hold)
        recorder = Recorder(hold.journal)
        names = [start.name for start in plan.space.start_from]
        for number in range(1, trials + 1):
            trial, name = f"{number:04d}", names.pop(0) if names else ""
            params = normalise(plan.space.sample(rng))
            recorder.suggestion(trial, name, number, params, plan.space.column_values(params))
            for epoch in range(1, int(rng.choice([4, 12, 20], p=[0.6, 0.2, 0.2])) + 1):
                fixed = {"fold": 0, "epoch": epoch, "seconds": float(epoch), "parameters": 9_999, "ended": ""}
                metrics = dict(zip(METRICS, rng.random(len(METRICS)), strict=True))
                recorder.result(trial, {**fixed, "weights": "0" * 64, "checkpoint": "", "metrics": metrics})
            recorder.decision(trial, epoch=epoch, by="epochs", status="finished", cause="")
            recorder.end(trial, "finished")


def replayed(folder: Path) -> float:
    """Seconds to read a journal and fill leaderboard, rungs and sampler, and to draw the next proposal."""
    plan = planned(folder, 1)
    began = time.monotonic()
    journal = Journal.open(folder / "journal.jsonl")
    recorder = Recorder(journal)
    scheduler = RecordingScheduler(plan.space.early_stopping, plan.max_epochs, recorder)
    searcher = SpaceSearcher(plan.space, starts(plan.space), recorder, samples=plan.samples, seed=0)
    recorder.replay([scheduler.replayed, searcher.replayed])
    searcher.suggest("next")
    journal.close()
    return time.monotonic() - began


def resumed(folder: Path) -> float:
    """Seconds from the command to the first result in the journal."""
    path = folder / "journal.jsonl"
    size = path.stat().st_size
    began = time.monotonic()
    words = [sys.executable, "-m", "tunelab", "resume", str(folder), "--local"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        while process.poll() is None:
            with path.open("rb") as file:
                file.seek(size)
                new = file.read().rpartition(b"\n")[0].splitlines()
            if any(json.loads(line)["kind"] == "result" for line in new):
                break
            time.sleep(0.02)
        taken = time.monotonic() - began
        process.kill()
    return taken


def main() -> None:
    """Print both sides and what the trials cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000, help="of the large run (default: %(default)s)")
    parser.add_argument("--few", type=int, default=10, help="of the small one (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each side (default: %(default)s)")
    args = parser.parse_args()
    home = scratch() / "runs-to-resume"
    shutil.rmtree(home, ignore_errors=True)
    sides = {"many": args.trials, "few": args.few}
    for name, trials in sides.items():
        write_run(home / name, trials)
        size = (home / name / "journal.jsonl").stat().st_size
        records = len(read(home / name / "journal.jsonl"))
        print(f"{name}: {trials:,} trials, {records:,} records, {size / 1e6:.1f} MB")
    os.sync()
    for what, measure in (("replay and next proposal", replayed), ("tunelab resume to the first result", resumed)):
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name in sides:
                copy = home / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(home / name, copy)
                taken[name].append(measure(copy))
        many, few = (statistics.median(taken[name]) for name in sides)
        print(f"{what}: many {many:.2f} s, few {few:.2f} s, {many / few:.2f} x, {many - few:.2f} s for the trials")


if __name__ == "__main__":
    main()
