"""What a search costs its driver after many trials, and the point where the driver becomes the limit.

    python -m benchmarks.scale --trials 1000 3000 10000 --workers 100
    python -m benchmarks.scale --trials 1000 3000 10000 30000 100000 --workers 1000 --minutes 20
    python -m benchmarks.scale --nodes 4 --trials 60

Without ``--nodes``: tunelab's own scheduler and searcher with a real journal on disk, without Ray, in simulated time.
Trials of a shipped space have made-up curves, most of which never leave the floor. Proposals are drawn evenly, so that
what is seen is the driver's own share; at each number of trials ``tpe`` is asked for a few besides, with what is known
by then. Times are those of a core, ``disk ms`` what a record waits for the disk. ``--listeners`` adds what else the
driver does with each record: table, files that are kept, TensorBoard's and Optuna's logs. Its memory is that of the
process (RSS), its slope that of the trials between two lines. Lines go to ``--file``, the journal to a folder beside
it, from which a killed benchmark goes on as a search does.

With ``--nodes``: a whole search on Ray nodes of this machine; see :mod:`benchmarks.scale_nodes`.

Measured on 2 cores, one of which other loads used, ``families.yaml``, 1,000 workers, the journal in memory (``--file``
below ``/dev/shm``):

======= ============ ============= ======== ======== ===================
trials  drawn evenly an epoch told ``tpe``  RSS      MB per 1,000 trials
======= ============ ============= ======== ======== ===================
3,000   2.1 ms       0.17 ms       109 ms   260 MB   17.9
10,000  2.2 ms       0.19 ms       121 ms   396 MB   18.8
30,000  2.6 ms       0.17 ms       113 ms   780 MB   19.0
100,000 2.0 ms       0.18 ms       129 ms   2,117 MB 19.0
======= ============ ============= ======== ======== ===================

The journal grew by 4.3 MB per 1,000 trials. So nothing that a trial costs grows with the trials there are but memory,
which grows evenly. After 100,000 trials of 2.2 epochs each, with epochs of one second, the driver is the limit at 765
workers with even draws and at 16 with ``tpe``; with epochs of a minute at 60 times as many. A disk that takes 2.4 ms
for a record adds 15 ms to a trial, and is then the limit of even draws, at some 120 workers.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.lines import accumulate
from benchmarks.simulated import Simulated, space_of

WINDOW = 1000
"""Newest calls that a time is the mean of."""
FLEETS = (10, 100, 1000)


def measured(simulated: Simulated, trials: int) -> dict[str, Any]:
    """What stands in a line beside its number of trials."""
    before, epochs = memory(), simulated.counts["result"]
    known, disk = len(simulated.recorder.board.trials), simulated.journal.seconds
    records = len(simulated.journal.records)
    simulated.run(trials)
    gained = max(len(simulated.recorder.board.trials) - known, 1)
    rss = memory()
    line = {f"{kind} ms": round(1000 * mean(took[-WINDOW:]), 4) for kind, took in simulated.took.items()}
    written = max(len(simulated.journal.records) - records, 1)
    return {
        **line,
        "tpe ms": round(1000 * mean(simulated.asked_of_tpe()), 2),
        "disk ms": round(1000 * (simulated.journal.seconds - disk) / written, 4),
        "rss MB": round(rss / 1e6, 1),
        "MB per 1000 trials": round((rss - before) / 1e6 / gained * 1000, 2),
        "epochs per trial": round((simulated.counts["result"] - epochs) / gained, 3),
        "records per trial": round(written / gained, 3),
        "journal MB": round(simulated.journal._size / 1e6, 1),
        "replay s": round(simulated.replayed, 2),
    }


def memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def busy(line: Mapping[str, Any], workers: int, epoch_seconds: float = 1.0, *, tpe: bool = False) -> float:
    """Share of its time that the driver is busy with a fleet whose epochs take so long; 1: it is the limit.

    Args:
        line: of :func:`measured`.
        workers: trials at a time.
        epoch_seconds: of each.
        tpe: whether proposals are those of ``tpe``.
    """
    epochs = line["epochs per trial"]
    proposal = line["tpe ms"] if tpe else line["proposal ms"]
    disk = line["disk ms"] * line["records per trial"]
    taken_up = max(line["records per trial"] - epochs - 4, 0.0) / 3  # a wait, a resumption and a start each
    trial = (
        proposal
        + (1 + taken_up) * (line["start ms"] + line.get("end ms", 0.0))
        + taken_up * line.get("taken up ms", 0.0)
        + epochs * line["result ms"]
        + disk
    )
    return workers / (epochs * epoch_seconds) * trial / 1000


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """For people."""
    names = [name for name in lines[-1] if name not in ("what", "workers", "space", "listeners")]
    rows = [names, *([str(line.get(name, "")) for name in names] for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    return "\n".join("  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)) for row in rows)


def verdict(line: Mapping[str, Any]) -> list[str]:
    """Where the driver becomes the limit."""
    said = []
    for sampler in ("random", "tpe"):
        tpe = sampler == "tpe"
        shares = [f"{workers:,}: {100 * busy(line, workers, tpe=tpe):.1f} %" for workers in FLEETS]
        most = int(1 / busy(line, 1, tpe=tpe))
        said.append(
            f"after {line['trials']:,} trials, epochs of one second, {sampler}: the driver of so many workers is busy "
            f"{', '.join(shares)} of the time; the limit is {most:,} workers"
        )
    return said


def main() -> None:
    """Print a line for each number of trials, and the driver's limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--workers", type=int, default=1000, help="in simulated time (default: %(default)s)")
    parser.add_argument("--space", default="families.yaml", help="that comes with tunelab (default: %(default)s)")
    parser.add_argument("--listeners", action="store_true", help="all that the driver does with each record")
    parser.add_argument("--file", type=Path, default=Path("scale.jsonl"), help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no line after so many")
    parser.add_argument("--nodes", type=int, help="a whole search on so many Ray nodes of this machine")
    parser.add_argument("--slots", type=int, default=2, help="of a node (default: %(default)s)")
    args = parser.parse_args()
    if args.nodes:
        from benchmarks import scale_nodes

        for trials in args.trials:
            scale_nodes.main(trials=trials, nodes=args.nodes, slots=args.slots, space=args.space, file=args.file)
        return
    keys = {"what": "driver", "space": args.space, "workers": args.workers, "listeners": args.listeners}
    folder = args.file.with_suffix(".run") / f"{args.workers}-{'all' if args.listeners else 'alone'}"
    made: list[Simulated] = []

    def do(wanted: Mapping[str, Any]) -> dict[str, Any]:
        if not made:
            space = space_of(args.space)
            options = {"workers": args.workers, "trials": max(args.trials), "listeners": args.listeners}
            made.append(Simulated(folder, space, **options))
        return measured(made[0], wanted["trials"])

    lines = []
    try:
        for line in accumulate(args.file, [{**keys, "trials": n} for n in sorted(args.trials)], do, args.minutes):
            lines.append(line)
            print(table([line]), flush=True)
    finally:
        for one in made:
            one.close()
    if lines:
        print(table(lines))
        print("\n".join(verdict(lines[-1])))


if __name__ == "__main__":
    main()
