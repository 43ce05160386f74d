"""TensorBoard's record of a run: learning curves of every trial, and the HParams table with a column per dimension.

Written by the driver from the trials of the leaderboard; nothing reads it back. A space is conditional, and
TensorBoard takes the columns of its table from one trial, so that the others' would be missing: one event file at the
root names them all. The table's F1 is that of the chosen epoch, as in the leaderboard, not that of the last one.

TensorBoard's own writers need TensorFlow; here tensorboardX writes the files and TensorBoard's protobufs fill them.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from tunelab import fidelity
from tunelab.errors import StorageError
from tunelab.ranking import Epoch, Trial

COLUMNS = {
    "chosen/validation_f1": "validation F1, chosen epoch",
    "chosen/tune_average_precision": "tune average precision, chosen epoch",
    "chosen/epoch": "chosen epoch",
}
"""The measures of the HParams table: tag and heading. The dimensions and the family are its other columns."""
POOLED = {
    "pooled/validation_f1": "validation F1, pooled over the folds",
    "pooled/validation_average_precision": "validation average precision, mean of the folds",
    "pooled/tune_average_precision": "tune average precision, mean of the folds",
}
"""More of them where there are folds; the others, and the curves, are of the first fold."""

_TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "threshold": "tune/threshold",
    "predict_ms": "time/predict_ms",
}
_SPLITS = {"tune_": "tune/", "val_": "validation/"}
_POOLED_METRICS = dict(zip(POOLED, ("val_f1", "val_average_precision", "tune_average_precision"), strict=True))
_ENDS = {
    "finished": api_pb2.STATUS_SUCCESS,
    "stopped": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
}
"""An interrupted trial has no end: it may be resumed, and TensorBoard keeps the first end that it reads."""


class TensorBoardLogs:
    """The ``tensorboard/`` folder of a run, with a folder of events for each trial.

    Files are only added, so that a copy elsewhere and a TensorBoard that is looking stay right. A trial that is
    started again, after a resume, has its known epochs written once more; TensorBoard drops what it had of them.

    Args:
        folder: made with the first trial.
        dimensions: the names of all dimensions of the space, of whatever family.
        pooled: whether trials are judged on folds.
    """

    def __init__(self, folder: Path, dimensions: Sequence[str], *, pooled: bool = False) -> None:
        self._folder = folder
        self._columns = COLUMNS | POOLED if pooled else COLUMNS
        self._dimensions = tuple(dict.fromkeys(("family", *dimensions)))
        self._open: dict[str, _Events] = {}
        self._described = False

    def start(self, trial: Trial) -> None:
        """Begin a trial: the values of its dimensions, and the epochs that it already has.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._describe()
        if trial.trial in self._open:
            self._open.pop(trial.trial).close()
        events = self._open[trial.trial] = _Events(self._folder / folder_name(trial))
        told = {"family": trial.family, **trial.point}
        if "fidelity" in self._dimensions:
            told["fidelity"] = fidelity.words(trial.fidelity) or "full"
        values = {name: _value(value) for name, value in told.items()}
        events.write(summary_v2.hparams_pb(values, trial_id=trial.trial))
        for known in range(1, len(trial.epochs) + 1):
            events.scalars(trial, known)

    def epoch(self, trial: Trial) -> None:
        """Write the newest epoch of a trial; one that was not started is started.

        Raises:
            StorageError: the folder cannot be written.
        """
        if trial.trial not in self._open:
            self.start(trial)
        elif trial.epochs:
            self._open[trial.trial].scalars(trial, len(trial.epochs))

    def end(self, trial: Trial) -> None:
        """Write how a trial ended, and close its file.

        Raises:
            StorageError: the folder cannot be written.
        """
        if trial.trial not in self._open:
            self.start(trial)
        events = self._open.pop(trial.trial)
        events.pooled(trial)
        if trial.status in _ENDS:
            info = plugin_data_pb2.SessionEndInfo(status=_ENDS[trial.status], end_time_secs=time.time())
            events.write(_summary(metadata.SESSION_END_INFO_TAG, session_end_info=info))
        events.close()

    def wait(self, trial: Trial) -> None:
        """Close the file of a trial that waits: there may be thousands, and a process opens no more than its limit."""
        if trial.trial in self._open:
            self._open.pop(trial.trial).close()

    def told(self, kind: str, trial: Trial) -> None:
        """A listener of the recorder.

        Raises:
            StorageError: the folder cannot be written.
        """
        if kind in ("suggestion", "resumed"):
            self.start(trial)
        elif kind == "result":
            self.epoch(trial)
        elif kind == "wait":
            self.wait(trial)
        elif kind == "end":
            self.end(trial)

    def close(self) -> None:
        """Close the files of the trials that have not ended."""
        while self._open:
            self._open.popitem()[1].close()

    def _describe(self) -> None:
        """The columns, in an event file at the root: once a process, as TensorBoard takes the first that it reads."""
        if self._described:
            return
        # TensorBoard shows the columns that "differ" first; the family tells which of the others a trial can have.
        hparams = [api_pb2.HParamInfo(name=name, differs=name == "family") for name in self._dimensions]
        metrics = [summary_v2.Metric(tag, display_name=heading).as_proto() for tag, heading in self._columns.items()]
        experiment = api_pb2.Experiment(hparam_infos=hparams, metric_infos=metrics, time_created_secs=time.time())
        events = _Events(self._folder)
        events.write(_summary(metadata.EXPERIMENT_TAG, experiment=experiment))
        events.close()
        self._described = True


