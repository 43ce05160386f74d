"""Synthetic B-scans with labels: in memory, or as a folder. ``scenes`` draws them, ``waves`` has the formulas.

They exercise a search without data of one's own and are easier than the field: rays instead of waves, no antenna
model. A scan depends on the settings, the seed and its number alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from tunelab.data.dataset import Dataset, make_dataset
from tunelab.data.scene_settings import FILLS, SOILS, SyntheticSettings
from tunelab.data.scenes import Scene, scenes
from tunelab.data.splits import NO_TEST, assign_splits, without_positives
from tunelab.errors import StorageError, UsageError

__all__ = ["EMBEDDED", "FILLS", "SOILS", "SyntheticSettings", "embedded", "synthesize", "write_folder"]

EMBEDDED = SyntheticSettings(
    scans=200,
    traces=48,
    samples=160,
    shortest=0.75,
    seed=6,  # one whose soils, objects and positives come about as often as there, and which is about as hard
    window=24e-9,
    radius=(0.01, 0.095),
    relief=0.004,
    noise_db=45.0,
    direct_db=(0.0, 12.0),  # as measured on gprMax's homogeneous soils: -1 to 9, once 16
    jitter=0.002,
    gain_drift=0.002,
    wow=0.005,
)
"""Soils, objects and frequencies of gprMax's small data set, and about as hard; small enough for a core and a minute.

``python -m benchmarks.hardness`` measured it; docs/data.md has the numbers.
"""


def synthesize(settings: SyntheticSettings) -> Dataset:
    """The data set in memory, splits dealt with the settings' seed.

    Raises:
        DataError: when so few scans were asked for that a split lacks positives.
    """
    scans = list(scenes(settings))
    ids, positives = [s.id for s in scans], [int(s.labels.sum()) for s in scans]
    splits = assign_splits(ids, positives, [s.labels.size for s in scans], settings.seed)
    without = without_positives(splits, ids, positives)
    return make_dataset(
        scans={s.id: s.traces for s in scans},
        labels={s.id: s.labels for s in scans},
        splits=dict(zip(ids, splits, strict=True)),
        dt=settings.dt,
        source=f"synthetic(scans={settings.scans}, traces={settings.traces}, samples={settings.samples}, "
        f"noise_db={settings.noise_db:g}, seed={settings.seed})",
        notes=["synthetic: rays instead of waves, easier than the field"] + [NO_TEST] * bool(without),
    )


def embedded() -> Dataset:
    """The data set of a search that is given none, :data:`EMBEDDED`."""
    return replace(synthesize(EMBEDDED), source="embedded synthetic data set")


def write_folder(settings: SyntheticSettings, folder: Path) -> None:
    """Writes the data set as gprMax's merge tool leaves one: ``scans/<id>_merged.out`` and three CSV files.

    ``labels.csv`` comes last: a folder where writing was interrupted is refused when it is read. Scan after scan, so
    memory holds one.

    Args:
        settings: as for :func:`synthesize`; reading the folder with the same seed gives the same data set.
        folder: a new or an empty folder.

    Raises:
        UsageError: for a folder that holds something.
        StorageError: for a folder that cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder}: not an empty folder; name a new one, nothing is overwritten")
        (folder / "scans").mkdir(parents=True)
        labels, geometry, table = [], [], []
        for scan in scenes(settings):
            file = f"scans/{scan.id}_merged.out"
            _write_out(folder / file, scan, settings.dt)
            positions = [f"{x:.4f}" for x in scan.x]
            labels += [(scan.id, i, int(scan.labels[i]), position) for i, position in enumerate(positions)]
            for i, o in enumerate(scan.objects):
                measures = (o.x, o.cover, o.cover + o.radius, o.radius, 0.0)
                geometry.append((scan.id, i, o.kind, *(f"{m:.4f}" for m in measures)))
            sizes = (scan.labels.size, settings.samples, settings.dt, int(scan.labels.sum()), len(scan.objects))
            ground = scan.under.ground
            soil = (scan.soil, f"{ground.eps:.3f}", f"{ground.sigma:.5f}", f"{scan.frequency:.0f}")
            line = (f"{scan.step:.5f}", f"{ground.offset:.4f}", positions[0])
            table.append((scan.id, file, *sizes, *soil, *line))
        columns = "scan file n_traces n_samples dt_s n_positive n_objects soil_type soil_eps_r soil_sigma_S_m ricker_hz"
        _write_csv(folder / "scans.csv", f"{columns} trace_step_m tx_rx_offset_m first_midpoint_x_m", table)
        columns = "scan object kind x_m depth_top_m depth_centre_m radius_m wall_m"
        _write_csv(folder / "geometry.csv", columns, geometry)
        _write_csv(folder / "labels.csv", "scan trace label x_mid_m", labels)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error}); free space, or name another folder") from error


def _write_out(path: Path, scan: Scene, dt: float) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["Title"] = scan.id
        file.attrs["gprMax"] = "3.1.7"  # whose layout this is
        file.attrs["Iterations"] = scan.traces.shape[1]
        file.attrs["dt"] = dt
        file.attrs["nrx"] = 1
        file.create_dataset("rxs/rx1/Ez", data=scan.traces.T)


def _write_csv(path: Path, columns: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns.split())
        writer.writerows(rows)
