"""``report.json``: the winner and the run's numbers for machines, and the sentences that say them to people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from tunelab.metrics import always_positive_f1
from tunelab.ranking import Trial
from tunelab.report.facts import Facts
from tunelab.report.front import front_json
from tunelab.report.words import clean, finite, interval, score, whole

_MEASURES = ("f1", "average_precision")
_DIGITS = re.compile(r"0x[0-9a-f]+|\d+", re.IGNORECASE)


def summary(facts: Facts) -> dict[str, Any]:
    """The content of ``report.json``: plain JSON types, None for what is undefined."""
    statuses = Counter(trial.status for trial in facts.board.trials.values())
    best = facts.board.best
    return {
        "name": facts.run.name,
        "version": facts.run.version,
        "updated": facts.updated,
        "closed": facts.closed,
        "reason": clean(facts.reason),
        "verdict": verdict(facts),
        "dealt": facts.dealt,
        "folds": facts.folds,
        "always_positive_f1": finite(facts.run.always_positive_f1),
        "positives": _ranked_on(facts)["positives"],
        "validation_traces": _ranked_on(facts)["traces"],
        "trials": len(facts.board.trials),
        "configurations": len(facts.board.configurations),
        "failed": statuses["failed"],
        "status_counts": dict(sorted(statuses.items())),
        "causes": causes(facts, "failed"),
        "objectives": list(map(str, facts.board.aims.objectives)),
        "constraints": list(map(str, facts.board.aims.constraints)),
        "breaking": len(facts.breaking),
        "front": front_json(facts),
        "best": _best(facts, best) if best else None,
    }


def causes(facts: Facts, status: str) -> list[dict[str, Any]]:
    """Trials of a status grouped by cause, the largest group first.

    Causes that differ only in their numbers (a shape, an address, an epoch) are one group, "…" where they differ.
    """
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in facts.board.trials.values():
        if trial.status == status:
            groups.setdefault(tuple(_DIGITS.split(clean(trial.cause, limit=500))), []).append(trial)
    largest = sorted(groups.items(), key=lambda item: len(item[1]), reverse=True)
    return [
        {
            "cause": _common(words, [_DIGITS.findall(clean(trial.cause, limit=500)) for trial in group]) or "not said",
            "count": len(group),
            "trials": [clean(trial.trial) for trial in group[:5]],
        }
        for words, group in largest
    ]


def _common(words: tuple[str, ...], numbers: list[list[str]]) -> str:
    """The words with the numbers between them that all agree on."""
    between = [column[0] if len(set(column)) == 1 else "…" for column in zip(*numbers, strict=True)]
    return "".join(word + number for word, number in zip(words, [*between, ""], strict=True))


def judged(facts: Facts, trial: Trial, split: str) -> dict[str, Any] | None:
    """A trial's result on validation or test with its split's size; None when it was not judged there.

    Where there are folds, validation is what the models of all of them came to, or the first fold's model on its own
    validation scans. Without a ``final`` record there is no interval, and without folds it is that of the chosen epoch.
    """
    final = facts.final_of(trial, split)
    if final is not None:
        result = {key: value if isinstance(value, int) else finite(value) for key, value in final.items()}
    elif split == "validation" and trial.chosen:
        names = ("precision", "recall", "tp", "fp", "fn", "tn", "mean_jaccard", "threshold")
        result = {name: finite(trial.measured(name)) for name in names}
        result |= {name: finite(trial.measured(f"val_{name}")) for name in (*_MEASURES, "f1_at_half")}
        size = facts.pooled_size() if trial.pooled else facts.size(split)
        result |= {key: value for key, value in size.items() if value is not None}
    else:
        return None
    positives, traces = result.get("positives"), result.get("traces")
    trivial = always_positive_f1(round(positives), round(traces)) if positives and traces else None
    return {"split": split, **result, "always_positive_f1": finite(trivial)}


def measured_on(facts: Facts, trial: Trial, split: str) -> str:
    """``40 scans, 4,000 traces, 480 positive, 95 % interval 0.351 to 0.470``, as far as it is known."""
    result: Mapping[str, Any] = judged(facts, trial, split) or {}
    said = [f"{whole(result.get(key))} {word}" for key, word in _SIZES if result.get(key) is not None]
    spread = interval(result.get("f1_low"), result.get("f1_high"))
    return ", ".join(said + ([f"95 % interval {spread}"] if spread else ["no interval computed"]))


_SIZES = (("scans", "scans"), ("traces", "traces"), ("positives", "positive"))


def verdict(facts: Facts) -> str:
    """What the run found, in one or two sentences a person can rely on."""
    best = facts.board.best
    if best is None:
        statuses = Counter(trial.status for trial in facts.board.trials.values())
        if not statuses:
            return "No trial has begun yet."
        if statuses["failed"] == statuses.total():
            return f"No trial succeeded: all {statuses.total()} failed; the causes are below."
        if facts.breaking:
            return _none_keeps(facts)
        if facts.ranked:
            return f"No trial has been trained in full yet: {_counted(statuses)}."
        return f"No trial has a validation F1 yet: {_counted(statuses)}."
    baseline = baseline_of(facts, best)
    who = f"Trial {clean(best.trial)} ({clean(best.name) + ', ' if best.name else ''}{clean(best.family)})"
    said = f"{who} reaches a validation F1 of {score(best.val_f1)}{_where(facts, best)} "
    said += f"({measured_on(facts, best, 'validation')})"
    if baseline is not None:
        low = finite((judged(facts, best, "validation") or {}).get("f1_low"))
        said += f", {_against(best.val_f1, low, baseline)}"
    return " ".join([f"{said}.", _tested(facts, best), *_aimed(facts)])


def _none_keeps(facts: Facts) -> str:
    """Why there is no winner, and who comes nearest."""
    aims, there = facts.board.aims, facts.breaking
    nearest = min(there, key=lambda trial: sum(aims.violations(trial, "validation")))
    broken = ", ".join(map(str, aims.broken(nearest)))
    return (
        f"No winner: none of {len(there)} trials with a validation F1 keeps the constraints ({facts.constraints}). "
        f"Nearest comes trial {clean(nearest.trial)} ({clean(nearest.family)}, {whole(nearest.parameters)} parameters, "
        f"validation F1 {score(nearest.val_f1)}), which breaks {broken}. Loosen them, or widen the space."
    )


def _aimed(facts: Facts) -> Iterator[str]:
    """What constraints and further objectives came to, a sentence each."""
    if facts.breaking:
        counted = f"{len(facts.breaking)} of {len(facts.ranked)} trials"
        yield f"{counted} break the constraints ({facts.constraints}) and rank below all that keep them."
    if facts.board.aims.several:
        objectives = ", ".join(map(str, facts.board.aims.objectives))
        count = len(facts.front)
        yield f"On the front of {objectives}: {count} trial{'' if count == 1 else 's'}; test judges the winner alone."


def baseline_of(facts: Facts, trial: Trial) -> float | None:
    """The F1 of always answering positive on the scans that a trial was ranked on."""
    if facts.on_first(trial):
        return finite((judged(facts, trial, "validation") or {}).get("always_positive_f1"))
    return facts.run.always_positive_f1


def _where(facts: Facts, trial: Trial) -> str:
    if not facts.folds:
        return ""
    return " on the first fold only" if facts.on_first(trial) else f", pooled out-of-fold over {facts.folds} folds"


def _ranked_on(facts: Facts) -> dict[str, int | None]:
    return facts.pooled_size() if facts.folds else facts.size("validation")


def _against(value: float, low: float | None, baseline: float) -> str:
    if value <= baseline:
        return f"no better than always answering positive, which scores {score(baseline)}"
    if low is not None and low <= baseline:
        return f"not clearly above always answering positive, which scores {score(baseline)}"
    return f"against {score(baseline)} for always answering positive"


def _tested(facts: Facts, best: Trial) -> str:
    result = judged(facts, best, "test")
    if result is None:
        other = facts.final.get("trial") if facts.final else None
        if other is not None:
            return f"Test was used for trial {clean(other)}, the leader of that time; this one was not judged there."
        return "It has not been judged on test yet."
    who = f"the F1 of its {result['models']} models together is" if result.get("models") else "its F1 is"
    said = f"On test, used once, {who} {score(result.get('f1'))} ({measured_on(facts, best, 'test')})"
    trivial, value = result["always_positive_f1"], finite(result.get("f1"))
    if trivial is not None and value is not None:
        said += f", {_against(value, finite(result.get('f1_low')), trivial)}"
    return said + "."


def _counted(statuses: Counter[Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))


def _best(facts: Facts, best: Trial) -> dict[str, Any]:
    chosen = best.chosen
    validation, test = judged(facts, best, "validation") or {}, judged(facts, best, "test") or {}
    flat = {
        f"{short}_{measure}{end}": finite(result.get(f"{measure}{end}"))
        for short, result in (("val", validation), ("test", test))
        for measure in _MEASURES
        for end in ("", "_low", "_high")
    }
    return {
        "trial": best.trial,
        "name": best.name,
        "family": best.family,
        "params": dict(best.params),
        **flat,
        "val_f1": finite(best.val_f1),
        "pooled": best.pooled is not None,
        "threshold": finite(best.measured("threshold")),
        "thresholds": list(best.pooled.thresholds) if best.pooled else None,
        "chosen_epoch": chosen.epoch if chosen else None,
        "epochs": best.epochs[-1].epoch if best.epochs else 0,
        "seconds": finite(best.epochs[-1].seconds) if best.epochs else None,
        "parameters": best.parameters,
        "validation": validation or None,
        "test": test or None,
    }
