"""What pydantic found wrong with a text that a user or a file gave, as one sentence with its key and what to write."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from tunelab.errors import did_you_mean


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault that pydantic found, unknown keys before all others, as ``key: what; remedy``.

    Args:
        error: what pydantic raised.
        model: the model that was validated, whose fields an unknown key is compared with.
    """
    faults = error.errors(include_url=False)
    # a misspelled key is missing as well; what was written says more than what was not
    fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
    place = list(fault["loc"])
    key = ".".join(str(part) for part in place)
    key = f"{key if key.isprintable() else ascii(key)}: " if place else ""
    if fault["type"] == "extra_forbidden":
        return f"{key}no such key{did_you_mean(str(place[-1]), _fields(model, place[:-1]))}"
    if fault["type"] == "missing":
        return f"{key}missing; write a value"
    given = "" if isinstance(fault["input"], dict) else f", not {fault['input']!r:.200}"
    return f"{key}{fault['msg'].removeprefix('Value error, ')}{given}"


def _fields(model: type[BaseModel], place: list[int | str]) -> list[str]:
    for part in place:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        for candidate in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return list(model.model_fields)
