"""What a search takes along to a cluster, and that it can be used where it arrives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunelab.cluster import package
from tunelab.cluster.package import packed, space_of
from tunelab.errors import UsageError
from tunelab.space import Space, load_space, shipped

OWN = "def family(params, samples):\n    return None\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "taken").mkdir()
    return tmp_path / "taken"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's modules, on the path."""
    (tmp_path / "mine").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    before = set(sys.modules)
    yield tmp_path / "mine"
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.fixture
def space(tmp_path: Path) -> Callable[..., tuple[Space, Path]]:
    def of(*families: str, name: str = "radar.yaml") -> tuple[Space, Path]:
        path = tmp_path / name
        started = "".join(f"  - {{family: '{family}'}}\n" for family in families)
        path.write_text(f"start_from:\n{started}" if families else "start_from:\n  - {family: lstm}\n")
        return load_space(path), path

    return of


def test_this_code_and_the_spaces_are_taken_along(folder: Path) -> None:
    packed(folder, load_space(shipped("quick.yaml")), None)
    assert {path.name for path in folder.iterdir()} == {"tunelab", "search_spaces"}
    taken = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    there = package.__file__
    assert there is not None
    here = Path(there).parents[2]
    assert taken == {str(path.relative_to(here)) for path in (here / "tunelab").rglob("*.py")}
    assert not [path for path in folder.rglob("*") if path.name == "__pycache__" or path.name.startswith(".")]
    assert (folder / "search_spaces" / "quick.yaml").read_bytes() == shipped("quick.yaml").read_bytes()


def test_what_arrived_is_what_runs_there(folder: Path, space: Callable[..., tuple[Space, Path]]) -> None:
    packed(folder, *space())
    code = (
        "import json, tunelab, tunelab.handed_over as h; from tunelab.space import load_space, shipped\n"
        "from pathlib import Path\n"
        "print(json.dumps([h.__file__, str(shipped('quick.yaml')), load_space(Path('space/radar.yaml')).name]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '')\n{code}"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    module, quick, name = json.loads(done.stdout)
    assert Path(module) == folder / "tunelab" / "handed_over.py"
    assert Path(quick).resolve().is_relative_to(folder)
    assert name == "radar", "the file keeps its name, since the space may have none of its own"


def test_the_users_modules_and_packages_are_taken_along(
    folder: Path, beside: Path, space: Callable[..., tuple[Space, Path]]
) -> None:
    (beside / "own_module.py").write_text(OWN)
    (beside / "own_other.py").write_text(OWN)
    (beside / "own_package" / "deep").mkdir(parents=True)
    (beside / "own_package" / ".git").mkdir()
    for path in ("own_package/__init__.py", "own_package/deep/__init__.py", "own_package/deep/net.py"):
        (beside / path).write_text(OWN)
    (beside / "own_package" / "weights.txt").write_text("1 2 3")
    given, path = space("own_module:family", "own_package.deep.net:family", "tunelab.models.lstm:build", "lstm")
    packed(folder, given, path)
    assert (folder / "own_module.py").read_text() == OWN
    assert (folder / "own_package" / "deep" / "net.py").read_text() == OWN
    assert (folder / "own_package" / "weights.txt").read_text() == "1 2 3"
    assert not (folder / "own_package" / ".git").exists()
    assert not (folder / "own_other.py").exists(), "what no family names stays here"
    assert {path.name for path in folder.iterdir()} == {
        *("tunelab", "search_spaces", "space", "own_module.py", "own_package")
    }


def test_a_family_without_dimensions_is_not_asked_for_them_here(folder: Path, beside: Path, tmp_path: Path) -> None:
    (beside / "own_brings.py").write_text("raise ImportError('a light install has no Keras')")
    path = tmp_path / "mine.yaml"
    path.write_text("families:\n  own_brings:family:\nstart_from:\n  - {family: 'own_brings:family', units: 3}\n")
    packed(folder, space_of(path), path)
    assert (folder / "own_brings.py").exists()
    assert (folder / "space" / "mine.yaml").read_bytes() == path.read_bytes()


def test_a_module_that_is_not_found(folder: Path, space: Callable[..., tuple[Space, Path]]) -> None:
    given, path = space("own_nowhere:family")
    with pytest.raises(UsageError) as told:
        packed(folder, given, path)
    assert str(told.value) == f"{path}: family: the module own_nowhere is not found here; put it on PYTHONPATH"


def test_a_folder_without_init_is_no_module(
    folder: Path, beside: Path, space: Callable[..., tuple[Space, Path]]
) -> None:
    (beside / "own_data").mkdir()
    with pytest.raises(UsageError, match="the module own_data is not found here"):
        packed(folder, *space("own_data.net:family"))


def test_too_much_is_refused_with_its_size(
    folder: Path, beside: Path, space: Callable[..., tuple[Space, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (beside / "own_large").mkdir()
    (beside / "own_large" / "__init__.py").write_text(OWN)
    given, path = space("own_large:family")
    packed(folder, given, path)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    monkeypatch.setattr(package, "MOST_BYTES", size + 1000)
    (beside / "own_large" / "scans.npz").write_bytes(b"x" * 2000)
    other = folder.with_name("other")
    other.mkdir()
    with pytest.raises(UsageError, match=rf"{path}: with the modules of its families .*; keep data out of their pack"):
        packed(other, given, path)
