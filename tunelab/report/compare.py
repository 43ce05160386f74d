"""The hand-run results that come with tunelab, beside a winner: what differs in structure, in a few words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunelab.report.words import setting
from tunelab.space import Start, load_space, shipped

_FIRST = ("convolutions", "reduce", "batch_norm_before_dense", "dense", "units", "l2", "dropout")
_LAYERS = {"convolutions": "convolution", "dense": "dense layer", "units": "recurrent layer"}


def hand_run() -> tuple[Start, ...]:
    """The sixteen, in the order in which they were run."""
    return load_space(shipped("seed.yaml")).start_from


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What one configuration has that the winner has not, the structure first.

    Args:
        theirs: params with ``family``.
        ours: params of the winner with ``family``.
    """
    family = theirs.get("family")
    found = [] if family == ours.get("family") else [f"{family}, not {ours.get('family')}"]
    rest = sorted((theirs.keys() | ours.keys()) - {"family", *_FIRST})
    for name in (*_FIRST, *rest):
        if name in theirs or name in ours:
            found += _difference(name, theirs.get(name), ours.get(name))
    return found


def _difference(name: str, theirs: Any, ours: Any) -> Iterator[str]:
    if _same(theirs, ours):
        return
    if name in _LAYERS:
        yield f"{_layers(_LAYERS[name], theirs)}, not {_layers('', ours)}"
    elif theirs is None:
        yield f"without {_word(name)} ({_value(ours)})"
    elif ours is None:
        yield f"{_word(name)} {_value(theirs)}"
    else:
        yield f"{_word(name)} {_value(theirs)}, not {_value(ours)}"


def _layers(word: str, value: Any) -> str:
    """``8 recurrent layers (100, 200, ...)``; the mapping of a single layer counts as one."""
    if value is None or value == []:
        return f"no {word}" if word else "none"
    layers = value if isinstance(value, list) else [value]
    counted = f"{len(layers)} {word}{'s' * (len(layers) > 1)}" if word else f"{len(layers)}"
    return f"{counted} ({', '.join(_layer(layer) for layer in layers)})"


def _layer(layer: Any) -> str:
    if not isinstance(layer, Mapping):
        return setting(layer)
    if "filters" in layer:
        extra = [key.replace("_", " ") for key in ("pool", "batch_norm", "dropout") if layer.get(key)]
        base = f"{setting(layer['filters'])} of {setting(layer.get('kernel'))}/{setting(layer.get('stride'))}"
        return " + ".join([base, *extra])
    return " ".join(setting(value) for value in layer.values())


def _value(value: Any) -> str:
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return setting(value[0])
    return setting(value)


def _word(name: str) -> str:
    return name.replace("_", " ")


def _same(theirs: Any, ours: Any) -> bool:
    """Equal, a dropout of [0.2] and one of 0.2 too."""
    return bool(theirs == ours) or _value(theirs) == _value(ours)
