"""The samples of one shard, for every chain that is wanted: read, checked, preprocessed, summed, hashed and written.

A scan is read once for all chains. A shard counts as done when its facts lie beside it: they are written last, so a
killed preparation goes on with the shards that have none.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from tunelab.data.formats import read_traces
from tunelab.data.manifest import FileFacts, LeftOutFacts, moments_name, shard_name
from tunelab.data.preprocess import apply
from tunelab.data.resample import resample_traces, resampled_dt
from tunelab.data.samples import digest_of, moments_of, silent_traces
from tunelab.data.shards import STORED, DType
from tunelab.errors import DataError, StorageError
from tunelab.files import write_file
from tunelab.preprocessing import Preprocessing

TOP = 15
"""In float16 the largest sample of a scan lies between 2^(TOP - 1) and 2^TOP: below that, more than 28 binary orders
of magnitude have a meaning, about 170 dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A scan to be read."""

    scan: str
    file: Path
    traces: int
    samples: int
    """As the file has them, of all channels together."""
    channels: int
    dt: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the result of a chain goes."""

    folder: Path
    chain: Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to be made."""

    shard: int
    pieces: tuple[Piece, ...]
    targets: tuple[Target, ...]
    components: tuple[str, ...]
    resample: int | None
    dtype: DType


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScanFacts(_Section):
    """A scan that was stored."""

    scan: str
    row: int
    silent: int
    digest: str
    exponent: int


class ShardFacts(_Section):
    """What became of a shard."""

    scans: list[ScanFacts]
    left_out: list[LeftOutFacts]
    files: dict[str, FileFacts]
    changed: float
    """Sum of the squares of what storing changed."""
    total: float
    """Sum of the squares of the samples."""
    largest: float
    """The largest change of a sample over the largest magnitude of its scan."""


def facts_path(folder: Path, shard: int) -> Path:
    """Where a shard's facts lie while the data set is being made."""
    return folder / f"{shard:05d}.json"


def read_facts(folder: Path, shard: int) -> ShardFacts | None:
    """The facts of a shard that is done; None where it is not, or not whole."""
    try:
        facts = ShardFacts.model_validate_json(facts_path(folder, shard).read_bytes())
        whole = all((folder / name).stat().st_size == file.bytes for name, file in facts.files.items())
    except (OSError, ValidationError):
        return None
    return facts if whole else None


def build_shard(task: ShardTask) -> int:
    """Make a shard of every target.

    Returns:
        The number of scans that were read.

    Raises:
        StorageError: it could not be written; nothing half-written is counted.
    """
    try:
        with ExitStack() as stack:
            writers = [_Writer(target.folder, task.shard, task.dtype, stack) for target in task.targets]
            for piece in task.pieces:
                _store(piece, task, writers)
            for writer in writers:
                writer.close()
    except OSError as error:
        place = task.targets[0].folder.parent
        raise StorageError(
            f"{place}: cannot be written: {error.strerror}; free space there (tunelab data prune) or choose another "
            "--cache, and run the command again: it goes on where it stopped"
        ) from error
    return len(task.pieces)


def _store(piece: Piece, task: ShardTask, writers: list[_Writer]) -> None:
    try:
        raw = read_traces(piece.file, task.components)
        if raw.shape != (piece.traces, piece.samples):
            raise DataError(f"{piece.file}: changed while it was read; prepare again once nothing writes to it")
        results = [_preprocessed(raw, piece, task, target.chain) for target in task.targets]
    except DataError as error:
        for writer in writers:
            writer.left_out.append(LeftOutFacts(scan=piece.scan, reason=str(error)))
        return
    digest, silent = digest_of(raw), silent_traces(raw)
    for writer, traces in zip(writers, results, strict=True):
        writer.add(piece.scan, traces, digest, silent)


def _preprocessed(raw: NDArray[np.float32], piece: Piece, task: ShardTask, chain: Preprocessing) -> NDArray[np.float32]:
    traces, dt = raw, piece.dt
    channels = piece.channels
    if task.resample is not None:
        before = piece.samples // channels
        parts = [resample_traces(part, task.resample) for part in np.split(raw, channels, axis=1)]
        traces = np.concatenate(parts, axis=1) if channels > 1 else parts[0]
        dt = None if dt is None else resampled_dt(dt, before, task.resample)
    traces = apply(traces, dt, chain, channels=channels)
    if not np.isfinite(traces).all():
        raise DataError(f"{piece.file}: beyond float32 once preprocessed ({chain.describe()}); scale the recording")
    return traces


class _Writer:
    """The files of one shard under temporary names, hashed as they are written."""

    def __init__(self, folder: Path, shard: int, dtype: DType, stack: ExitStack) -> None:
        self._folder = folder
        self._shard = shard
        self._dtype = dtype
        self._samples, self._moments = (_Hashed(folder / name(shard), stack) for name in (shard_name, moments_name))
        self._row = 0
        self._scans: list[ScanFacts] = []
        self.left_out: list[LeftOutFacts] = []
        self._changed = self._total = self._largest = 0.0

    def add(self, scan: str, traces: NDArray[np.float32], digest: str, silent: int) -> None:
        exponent, read = 0, traces
        if self._dtype == "float32":
            stored = np.ascontiguousarray(traces, STORED["float32"])
        else:
            peak = float(np.abs(traces).max())
            exponent = int(np.frexp(peak)[1]) - TOP if peak else 0
            stored = np.ldexp(traces, -exponent).astype(STORED["float16"])
            read = np.ldexp(stored.astype(np.float32), exponent)
            change = read.astype(np.float64) - traces
            self._changed += float(np.vdot(change, change))
            self._total += float(np.vdot(wide := traces.astype(np.float64), wide))
            self._largest = max(self._largest, float(np.abs(change).max()) / peak if peak else 0.0)
        self._samples.write(stored.data)
        # of what will be read: a model's first layer takes them for the statistics of its input
        self._moments.write(np.ascontiguousarray(moments_of(read), STORED["float32"]).data)
        self._scans.append(ScanFacts(scan=scan, row=self._row, silent=silent, digest=digest, exponent=exponent))
        self._row += len(traces)

    def close(self) -> None:
        files = {hashed.path.name: hashed.close() for hashed in (self._samples, self._moments)}
        facts = ShardFacts(
            scans=self._scans,
            left_out=self.left_out,
            files=files,
            changed=self._changed,
            total=self._total,
            largest=self._largest,
        )
        write_file(facts_path(self._folder, self._shard), facts.model_dump_json().encode())


class _Hashed:
    """A file that gets its name once it is whole and on disk."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = self._temporary.open("wb")
        stack.callback(self._drop)
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, data: memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._bytes += data.nbytes

    def close(self) -> FileFacts:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        return FileFacts(bytes=self._bytes, sha256=self._digest.hexdigest())

    def _drop(self) -> None:
        """After :meth:`close` nothing; before it, leave no trace."""
        if not self._file.closed:
            try:
                self._file.close()
            except OSError:  # what is still buffered does not fit on the disk, and is not wanted
                pass
            self._temporary.unlink(missing_ok=True)
