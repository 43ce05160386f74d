"""Files written whole or not at all, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunelab.errors import StorageError
from tunelab.files import files_below, size_text, write_file


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


def test_only_the_folder_of_a_prefix_is_looked_at(tmp_path: Path) -> None:
    for key in ("a/0001-e1", "a/00010-e1", "a/b/0001", "c/0001-e1", "a/.hidden/x", "0001"):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert files_below(tmp_path, "a/0001") == ["a/0001-e1", "a/00010-e1"]
    assert files_below(tmp_path, "a/") == ["a/0001-e1", "a/00010-e1", "a/b/0001"]
    assert files_below(tmp_path, "0001") == ["0001"]
    assert files_below(tmp_path, "link/") == files_below(tmp_path, "a/.hidden/") == files_below(tmp_path, "none/") == []
    (tmp_path / "c").chmod(0)
    assert files_below(tmp_path, "a/b/") == ["a/b/0001"]
    (tmp_path / "c").chmod(0o755)
