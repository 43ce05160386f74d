"""A whole search on Ray nodes of this machine: how long its slots are idle, and how its driver grows.

Asked for by ``python -m benchmarks.scale --nodes 4``. The head takes no trials; trials sleep
(:mod:`benchmarks.sleeping`), so that two cores carry the nodes. Idle is what is left of the slots' time when the
seconds of all epochs are taken off, from the moment when as many trials had told an epoch as there are slots until the
last trial got its place: start and tail are left out. The driver is a process of its own; its memory and its time
on a core are Linux's.

Measured on 2 cores without other loads, 4 nodes of 2 slots, ``quick.yaml``, epochs of a second: of 1,000 trials 4.2 %
idle (23 ms between two epochs of a trial, 70 ms for each trial that takes a slot; the driver took 24 % of a core), of
400 trials 4.8 %. The driver had 525 MB after 1,000 trials and grew by 158 MB per 1,000 of them, half of it by Ray's own
averages of each trial's metrics (76 kB a trial). Since those go with their trial it has 350 MB after 400, where it had
374 after 300; what else grows in Ray, and how far, is not known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lines import append
from tunelab.space import shipped

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 9
WARM = 0.2
"""Of the trials this share is left out of the slope of the memory: what grows there is imported or made once."""
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

Sample = tuple[float, int, float, float]
"""When, how many trials, bytes of the driver, and its seconds on a core."""


def measured(*, trials: int, nodes: int, slots: int, space: str, sampler: str = "") -> dict[str, Any]:
    """Run a search, and tell what its journal and its driver showed.

    Args:
        trials: configurations.
        nodes: of Ray.
        slots: of a node.
        space: a shipped one.
        sampler: in place of the space's own.

    Raises:
        RuntimeError: the search failed.
    """
    with tempfile.TemporaryDirectory(prefix="scale-") as made, _cluster(nodes, slots) as address:
        folder = Path(made)
        text = shipped(space).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith(("epochs:", "early_stopping:", "trials:"))]
        lines += [f"epochs: {{max: {EPOCHS}, patience: {EPOCHS}}}", "early_stopping: {grace: 1, reduction: 3}"]
        lines += [f"sampler: {sampler}"] if sampler else []
        (folder / "space.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        words = ["search", str(folder / "space.yaml"), "--name", "run", "--trials", str(trials), "--address", address]
        with (folder / "output.txt").open("w+") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.sleeping", *words],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                samples = list(_watched(process, folder / "runs/run/journal.jsonl"))
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                output.seek(0)
                raise RuntimeError(f"the search ended with {process.returncode}:\n{output.read()[-4000:]}")
        raw = (folder / "runs/run/journal.jsonl").read_bytes()
        records = [json.loads(line) for line in raw.splitlines()]
    return {
        "slots": nodes * slots,
        **idle(records, nodes * slots),
        **grown(samples),
        "journal MB": round(len(raw) / 1e6, 2),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def idle(records: Sequence[dict[str, Any]], slots: int) -> dict[str, Any]:
    """Share of the slots' time in which no epoch was trained, how long that was looked at, and where it went.

    ``gap s`` is what passes between two epochs of a trial beyond its training, ``change s`` what passes for each trial
    that takes a slot, both as a mean.

    Args:
        records: of a journal of one session.
        slots: trials at a time.
    """
    spans: list[tuple[float, float]] = []
    seconds: dict[str, float] = {}
    first: list[float] = []
    newest: dict[str, float] = {}
    gaps: list[float] = []
    for record in records:
        trial = str(record.get("trial"))
        if record["kind"] in ("wait", "end"):
            newest.pop(trial, None)
        if record["kind"] != "result":
            continue
        if trial in newest:
            gaps.append(record["clock"] - newest[trial] - (record["seconds"] - seconds[trial]))
        newest[trial] = record["clock"]
        if trial not in seconds:
            first.append(record["clock"])
        spans.append((record["clock"] - (record["seconds"] - seconds.get(trial, 0.0)), record["clock"]))
        seconds[trial] = record["seconds"]
    begin = sorted(first)[min(slots, len(first)) - 1]
    end = max(record["clock"] for record in records if record["kind"] == "start")
    trained = sum(max(min(until, end) - max(since, begin), 0.0) for since, until in spans)
    wall = max(end - begin, 1e-9)
    taken = sum(one["kind"] == "start" and begin <= one["clock"] <= end for one in records)
    gap = sum(gaps) / max(len(gaps), 1)
    changes = slots * wall - trained - gap * len(gaps) * wall / max(records[-1]["clock"], wall)
    return {
        "trials": len(seconds),
        "epochs": len(spans),
        "wall s": round(wall, 1),
        "idle": round(1 - trained / (slots * wall), 4),
        "gap s": round(gap, 4),
        "change s": round(changes / max(taken, 1), 4),
    }


def grown(samples: Sequence[Sample]) -> dict[str, Any]:
    """The driver's memory and its slope over trials, and the share of a core that it took."""
    most = max(trials for _, trials, _, _ in samples)
    late = [sample for sample in samples if sample[1] >= WARM * most]
    trials, memory = (np.array([sample[i] for sample in late]) for i in (1, 2))
    slope = float(np.polyfit(trials, memory, 1)[0]) if len(set(trials.tolist())) > 1 else float("nan")
    return {
        "driver MB": round(samples[-1][2] / 1e6, 1),
        "MB per 1000 trials": round(1000 * slope / 1e6, 1),
        "driver busy": round((late[-1][3] - late[0][3]) / max(late[-1][0] - late[0][0], 1e-9), 3),
    }


def _watched(process: subprocess.Popen[bytes], journal: Path) -> Iterator[Sample]:
    """The driver once a second, while there are new trials."""
    read, trials = 0, 0
    while process.poll() is None:
        if journal.exists():
            with journal.open("rb") as file:
                file.seek(read)
                new = file.read()
            read += len(new)
            trials += new.count(b'"kind":"suggestion"')
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            except (OSError, IndexError):
                return
            if trials and pages:
                yield time.monotonic(), trials, float(pages * _PAGE), (int(fields[11]) + int(fields[12])) / _TICK
        time.sleep(1)


@contextmanager
def _cluster(nodes: int, slots: int) -> Iterator[str]:
    """Ray's address; nodes and their trials find the modules of this checkout."""
    import ray
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=slots)
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()
        os.environ.pop("PYTHONPATH")
        os.environ.update({} if before is None else {"PYTHONPATH": before})


def main(*, trials: int, nodes: int, slots: int, space: str, file: Path) -> None:
    """Print a line, and add it to a file."""
    found = measured(trials=trials, nodes=nodes, slots=slots, space=space)
    line = {"what": "nodes", "nodes": nodes, "space": space, **found}
    append(file, line)
    print(", ".join(f"{name} {value}" for name, value in line.items()), flush=True)
