"""A search from its plan to its report: assemble Ray, searcher, scheduler and reporter, and end in good order.

The run's folder is local; with ``s3://`` storage it is mirrored there. Ray keeps its own state in the hidden folder
``.ray`` inside it, which nothing here ever reads back.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from tunelab import __version__, metrics
from tunelab.data.access import Access
from tunelab.data.dataset import Dataset
from tunelab.errors import NoTrialSucceededError, StateError, StorageError, UsageError
from tunelab.files import write_file
from tunelab.journal import Journal
from tunelab.models import starts
from tunelab.preprocessing import Preprocessing
from tunelab.ranking import Trial
from tunelab.report import write_report
from tunelab.space import Space
from tunelab.storage import Mirror, Store, open_store
from tunelab.tuning.cluster_session import check_resources, gpus_of_a_trial, places, ray_session
from tunelab.tuning.record import Recorder
from tunelab.tuning.reporter import Goal, Reporter

SYNC_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A search, every default but the GPUs filled in."""

    name: str
    folder: Path
    """The run's local folder."""
    remote: str
    """``s3://bucket/prefix/name``, or empty."""
    space: Space
    data: Dataset
    """After one of the chains; its scans, labels and splits are those of all."""
    access: Access
    """What trials open it with."""
    samples: Mapping[Preprocessing, int]
    """Samples a trace after each chain that the space can propose."""
    trials: int | None
    """None: until the time is over."""
    time_budget: float | None
    """Seconds from the start of the command."""
    begun: float
    """When the command started, ``time.monotonic()``."""
    max_epochs: int
    patience: int
    concurrent: int | None
    """None: as many as the resources carry."""
    cpus: float
    gpus: float | None
    """None: one where Ray sees GPUs."""
    seed: int
    address: str | None
    """Of a running Ray; None: start one on this machine."""
    debug: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search came to."""

    folder: Path
    report: Mapping[str, Any]
    """The content of report.json."""
    exit_code: int
    """0, or 130 / 143 when it was interrupted."""


def run_search(plan: Plan, facts: Mapping[str, Any], console: Console) -> SearchResult:
    """Run a search to its end.

    Args:
        plan: what to do.
        facts: the content of run.yaml.
        console: where the leaderboard is shown.

    Raises:
        NoTrialSucceededError: no trial can be ranked; the report is written all the same.
        StorageError: results cannot be written; what is local is kept.
        RunBusyError: another process writes to this run.
    """
    store = open_store(plan.remote) if plan.remote else None
    if store is not None and store.list():
        raise UsageError(f"{plan.remote}: holds a run already; give another --name")
    with ExitStack() as stack:
        journal = Journal.open(plan.folder / "journal.jsonl")
        stack.callback(journal.close)
        if journal.records:
            raise UsageError(f"{plan.folder}: holds a run already; give another --name")
        recorder = Recorder(journal)
        write_file(plan.folder / "run.yaml", yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True).encode())
        recorder.other("run", name=plan.name, version=__version__, seed=plan.seed)
        there = stack.enter_context(ray_session(plan.address, debug=plan.debug))
        gpus = gpus_of_a_trial(plan.gpus, there)
        concurrent = plan.concurrent
        if plan.address is not None and plan.gpus is None and not gpus:
            console.print(
                "No GPU is in the cluster now, so trials ask for none; if it adds some, use --gpus-per-trial."
            )
        if plan.address is None:
            check_resources(plan.cpus, gpus, there)
            # proposals made ahead of time would know less than those made when a place is free
            concurrent = concurrent or places(plan.cpus, gpus, there)
        report = _search(plan, recorder, gpus, concurrent, store, console)
    best = report["best"]
    from tunelab.tuning.interrupt import received

    if best is None and not received():
        raise NoTrialSucceededError(_causes(recorder.board.trials.values(), plan.folder))
    return SearchResult(folder=plan.folder, report=report, exit_code=128 + received() if received() else 0)


def _search(
    plan: Plan, recorder: Recorder, gpus: float, concurrent: int | None, store: Store | None, console: Console
) -> Mapping[str, Any]:
    from tunelab.tuning.hparams import TensorBoardLogs
    from tunelab.tuning.interrupt import caught_signals, received

    logs = TensorBoardLogs(plan.folder / "tensorboard", plan.space.columns(), pooled=plan.data.n_folds > 0)
    judged = plan.data.judged()
    goal = Goal(
        trials=plan.trials,
        seconds=plan.time_budget,
        begun=plan.begun,
        always_positive_f1=metrics.always_positive_f1(judged.positives, judged.n_traces),
        folds=plan.data.n_folds,
        columns=plan.space.columns(),
    )
    recorder.listeners.append(lambda kind, trial: _LOG[kind](logs, trial))
    mirror = Mirror(plan.folder, store, SYNC_SECONDS) if store is not None else None
    with caught_signals():
        with _kept(plan.folder, mirror):
            with Reporter(recorder.board, goal, console) as reporter:
                recorder.listeners.append(reporter.told)
                _tune(plan, recorder, gpus, concurrent)
                cause = "ended by the user" if received() else "the time was over"
                for trial in [t for t in recorder.board.trials.values() if t.status == "running"]:
                    recorder.end(trial.trial, "interrupted", cause)
            if recorder.board.best is not None and not received():
                console.print("The winner answers the test split, once ...")
                _judge(plan, recorder, recorder.board.best, gpus)
            recorder.other("close", status="interrupted" if received() else "done", reason="")
        logs.close()
        report = write_report(plan.folder)
        if mirror is not None:
            mirror.close()
    return report


_LOG: Mapping[str, Callable[[Any, Trial], None]] = {
    "suggestion": lambda logs, trial: logs.start(trial),
    "result": lambda logs, trial: logs.epoch(trial),
    "fold": lambda logs, trial: None,
    "pooled": lambda logs, trial: None,
    "decision": lambda logs, trial: None,
    "end": lambda logs, trial: logs.end(trial),
}


def _tune(plan: Plan, recorder: Recorder, gpus: float, concurrent: int | None) -> None:
    """Ray Tune's part, until all trials are over, the time is, or a signal came."""
    from ray import tune

    from tunelab.tuning.interrupt import InterruptStopper
    from tunelab.tuning.scheduler import RecordingScheduler
    from tunelab.tuning.searcher import SpaceSearcher
    from tunelab.tuning.trainable import KerasTrainable, TrialSettings

    settings = TrialSettings(
        max_epochs=plan.max_epochs,
        patience=plan.patience,
        cpus=plan.cpus,
        gpus=gpus,
        weights=_weights(plan),
        debug=plan.debug,
    )
    searcher = SpaceSearcher(plan.space, starts(plan.space), recorder, samples=plan.samples, seed=plan.seed)
    trainable = tune.with_parameters(KerasTrainable, data=plan.access, settings=settings)
    left = None if plan.time_budget is None else max(plan.time_budget - (time.monotonic() - plan.begun), 1.0)
    path, filesystem = _ray_storage(plan)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"CPU": plan.cpus, "GPU": gpus} if gpus else {"CPU": plan.cpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=RecordingScheduler(plan.space.early_stopping, plan.max_epochs, recorder),
            num_samples=plan.trials if plan.trials is not None else -1,
            max_concurrent_trials=concurrent,
            time_budget_s=left,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.config["trial"],
            trial_dirname_creator=lambda trial: trial.config["trial"],
        ),
        run_config=tune.RunConfig(
            name=".ray",
            storage_path=path,
            storage_filesystem=filesystem,
            stop=InterruptStopper(),
            failure_config=tune.FailureConfig(max_failures=3),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_frequency=1),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:
        if recorder.fault is not None:
            raise recorder.fault from error
        raise


