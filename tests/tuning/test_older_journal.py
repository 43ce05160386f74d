"""A journal that is an older copy of itself, and checkpoints that are further: none leaves a gap in what was told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunelab.tuning.record import Recorder
from tunelab.tuning.retention import Retention

pytestmark = pytest.mark.ray


def test_only_checkpoints_that_join_what_was_told_are_gone_on_from(
    tmp_path: Path, recorder_in: Callable[[Path], Recorder], told: Callable[..., dict[str, Any]]
) -> None:
    recorder = recorder_in(tmp_path)
    recorder.suggestion("0001", "", 0, {"family": "lstm"}, {})
    for epoch in (1, 2):
        recorder.result("0001", told(epoch, weights="", tune_average_precision=0.1))
    for trial in ("0001", "0002"):  # the second is not known at all
        folder = tmp_path / "checkpoints" / trial
        folder.mkdir(parents=True)
        for number in range(1, 6):
            (folder / f"s{number:06d}.ckpt").write_bytes(b"x")
    (note,) = Retention(tmp_path, recorder.board, 1).clean()
    assert note.startswith("6 checkpoints are of epochs that the journal does not know, and are not gone on from: ")
    left = [path.relative_to(tmp_path / "checkpoints").as_posix() for path in tmp_path.glob("checkpoints/*/*")]
    assert sorted(left) == ["0001/s000001.ckpt", "0001/s000002.ckpt", "0001/s000003.ckpt", "0002/s000001.ckpt"]
    assert Retention(tmp_path, recorder.board, 1).clean() == []
