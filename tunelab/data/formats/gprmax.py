"""What gprMax 3.x and its merge tool write (``.out``, ``.h5``): ``rxs/rx1/Ez``, other receivers and components.

HDF5; root attribute ``dt`` in seconds; each component has shape (sample, trace), or (sample,) for a single trace.
Layout: docs.gprmax.com, "Output data". Several components become channels: those of a trace are joined along its
samples, in the order in which they were asked for.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.data.formats import hdf5
from tunelab.data.formats.guard import check_size, seconds
from tunelab.data.formats.reader import Header, make_header
from tunelab.errors import DataError, UsageError

DEFAULT = ("rx1/Ez",)
"""What is read when nothing is asked for."""

_COMPONENT = re.compile(r"rx[1-9][0-9]{0,4}/[EHI][xyz]")


def check_components(components: tuple[str, ...]) -> None:
    """Refuses words that name no component of a gprMax file, whatever the file.

    Args:
        components: such as ``("rx1/Ez", "rx2/Hx")``.

    Raises:
        UsageError: names the word and the rule.
    """
    for word in components:
        if not isinstance(word, str) or not _COMPONENT.fullmatch(word):
            raise UsageError(
                f"components: {word!r} is none; write the receiver from rx1 on, a slash and Ex, Ey, Ez, Hx, Hy, Hz, "
                "Ix, Iy or Iz, for example rx1/Ez"
            )
    twice = sorted({word for word in components if components.count(word) > 1})
    if twice:
        raise UsageError(f"components: {', '.join(twice)} is named twice; name each component once")


def recognised(path: Path) -> bool:
    """Whether an HDF5 file is gprMax's: it has ``rxs`` and no ``x``. A ``.out`` without either is told as gprMax's."""
    with hdf5.open_file(path) as file:
        return not hdf5.has(file, "x") and (hdf5.has(file, "rxs") or path.suffix.lower() == ".out")


def header(path: Path, components: tuple[str, ...]) -> Header:
    """Traces, samples of all components together, and ``dt``."""
    words = components or DEFAULT
    with hdf5.open_file(path) as file:
        shape = _datasets(path, file, words)[0].shape
        dt = seconds(path, hdf5.interval(path, file))
    n_samples, n_traces = shape if len(shape) == 2 else (*shape, 1)
    one = make_header(path, (n_traces, n_samples), ", ".join(f"rxs/{word}" for word in words), dt=dt)
    return replace(one, n_samples=one.n_samples * len(words), channels=len(words))


def traces(path: Path, components: tuple[str, ...]) -> NDArray[Any]:
    """The components as float32, joined along the samples."""
    with hdf5.open_file(path) as file:
        found = _datasets(path, file, components or DEFAULT)
        samples = found[0].shape[0]
        joined = np.empty((1 if found[0].ndim == 1 else found[0].shape[1], samples * len(found)), dtype=np.float32)
        for i, dataset in enumerate(found):
            joined[:, i * samples : (i + 1) * samples] = dataset.astype(np.float32)[...].T
    return joined


def _datasets(path: Path, file: Any, words: tuple[str, ...]) -> list[Any]:
    """The datasets of the components, once they were found to be there and to have one shape."""
    rxs = hdf5.inside(file, "rxs") if hdf5.has(file, "rxs") else None
    found = []
    for word in words:
        if hdf5.is_group(rxs) and _is_missing(rxs, word):
            raise DataError(
                f"{path}: no rxs/{word} (there is {', '.join(_there(rxs)[:24]) or 'nothing'}); ask for components that "
                "are there, or simulate it"
            )
        dataset = hdf5.dataset(path, file, f"rxs/{word}")
        if dataset.ndim not in (1, 2):
            raise DataError(
                f"{path}: rxs/{word} has shape {dataset.shape}; gprMax writes (samples, traces) or (samples,)"
            )
        found.append(dataset)
    shape = found[0].shape
    for word, dataset in zip(words, found, strict=True):
        if dataset.shape != shape:
            raise DataError(
                f"{path}: rxs/{word} has shape {dataset.shape}, but rxs/{words[0]} {shape}; components that are read "
                "together have one shape: merge the file again"
            )
    check_size(path, f"{len(found)} components claim", (len(found), *shape), 4)
    return found


def _is_missing(rxs: Any, word: str) -> bool:
    """Whether the receiver or the component is not there; what is no group or leads away is judged elsewhere."""
    receiver, component = word.split("/")
    if not hdf5.has(rxs, receiver):
        return True
    group = hdf5.inside(rxs, receiver)
    return hdf5.is_group(group) and not hdf5.has(group, component)


def _there(rxs: Any) -> list[str]:
    """The components of a file, following no link out of it."""
    words = []
    for receiver in list(rxs.keys())[:64]:
        group = hdf5.inside(rxs, receiver)
        if hdf5.is_group(group):
            words += [ascii(f"{receiver}/{name}") for name in list(group.keys())[:16]]
    return words