class _Events:
    """A file of events, each on its way to disk before the call returns: no queue, no thread for each trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest = 0
        with self._written():
            folder.mkdir(parents=True, exist_ok=True)
            # tensorboardX names the file by second and host: one of the same second would be overwritten, and
            # TensorBoard reads files in the order of their names.
            self._writer = EventsWriter(str(folder.absolute() / "events"), f".{time.time_ns()}.{os.getpid()}")
            self._writer.flush()

    def write(self, summary: Any) -> None:
        """A summary of TensorBoard's own protobufs."""
        self._add(Event(wall_time=time.time(), summary=Summary.FromString(summary.SerializeToString())))

    def scalars(self, trial: Trial, known: int) -> None:
        """The curves' points at the newest of the first ``known`` epochs of a trial."""
        epoch = trial.epochs[known - 1]
        chosen = replace(trial, epochs=trial.epochs[:known]).chosen
        if epoch.epoch <= self._newest or known == 1:
            self._add(Event(wall_time=time.time(), step=epoch.epoch, session_log=SessionLog(status=SessionLog.START)))
        self._newest = epoch.epoch
        self._points({**_curves(epoch), **(_chosen(chosen) if chosen else {})}, epoch.epoch)

    def pooled(self, trial: Trial) -> None:
        """What all folds of a trial came to, beside the newest epoch of the first."""
        if trial.pooled is not None:
            measures = {tag: trial.measured(_POOLED_METRICS[tag]) for tag in POOLED}
            self._points(measures, self._newest)

    def close(self) -> None:
        with self._written():
            self._writer.close()

    def _points(self, points: dict[str, float], step: int) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items() if math.isfinite(value)]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event: Event) -> None:
        with self._written():
            self._writer.write_event(event)
            self._writer.flush()

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            say = f"cannot be written: {error.strerror}; free space or choose another --storage"
            raise StorageError(f"{self._folder}: {say}") from error


def folder_name(trial: Trial) -> str:
    """``t0012_conv_rnn``: the folder of a trial's events, and its name in TensorBoard."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{trial.trial}_{trial.family}").lstrip(".")


def tag(metric: str) -> str:
    """The scalar's name in TensorBoard, by split: ``val_f1`` is ``validation/f1``.

    Args:
        metric: as an epoch reports it. Those that name no split are counts and ratios of the validation split.
    """
    if metric in _TAGS:
        return _TAGS[metric]
    for prefix, group in _SPLITS.items():
        if metric.startswith(prefix):
            return group + metric.removeprefix(prefix)
    return f"validation/{metric}"


def _curves(epoch: Epoch) -> dict[str, float]:
    return {tag(name): value for name, value in epoch.metrics.items()}


def _chosen(epoch: Epoch) -> dict[str, float]:
    return {
        "chosen/validation_f1": epoch["val_f1"],
        "chosen/tune_average_precision": epoch["tune_average_precision"],
        "chosen/epoch": float(epoch.epoch),
    }


def _value(value: Any) -> bool | float | str:
    """What an HParams cell can hold; lists, mappings and None as JSON."""
    if isinstance(value, bool | int | float | str):
        return value
    return json.dumps(value)


def _summary(name: str, **data: Any) -> Any:
    """A summary of the HParams plugin, as its own writer makes it."""
    summary = summary_pb2.Summary()
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
    summary.value.add(tag=name, metadata=described, tensor=metadata.NULL_TENSOR)
    return summary
