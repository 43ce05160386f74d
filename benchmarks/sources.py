"""What the benchmarks of the data room share: folders of scans that are quick to make, and alternation of two sides."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import h5py
import numpy as np

from tunelab.data.prepared import AS_RECORDED, CacheOptions, Prepared, prepared_from
from tunelab.sections import DataOptions


def noise_folder(folder: Path, scans: int, traces: int, samples: int, *, compressed: bool = False) -> None:
    """A folder of scans of noise, labelled, as gprMax's merge tool lays them out; kept when it is there already.

    Args:
        folder: where to.
        scans: how many.
        traces: of each.
        samples: of each trace.
        compressed: store them with gzip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["scan,trace,label"]
    for i in range(scans):
        name = f"n{i:05}"
        rows += [f"{name},{trace},{int(trace % 8 == 0)}" for trace in range(traces)]
        path = folder / f"{name}_merged.out"
        if path.exists():
            continue
        rng = np.random.default_rng(i)
        values = rng.standard_normal((samples, traces), dtype=np.float32)
        if compressed:
            values = np.round(values, 1)  # noise that gzip can shrink somewhat, as it does recordings
        with h5py.File(path.with_suffix(".tmp"), "w") as file:
            file.attrs["dt"] = 4.7e-12
            file.create_dataset("rxs/rx1/Ez", data=values, compression="gzip" if compressed else None)
        path.with_suffix(".tmp").rename(path)
    labels, text = folder / "labels.csv", "\n".join(rows) + "\n"
    if not labels.exists() or labels.read_text() != text:  # another time of change is another source
        labels.write_text(text)


def access(folder: Path, cache: Path, workers: int = 1) -> Prepared:
    """A folder as it was recorded, by way of a cache."""
    place = CacheOptions(cache=cache, workers=workers)
    return prepared_from(folder, options=DataOptions(), chains=(AS_RECORDED,), seed=0, cache=place)


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, the sides taking turns, and every second round in the other order."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            begun = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - begun)
    return times


def show(times: Mapping[str, list[float]]) -> None:
    """A line a side, and the ratio of the medians of the first to the second."""
    for name, values in times.items():
        print(f"{name:<34} median {median(values):8.3f} s   ({', '.join(f'{value:.3f}' for value in values)})")
    first, second = list(times)[:2]
    print(f"ratio of the medians               {median(times[first]) / median(times[second]):8.2f}")


def memory() -> tuple[int, int]:
    """Unique and proportional set size of this process, bytes (Linux: private pages, and Pss)."""
    found: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        found[name.rstrip(":")] = 1024 * int(value)
    return found["Private_Clean"] + found["Private_Dirty"], found["Pss"]


def scratch() -> Path:
    """Where the benchmarks put their data: ``$TUNELAB_BENCHMARKS``, else a folder in the temporary one."""
    return Path(os.environ.get("TUNELAB_BENCHMARKS") or Path(tempfile.gettempdir(), "tunelab-benchmarks"))
