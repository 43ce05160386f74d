"""What a search takes along to its cluster: this code, the spaces that come with it, the space and modules of the user.

The cluster's nodes have tunelab and what it needs installed; what is taken along stands before that, so that the
code that runs there is the one that was started here.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from tunelab.errors import UsageError
from tunelab.files import size_text
from tunelab.space import Space, load_space, shipped

SPACES = "space"
"""Folder of the user's space, in the one that is taken along; the file keeps its name, which may be the space's."""
HERE = "@space/"
"""Stands for it on the command line that goes along."""
MOST_BYTES = 100_000_000
"""Of all that is taken along; Ray takes 500 MB and sends it to every node."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def space_of(path: Path) -> Space:
    """A user's space, but for the dimensions that own families bring along: their modules are not run here.

    Raises:
        SpaceError: what is wrong with the file.
    """
    return load_space(path, own=lambda name: {})


def packed(folder: Path, space: Space, path: Path | None) -> None:
    """Put together what is taken along.

    Args:
        folder: an empty one.
        space: that is searched; the modules of the user's own families are taken along.
        path: the user's file of it; None: one that comes with tunelab.

    Raises:
        UsageError: a module of its families is not found, or all of it is too much.
    """
    shutil.copytree(Path(__file__).parents[1], folder / "tunelab", ignore=_LEFT_OUT)
    if not (folder / "tunelab" / "search_spaces").exists():
        shutil.copytree(shipped("quick.yaml").parent, folder / "search_spaces", ignore=_LEFT_OUT)
    if path is not None:
        (folder / SPACES).mkdir()
        shutil.copyfile(path, folder / SPACES / path.name)
    _take_modules(folder, space)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise UsageError(
            f"{space.source}: with the modules of its families {size_text(size)}, and no more than "
            f"{size_text(MOST_BYTES)} are taken along; keep data out of their package"
        )


def _take_modules(folder: Path, space: Space) -> None:
    named = [*space.families, *(start.family for start in space.start_from)]
    tops = sorted({name.partition(":")[0].partition(".")[0] for name in named if ":" in name} - {"tunelab"})
    for top in tops:
        try:
            found = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            found = None
        if found is None or found.origin is None:
            raise UsageError(f"{space.source}: family: the module {top} is not found here; put it on PYTHONPATH")
        origin = Path(found.origin)
        if found.submodule_search_locations:
            shutil.copytree(origin.parent, folder / top, ignore=_LEFT_OUT, dirs_exist_ok=True)
        else:
            shutil.copyfile(origin, folder / origin.name)
