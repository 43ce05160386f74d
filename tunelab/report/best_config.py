"""``best_config.yaml``, and those of the front: a trial as a configuration that can be trained again."""

from __future__ import annotations

from typing import Any

import yaml

from tunelab.ranking import Trial
from tunelab.report.facts import Facts
from tunelab.report.summary import baseline_of, measured_on
from tunelab.report.words import clean, finite, score


class _Plain(yaml.SafeDumper):
    """Plain YAML: no anchors, which a configuration may not hold, and quotes where a word looks like a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        float(text)
    except ValueError:
        return dumper.represent_str(text)
    # PyYAML takes '1e-5' for a word, as YAML 1.1 does; YAML 1.2 reads a number.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")


_Plain.add_representer(str, _represent)


def best_config_yaml(facts: Facts, trial: Trial) -> str:
    """The file's text: params flat at the top level as the trial had them, with what training needs beside them.

    Args:
        facts: of the run.
        trial: the winner.
    """
    return _yaml(
        facts,
        trial,
        f"The best configuration of the run {clean(facts.run.name)}: {_who(trial)}.",
        "Train it again: tunelab train best_config.yaml --data PATH",
    )


def front_config_yaml(facts: Facts, trial: Trial) -> str:
    """As :func:`best_config_yaml`, of a trial on the front."""
    objectives = ", ".join(map(str, facts.board.aims.objectives))
    return _yaml(
        facts,
        trial,
        f"On the front of {objectives} of the run {clean(facts.run.name)}: {_who(trial)}.",
        f"Train it again: tunelab train {trial.trial}.yaml --data PATH",
    )


def _who(trial: Trial) -> str:
    return f"trial {clean(trial.trial)}{f' ({clean(trial.name)})' if trial.name else ''}"


def _yaml(facts: Facts, trial: Trial, first: str, last: str) -> str:
    config: dict[str, Any] = {
        "name": clean(trial.name) or f"{clean(facts.run.name)}-{clean(trial.trial)}",
        "family": trial.family,
        **trial.params,
        "epochs": {key: n for key, n in facts.run.epochs.model_dump().items() if n is not None},
        "data": {**facts.run.data.options, "split_seed": facts.run.seed},
        "seed": trial.seed,
        "threshold": finite(trial.measured("threshold")),
    }
    said = [
        first,
        f"Validation F1 {score(trial.val_f1)} {_when(facts, trial)}, {measured_on(facts, trial, 'validation')}.",
        f"Always answering positive scores {score(baseline_of(facts, trial))} there.",
        *_thresholds(trial),
        last,
    ]
    body = yaml.dump(config, Dumper=_Plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return "".join(f"# {line}\n" for line in said) + body


def _when(facts: Facts, trial: Trial) -> str:
    if trial.pooled:
        return f"pooled out-of-fold over {facts.folds} folds"
    epoch = f"at epoch {trial.chosen.epoch if trial.chosen else 0}"
    return f"{epoch} of the first fold only" if facts.on_first(trial) else epoch


def _thresholds(trial: Trial) -> list[str]:
    """Where each fold's model has its own, none can be given for a single model that is trained again."""
    if trial.pooled is None:
        return []
    return [f"Thresholds of its models, a fold each: {', '.join(score(value) for value in trial.pooled.thresholds)}."]
