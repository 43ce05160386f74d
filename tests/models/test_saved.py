"""Models that were saved, read back by a process that knows of tunelab no more than the README says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import small

from tunelab.models import FAMILIES, build_model

pytestmark = pytest.mark.tf

READ = """
import sys
from pathlib import Path

import keras
import numpy as np
import tunelab.models.plain_stack

folder = Path(sys.argv[1])
given = dict(np.load(folder / "given.npz"))
answers = {path.stem: keras.models.load_model(path).predict_on_batch(given) for path in folder.glob("*.keras")}
np.savez(folder / "answers.npz", **answers)
"""


def test_every_family_is_read_back_with_one_import(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {"traces": rng.normal(size=(2, 7, 40)).astype(np.float32), "lengths": np.array([7, 4], np.int32)}
    np.savez(tmp_path / "given.npz", **given)  # type: ignore[arg-type]
    before = {}
    for family in FAMILIES:
        model = build_model(small(family, plain=True, **{"bidirectional": True} if family == "lstm" else {}), 40)
        model.save(tmp_path / f"{family}.keras")
        before[family] = model.predict_on_batch(given)
    subprocess.run([sys.executable, "-c", READ, tmp_path], check=True, timeout=300, capture_output=True)
    after = np.load(tmp_path / "answers.npz")
    for family, answer in before.items():
        np.testing.assert_allclose(after[family], answer, atol=1e-6, err_msg=family)
