"""Checkpoints: what was written comes back, and no damage of any file goes unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tunelab.checkpoint import pack, read_checkpoint, write_checkpoint
from tunelab.errors import StateError, StorageError

ARRAYS = {"model": [np.arange(6.0).reshape(2, 3), np.array(3)], "best": [np.ones(4, np.float32)], "none": []}
STATE = {"epoch": 3, "best": None, "seconds": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "new", ARRAYS, STATE)
    return tmp_path / "new"


def test_what_was_written_comes_back(folder: Path) -> None:
    arrays, state = read_checkpoint(folder, ARRAYS)
    assert state == STATE
    assert arrays.keys() == ARRAYS.keys()
    for name, some in ARRAYS.items():
        for found, array in zip(arrays[name], some, strict=True):
            np.testing.assert_array_equal(found, array, strict=True)
    write_checkpoint(folder, ARRAYS, {"epoch": 4})
    assert read_checkpoint(folder, ["best"])[1] == {"epoch": 4}


def test_no_flipped_bit_goes_unnoticed(folder: Path) -> None:
    rng = np.random.default_rng(1)
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == ["best.npz", "model.npz", "none.npz", "state.json"]
    for i in range(200):
        path = files[i % len(files)]
        whole = path.read_bytes()
        raw = bytearray(whole)
        raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with pytest.raises(StateError, match=f"{path.name}: does not match its digest; an older checkpoint"):
            read_checkpoint(folder, ARRAYS)
        path.write_bytes(whole)
    read_checkpoint(folder, ARRAYS)


@pytest.mark.parametrize("name", ["state.json", "best.npz"])
def test_no_cut_goes_unnoticed(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for length in range(len(whole)):
        (folder / name).write_bytes(whole[:length])
        with pytest.raises(StateError, match=f"{name}: does not match its digest"):
            read_checkpoint(folder, ARRAYS)


@pytest.mark.parametrize("name", ["state.json", "best.npz"])
def test_a_missing_file_is_told(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(StateError, match=f"no whole checkpoint: .*{name}"):
        read_checkpoint(folder, ARRAYS)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**STATE, "digests": {}}), json.dumps({"digests": []})])
def test_a_state_without_its_digest_is_refused(folder: Path, text: str) -> None:
    (folder / "state.json").write_text(text)
    with pytest.raises(StateError, match=r"state\.json: does not match its digest"):
        read_checkpoint(folder, ARRAYS)


def test_arrays_that_the_state_does_not_tell_of_are_refused(folder: Path) -> None:
    (folder / "more.npz").write_bytes(pack([np.ones(2)]))
    with pytest.raises(StateError, match=r"more\.npz: does not match its digest"):
        read_checkpoint(folder, [*ARRAYS, "more"])


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file: cannot be made: File exists; free space or choose another"):
        write_checkpoint(tmp_path / "file", ARRAYS, STATE)
