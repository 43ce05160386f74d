"""A Trainable as Ray's actor holds it, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunelab.data.access import Access
from tunelab.tuning.trainable import KerasTrainable, TrialSettings


def settings_in(
    folder: Path, *, max_epochs: int, trainer: str = "tunelab.keras_trainer", cpus: int = 1
) -> TrialSettings:
    """What trials share that keep weights and checkpoints in a folder."""
    return TrialSettings(
        max_epochs=max_epochs,
        patience=9,
        cpus=cpus,
        gpus=0,
        folder=str(folder),
        fence=0,
        store=None,
        trainer=trainer,
        step_timeout=600.0,
        debug=True,
    )


def hold(config: dict[str, Any], data: Access, settings: TrialSettings) -> KerasTrainable:
    """One that has taken its first trial."""
    one = object.__new__(KerasTrainable)  # Ray's own constructor wants a logger and a storage
    one.config = config
    one.setup(config, data, settings)
    return one
