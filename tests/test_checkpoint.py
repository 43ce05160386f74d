"""Checkpoints: what was packed comes back, no damage goes unnoticed, and no claim is believed."""

from __future__ import annotations

import hashlib
import io
import json
import math
import subprocess
import sys
import zipfile
from typing import Any

import numpy as np
import pytest

from tunelab.checkpoint import digest, pack, pack_checkpoint, unpack, unpack_checkpoint
from tunelab.errors import StateError

ARRAYS = {"model": [np.arange(6.0).reshape(2, 3), np.array(3)], "best": [np.ones(4, np.float32)], "none": []}
STATE = {"epoch": 3, "best": None, "seconds": 0.5}
WHOLE = pack_checkpoint(ARRAYS, STATE)


def same(arrays: Any) -> None:
    assert arrays.keys() == ARRAYS.keys()
    for name, some in ARRAYS.items():
        for found, array in zip(arrays[name], some, strict=True):
            np.testing.assert_array_equal(found, array, strict=True)


def test_what_was_packed_comes_back() -> None:
    arrays, state = unpack_checkpoint(WHOLE, "here")
    assert state == STATE
    same(arrays)
    assert math.isnan(unpack_checkpoint(pack_checkpoint({}, {"f1": math.nan}), "here")[1]["f1"])


def test_the_same_content_is_the_same_bytes() -> None:
    assert pack_checkpoint(ARRAYS, STATE) == WHOLE


def test_a_checkpoint_is_a_line_and_an_archive_that_numpy_reads() -> None:
    line, _, rest = WHOLE.partition(b"\n")
    assert line.decode() == hashlib.sha256(rest).hexdigest()
    with np.load(io.BytesIO(rest), allow_pickle=False) as file:
        assert file.files == ["model/0000", "model/0001", "best/0000", "state"]
        np.testing.assert_array_equal(file["model/0000"], ARRAYS["model"][0])
        assert json.loads(file["state"].tobytes())["state"] == STATE


def test_no_flipped_bit_goes_unnoticed() -> None:
    rng = np.random.default_rng(1)
    places = [*range(80), *rng.integers(len(WHOLE), size=920)]  # all of the first line and the start of what follows
    for place in places:
        raw = bytearray(WHOLE)
        raw[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(StateError, match=r"^x\.ckpt: does not match its digest$"):
            unpack_checkpoint(bytes(raw), "x.ckpt")
    same(unpack_checkpoint(WHOLE, "x.ckpt")[0])


def test_no_cut_and_nothing_added_goes_unnoticed() -> None:
    for raw in (*(WHOLE[:length] for length in range(len(WHOLE))), WHOLE + b"\0"):
        with pytest.raises(StateError, match="does not match its digest"):
            unpack_checkpoint(raw, "x.ckpt")


def signed(rest: bytes) -> bytes:
    return digest(rest).encode() + b"\n" + rest


def archive(*, compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, raw in members.items():
            file.writestr(f"{name}.npy", raw)
    return buffer.getvalue()


def npy(shape: tuple[int, ...], values: bytes, descr: str = "<f8") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + values


STORED = archive(state=npy((3,), bytes(24)))
DIRECTORY = STORED.rindex(b"PK\x01\x02")
HOSTILE = {
    "a claim of terabytes": (archive(state=npy((2**40,), bytes(8))), "claims 8,796,093,022,208 bytes, but 8 are"),
    "a negative claim": (archive(state=npy((-1, -1), bytes(8))), "claims 8 bytes, but 8 are stored"),
    "objects": (archive(state=npy((1,), bytes(8), "|O")), "dtype object; numbers are needed .*never unpickled"),
    "a bomb": (
        archive(state=npy((2**24,), bytes(2**27)), compression=zipfile.ZIP_DEFLATED),
        "holds compressed arrays, which are never written",
    ),
    "a size of gigabytes in the directory": (
        STORED[: DIRECTORY + 20] + b"\x00\x00\x00\xf0" * 2 + STORED[DIRECTORY + 28 :],
        "claims 4,026,531,840 bytes, but",
    ),
    "no archive": (b"what is this", "not a zip file"),
    "no header": (archive(state=b"\x93NUMPY\x01\x00"), "EOF"),
    "a header that is no dictionary": (archive(state=b"\x93NUMPY\x01\x00\x02\x00[)"), "header"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_with_a_right_digest_are_refused(name: str) -> None:
    raw, text = HOSTILE[name]
    with pytest.raises(StateError, match=rf"x\.ckpt: is no checkpoint of this version \(.*{text}"):
        unpack_checkpoint(signed(raw), "x.ckpt")
    with pytest.raises(StateError, match=rf"weights: .*{text}.*; the file is damaged: copy it again, or train anew"):
        unpack(raw)


def test_claims_take_no_memory() -> None:
    """In a process that may have 64 MB more than it has when all is imported."""
    code = (
        "import sys, resource, tunelab.checkpoint as c\n"
        "with open('/proc/self/statm') as file:\n    used = int(file.read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))\n"
        "for raw in sys.stdin.read().split():\n"
        "    try:\n        c.unpack(bytes.fromhex(raw))\n"
        "    except c.StateError as error:\n"
        "        assert 'allocate' not in str(error) and 'Memory' not in str(error)\n"
        "    else:\n        raise SystemExit('taken')\n"
    )
    told = "\n".join(raw.hex() for raw, _ in HOSTILE.values())
    done = subprocess.run([sys.executable, "-c", code], input=told, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def state_of(content: object) -> bytes:
    raw = json.dumps(content).encode()
    return archive(state=npy((len(raw),), raw, "|u1"))


@pytest.mark.parametrize(
    "rest",
    [
        archive(other=npy((1,), bytes(8))),
        state_of([]),
        state_of({"arrays": {}}),
        state_of({"arrays": {"model": 1}, "state": {}}),
        state_of({"arrays": {"model": "1"}, "state": {}}),
        archive(state=npy((2,), b"{]", "|u1")),
    ],
)
def test_content_of_another_version_is_refused(rest: bytes) -> None:
    with pytest.raises(StateError, match=r"x\.ckpt: is no checkpoint of this version"):
        unpack_checkpoint(signed(rest), "x.ckpt")


def test_packed_arrays_come_back_in_order_and_objects_are_never_packed() -> None:
    arrays = [np.arange(i, dtype=np.float32) for i in range(12)]
    found = unpack(pack(arrays))
    for one, other in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        pack([np.array([{"a": 1}], dtype=object)])
    with pytest.raises(ValueError, match="allow_pickle=False"):
        pack_checkpoint({"model": [np.array([{"a": 1}], dtype=object)]}, {})
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_flipped_weights_are_noticed_by_their_checksums() -> None:
    raw = pack([np.random.default_rng(0).normal(size=1000)])
    for place in range(200, 8000, 97):
        with pytest.raises(StateError, match="Bad CRC-32"):
            unpack(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :])
