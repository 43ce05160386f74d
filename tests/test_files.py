"""Files written whole or not at all, and what is said of them."""

from __future__ import annotations

import pytest

from tunelab.errors import StorageError
from tunelab.files import size_text, write_file


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (999_600, "1 MB"),
        (12_070_000_000, "12.1 GB"),
        (5 * 10**14, "500 TB"),
    ],
)
def test_sizes_for_people(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize("name", ["file/inside", "x" * 300, "gone/file"])
def test_what_cannot_be_written_is_told_with_a_remedy(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written: .*; free space or choose another folder"):
        write_file(tmp_path / name, b"data")