def _weights(plan: Plan) -> str:
    """Where trials put their best weights: on a cluster straight to the bucket, which every node can reach."""
    return f"{plan.remote}/weights" if plan.remote and plan.address else str(plan.folder / "weights")


def _ray_storage(plan: Plan) -> tuple[str, Any]:
    """Where Ray keeps checkpoints, as path and filesystem: on a cluster with a bucket in the bucket, else local."""
    if not (plan.remote and plan.address):
        return str(plan.folder), None
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    retries = AwsStandardS3RetryStrategy(max_attempts=10)
    # boto3 reads these by itself; pyarrow does not when they are set after the process began
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    filesystem = S3FileSystem(
        connect_timeout=10, request_timeout=60, retry_strategy=retries, endpoint_override=endpoint
    )
    return plan.remote.removeprefix("s3://"), filesystem


def _judge(plan: Plan, recorder: Recorder, best: Trial, gpus: float) -> None:
    """Let the winner's stored weights answer validation again, and the test split for the first and only time.

    Where there are folds the models of all of them answer, and validation is what they came to together.
    """
    import ray

    from tunelab.tuning.trainable import evaluate_stored

    chosen = best.chosen
    if chosen is None:
        raise StateError(f"trial {best.trial}: ranked without an epoch")
    store = open_store(_weights(plan))
    models = [(store.get(stored.file), stored) for stored in best.stored()]
    task = ray.remote(evaluate_stored).options(num_cpus=plan.cpus, num_gpus=gpus)
    answer = ray.get(task.remote(dict(best.params), plan.access, models, best.pooled, plan.cpus, gpus))
    recorder.other("final", trial=best.trial, epoch=chosen.epoch, **answer)


@contextmanager
def _kept(folder: Path, mirror: Mirror | None) -> Iterator[None]:
    """Write the report and send what has changed, once a minute, until the block ends."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(SYNC_SECONDS):
            try:
                write_report(folder)
                if mirror is not None:
                    mirror.sync()
            except (StateError, StorageError):
                continue  # tried again in a minute; at the end it is an error

    thread = threading.Thread(target=work, name="keeper", daemon=True)
    thread.start()

    try:
        yield
    finally:
        over.set()
        thread.join()


def _causes(trials: Iterable[Trial], folder: Path) -> str:
    """Why no trial can be ranked, equal causes together."""
    causes = Counter(t.cause or t.status for t in trials)
    lines = [f"  {count} x {cause}" for cause, count in causes.most_common(5)]
    if not lines:
        lines = ["  no trial was started in the time given; allow more with --time-budget"]
    return "\n".join([f"no trial of this search can be ranked; report: {folder / 'report.html'}", *lines])
