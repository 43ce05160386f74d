"""Who may import whom: downwards only, no cycles, and the heavy packages only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tunelab"

FLOORS = {  # module or room -> floor; a room is a folder, all of whose modules are on one floor
    "errors": 0,
    "faults": 0,
    "aims": 0,
    "metrics": 0,
    "yamlfile": 0,
    "domains": 0,
    "domain_parser": 0,
    "space": 0,
    "sections": 0,
    "fidelity": 0,
    "files": 0,
    "npy": 0,
    "preprocessing": 0,
    "augmentation": 0,
    "objective": 0,
    "statistics": 0,
    "journal": 1,
    "halving": 1,
    "ladder": 1,
    "stopping": 1,
    "results": 1,
    "forecast": 1,
    "ranking": 1,
    "spending": 1,
    "s3": 1,
    "naming": 1,
    "storage": 1,
    "archive": 1,
    "readings": 1,
    "mirror": 1,
    "terms": 1,
    "lease": 1,
    "s3lease": 1,
    "output": 1,
    "checkpoint": 1,
    "averaging": 1,
    "learning_rates": 1,
    "outcome": 1,
    "stopwatch": 1,
    "causes": 1,
    "reclaim": 1,
    "data": 2,
    "models": 2,
    "backend": 2,
    "progress": 3,
    "measures": 3,
    "pooling": 3,
    "compiled": 3,
    "training": 3,
    "crossfit": 3,
    "evaluation": 3,
    "task": 3,
    "trial": 3,
    "keras_trainer": 3,
    "worker": 3,
    "process": 3,
    "configuration": 3,
    "tuning": 4,
    "report": 4,
    "cluster": 4,
    "overview": 4,
    "planning": 5,
    "expected": 5,
    "outlook": 5,
    "dry_run": 5,
    "difference": 5,
    "resume": 5,
    "resume_command": 5,
    "resume_there": 5,
    "run_commands": 5,
    "following": 5,
    "job_commands": 5,
    "handed_over": 5,
    "dashboard": 5,
    "tensorboard": 5,
    "search": 5,
    "command": 5,
    "data_commands": 5,
    "cluster_commands": 5,
    "cli": 5,
    "__main__": 5,
}
ACROSS = {
    ("tuning", "report"),
    ("models", "backend"),
    ("stopping", "halving"),
    ("training", "measures"),
    ("training", "compiled"),
    ("crossfit", "training"),
    ("crossfit", "measures"),
    ("crossfit", "pooling"),
    ("keras_trainer", "crossfit"),
    ("keras_trainer", "evaluation"),
    ("evaluation", "training"),
    ("evaluation", "measures"),
    ("evaluation", "pooling"),
    ("keras_trainer", "training"),
    ("keras_trainer", "task"),
    ("trial", "task"),
    ("worker", "task"),
    ("worker", "trial"),
    ("process", "task"),
    ("process", "worker"),
}
"""Rooms of one floor of which the first may import the second: a search ends with its report, an epoch with its
measures, folds are trained one after another, and a trial is trained in a process of its own."""


def modules() -> dict[str, Path]:
    """Name -> file; a room's __init__ has the name of the room, that of the package is ``tunelab``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("tunelab", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def statements(node: ast.AST, *, with_typing: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, also inside functions; those below ``if TYPE_CHECKING`` only when asked for."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
        return
    typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for below in node.orelse if typing and not with_typing else ast.iter_child_nodes(node):
        yield from statements(below, with_typing=with_typing)


def imported(path: Path, *, with_typing: bool = False) -> set[str]:
    """What a file imports; of ours the module that is meant, of others the name as written."""
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), with_typing=with_typing):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            ours = {f"{module}.{alias.name}" for alias in node.names} & MODULES.keys()
            plain = {alias.name for alias in node.names if f"{module}.{alias.name}" not in MODULES}
            names |= ours | ({module} if plain else set())
    return names


def room(name: str) -> str:
    """``models`` of ``tunelab.models.lstm``, ``errors`` of ``tunelab.errors``."""
    return name.split(".")[1]


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


IN_ROOMS = {name: path for name, path in MODULES.items() if name != "tunelab"}


def test_the_table_names_every_module_and_no_other():
    assert {room(name) for name in IN_ROOMS} == set(FLOORS)


def test_the_package_itself_imports_nothing_of_its_own():
    assert not {name for name in imported(MODULES["tunelab"]) if name.startswith("tunelab.")}


@pytest.mark.parametrize("name", IN_ROOMS)
def test_imports_lead_downwards(name):
    for other in imported(IN_ROOMS[name], with_typing=True):
        if not other.startswith("tunelab."):
            continue
        assert other in MODULES, f"{name} imports {other}, which is no module"
        mine, its = room(name), room(other)
        beside = mine == its or FLOORS[mine] in (0, 1, 5) or (mine, its) in ACROSS
        assert FLOORS[its] < FLOORS[mine] or (FLOORS[its] == FLOORS[mine] and beside), f"{name} imports {other}"


def test_no_module_imports_itself_by_a_detour():
    # search starts the command line, and the command line the search, both only when they are called
    graph = {name: {o for o in imported(path) if o in IN_ROOMS} for name, path in IN_ROOMS.items()}
    assert "tunelab.cli" in graph["tunelab.search"]
    graph["tunelab.search"].remove("tunelab.cli")
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) == set(IN_ROOMS)


def test_rooms_of_one_floor_do_not_lean_on_each_other_both_ways():
    leaning = {
        (room(name), room(other))
        for name, path in IN_ROOMS.items()
        for other in imported(path)
        if other in IN_ROOMS and room(other) != room(name)
    }
    leaning.remove(("search", "cli"))
    assert not [(one, other) for one, other in leaning if (other, one) in leaning]


@pytest.mark.parametrize("name", [name for name in IN_ROOMS if FLOORS.get(room(name), 0) <= 3])
def test_floors_0_to_3_know_neither_ray_nor_optuna(name):
    assert not packages(IN_ROOMS[name]) & {"ray", "optuna"}


@pytest.mark.parametrize("name", [name for name in IN_ROOMS if FLOORS.get(room(name), 0) <= 1])
def test_floors_0_and_1_know_neither_tensorflow_nor_keras(name):
    assert not packages(IN_ROOMS[name]) & {"tensorflow", "keras", "jax", "torch"}


@pytest.mark.parametrize("name", [name for name in IN_ROOMS if room(name) == "report"])
def test_a_report_opens_no_pickle_and_nothing_of_ray(name):
    assert not packages(IN_ROOMS[name]) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "ray"}


def test_the_walk_sees_imports_wherever_they_stand(tmp_path):
    path = tmp_path / "any.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import keras\nelse:\n    import one\n"
        "def f():\n    try:\n        from ray import tune\n    except ImportError:\n        import optuna.trial as t\n"
        "class C:\n    from tunelab import errors, __version__\n"
    )
    expected = {"typing", "one", "ray", "optuna.trial", "tunelab.errors", "tunelab"}
    assert imported(path) == expected
    assert imported(path, with_typing=True) == expected | {"keras"}


@pytest.mark.parametrize("name", ["tunelab.search", "tunelab.cli", "tunelab.resume_command", "tunelab.resume_there"])
def test_the_driver_starts_without_the_heavy_packages(name):
    code = (
        f"import sys, {name}\n"
        "heavy = {'tensorflow', 'keras', 'ray', 'optuna', 'jax', 'torch', 'tensorboard', 'matplotlib'}\n"
        "print(sorted(heavy & {n.split('.')[0] for n in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    assert done.stdout == "[]\n"
