"""A search from its plan to its report: assemble Ray, searcher, scheduler and reporter, and end in good order.

The same for a new run and for one that goes on: what the journal holds is replayed first, and the rest is done. The
run's folder is local; with ``s3://`` storage it is mirrored there. Ray keeps its own state in the hidden folder
``.ray`` inside it, which nothing here ever reads back, and which is made anew each time.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from tunelab import metrics
from tunelab.errors import NoTrialSucceededError, StorageError
from tunelab.mirror import Mirror
from tunelab.models import starts
from tunelab.progress import plain
from tunelab.ranking import Trial
from tunelab.report import write_report
from tunelab.tuning.cluster_session import check_resources, gpus_of_a_trial, places, ray_session
from tunelab.tuning.hold import Hold
from tunelab.tuning.keeper import kept
from tunelab.tuning.plan import Plan, SearchResult
from tunelab.tuning.record import Recorder
from tunelab.tuning.reporter import Goal, Reporter
from tunelab.tuning.retention import Retention

TRAINER = "tunelab.keras_trainer"
"""The module that trains in the trials' processes."""
_FULL = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EIO}


@dataclass(slots=True, kw_only=True)
class _Search:
    """What is put together for one search."""

    plan: Plan
    recorder: Recorder
    console: Console
    gpus: float
    concurrent: int | None
    fence: int
    """Of the lease on the run's folder."""
    spent: float
    """Seconds that earlier sessions of the run took."""
    settings: Any = field(init=False)
    """Of its trials; see :class:`~tunelab.tuning.trainable.TrialSettings`."""
    scheduler: Any = field(init=False)
    searcher: Any = field(init=False)


def run_search(plan: Plan, hold: Hold, console: Console) -> SearchResult:
    """Run a search to its end, from wherever its journal stands.

    Args:
        plan: what to do.
        hold: the run; its journal begins with a ``run`` record.
        console: where the leaderboard is shown.

    Raises:
        NoTrialSucceededError: no trial can be ranked; the report is written all the same.
        StorageError: results cannot be written; what is local is kept.
        ClusterError: no cluster answers, or it lacks what a trial asks for.
    """
    recorder = Recorder(hold.journal)
    shutil.rmtree(plan.folder / ".ray", ignore_errors=True)
    with ray_session(plan.address, debug=plan.debug) as there:
        gpus = gpus_of_a_trial(plan.gpus, there)
        concurrent = plan.options.concurrent
        if plan.address is not None and plan.gpus is None and not gpus:
            console.print(
                "No GPU is in the cluster now, so trials ask for none; if it adds some, use --gpus-per-trial."
            )
        if plan.address is None:
            check_resources(plan.cpus, gpus, there)
            # proposals made ahead of time would know less than those made when a place is free
            concurrent = concurrent or places(plan.cpus, gpus, there)
        search = _Search(
            plan=plan,
            recorder=recorder,
            console=console,
            gpus=gpus,
            concurrent=concurrent,
            fence=hold.fence,
            spent=spent(hold),
        )
        _assemble(search)
        report = _search(search, hold)
    from tunelab.tuning.interrupt import received

    if report["best"] is None and not received():
        raise NoTrialSucceededError(_causes(recorder.board.trials.values(), plan))
    return SearchResult(folder=plan.folder, report=report, exit_code=128 + received() if received() else 0)


def spent(hold: Hold) -> float:
    """Seconds that the finished sessions of a run took, by their own clocks.

    Args:
        hold: the run; its newest session is the one that goes on.
    """
    clocks: list[float] = []
    for record in hold.journal.records:
        if record["kind"] == "session" or not clocks:
            clocks.append(0.0)
        clocks[-1] = max(clocks[-1], float(record.get("clock", 0.0)))
    return sum(clocks[:-1])


def _assemble(search: _Search) -> None:
    """Searcher and scheduler, with what the journal tells them."""
    from tunelab.tuning.node_store import NodeStore
    from tunelab.tuning.scheduler import RecordingScheduler
    from tunelab.tuning.searcher import SpaceSearcher, fitting
    from tunelab.tuning.trainable import TrialSettings

    plan, recorder = search.plan, search.recorder
    search.scheduler = RecordingScheduler(plan.space.over_epochs, plan.max_epochs, recorder, plan.options.max_failures)
    search.settings = TrialSettings(
        max_epochs=plan.max_epochs,
        rungs=frozenset(search.scheduler.stopping.rungs),
        patience=plan.patience,
        cpus=plan.cpus,
        gpus=search.gpus,
        folder=str(plan.folder),
        fence=search.fence,
        store=NodeStore(plan.folder, search.fence) if plan.address is not None else None,
        trainer=TRAINER,
        step_timeout=plan.options.step_timeout,
        debug=plan.debug,
        data_seed=plan.options.seed,
    )
    search.searcher = SpaceSearcher(
        plan.space,
        starts(plan.space),
        recorder,
        search.scheduler,
        fit=fitting(plan.space, plan.samples),
        seed=plan.options.seed,
        trials=plan.trials,
    )
    recorder.replay([search.scheduler.replayed, search.searcher.replayed])
    if outside := search.searcher.unknown:
        plain(
            search.console,
            f"{len(outside)} trials lie outside the space as it is now ({', '.join(outside[:5])}); they are ranked, "
            "and the sampler learns nothing from them.",
        )


def _search(search: _Search, hold: Hold) -> Mapping[str, Any]:
    from tunelab.tuning.hparams import TensorBoardLogs
    from tunelab.tuning.interrupt import caught_signals, received
    from tunelab.tuning.judgement import judge

    plan, recorder, board = search.plan, search.recorder, search.recorder.board
    steps = ["fidelity"] if plan.space.fidelity.steps else []
    logs = TensorBoardLogs(plan.folder / "tensorboard", [*plan.space.columns(), *steps], pooled=plan.data.n_folds > 0)
    judged = plan.data.judged()
    goal = Goal(
        trials=plan.trials,
        seconds=plan.options.time_budget,
        begun=plan.begun - search.spent,
        always_positive_f1=metrics.always_positive_f1(judged.positives, judged.n_traces),
        folds=plan.data.n_folds,
        columns=plan.space.columns(),
    )
    retention = Retention(plan.folder, board, plan.options.keep)
    for note in retention.clean():
        plain(search.console, f"Note: {note}")
    recorder.listeners += [lambda kind, trial: _LOG[kind](logs, trial), retention.told]
    final = any(record["kind"] == "final" for record in recorder.records)
    mirror = hold.mirror(plan.options.sync_every, retention.spare)
    with caught_signals():
        with kept(hold, mirror, plan.options.sync_every, recorder, search.console) as kept_for:
            with Reporter(board, goal, search.console) as reporter:
                recorder.listeners.append(reporter.told)
                if not final:
                    _go_on(search)
            if not final and board.best is not None and not received():
                search.console.print("The winner answers the test split, once ...")
                answer = judge(board.best, plan, search.settings)
                recorder.other("final", trial=board.best.trial, **answer)
            status = "interrupted" if received() else "done"
            recorder.other("close", status=status, reason="", seconds=_seconds(hold, mirror, kept_for.reports))
        logs.close()
        report = write_report(plan.folder)
        if mirror is not None:
            mirror.close()
    return report


_LOG: Mapping[str, Callable[[Any, Trial], None]] = {
    "suggestion": lambda logs, trial: logs.start(trial),
    "resumed": lambda logs, trial: logs.start(trial),
    "result": lambda logs, trial: logs.epoch(trial),
    "fold": lambda logs, trial: None,
    "pooled": lambda logs, trial: None,
    "failure": lambda logs, trial: None,
    "note": lambda logs, trial: None,
    "decision": lambda logs, trial: None,
    "wait": lambda logs, trial: None,
    "end": lambda logs, trial: logs.end(trial),
}


def _seconds(hold: Hold, mirror: Mirror | None, reports: float) -> dict[str, float]:
    """What the session took, and how much of it went into keeping what was found; for people."""
    sync = mirror.seconds if mirror is not None else 0.0
    taken = {"session": hold.journal.clock, "journal": hold.journal.seconds, "reports": reports, "sync": sync}
    return {name: round(value, 3) for name, value in taken.items()}


def _go_on(search: _Search) -> None:
    """All that is left to be tried."""
    from tunelab.tuning.interrupt import received

    plan, recorder = search.plan, search.recorder
    search.scheduler.settle()
    for trial in recorder.board.snapshot():
        if trial.unfinished and recorder.decided(trial.trial):
            recorder.end(trial.trial, "interrupted")
        if not trial.unfinished:
            search.searcher.ended(trial.trial)
    budget = plan.options.time_budget
    left = None if budget is None else budget - search.spent - (time.monotonic() - plan.begun)
    if left is None or left > 0 or not recorder.board.trials:
        search.searcher.go_on()
        _tune(search, None if left is None else max(left, 1.0))
    if search.searcher.exhausted:
        plain(search.console, "The space has nothing more to offer that was not tried.")
    cause = "ended by the user" if received() else "the time was over"
    for trial in [t for t in recorder.board.snapshot() if t.status == "running"]:
        recorder.end(trial.trial, "interrupted", cause)
    if not received():  # those that wait may go on when the search does
        search.scheduler.give_up()


def _tune(search: _Search, seconds: float | None) -> None:
    """Ray Tune's part, until all trials are over, the time is, or a signal came."""
    from ray import tune

    from tunelab.tuning.interrupt import InterruptStopper
    from tunelab.tuning.trainable import KerasTrainable

    plan = search.plan
    trainable = tune.with_parameters(KerasTrainable, data=plan.access, settings=search.settings)
    resources = {"CPU": plan.cpus, "GPU": search.gpus} if search.gpus else {"CPU": plan.cpus}
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=search.searcher,
                scheduler=search.scheduler,
                num_samples=-1,  # the searcher counts: a trial that waited and goes on is no new one
                max_concurrent_trials=search.concurrent,
                time_budget_s=seconds,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["trial"],
                trial_dirname_creator=lambda trial: trial.config["trial"],
            ),
            run_config=tune.RunConfig(
                name=".ray",
                storage_path=str(plan.folder),
                stop=InterruptStopper(),
                failure_config=tune.FailureConfig(max_failures=-1),  # the scheduler counts
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            ),
        )
        tuner.fit()
    except Exception as error:
        if search.recorder.fault is not None:
            raise search.recorder.fault from error
        if isinstance(error, OSError) and error.errno in _FULL:
            raise StorageError(
                f"{plan.folder}: {error.strerror}; free space and run: tunelab resume {plan.folder}"
            ) from error
        raise
    if search.recorder.fault is not None:  # the run was taken over, and Ray ended before a result could say so
        raise search.recorder.fault


def _causes(trials: Iterable[Trial], plan: Plan) -> str:
    """Why no trial can be ranked, equal causes together."""
    trials = list(trials)
    causes = Counter(t.cause or t.status for t in trials)
    lines = [f"  {count} x {cause}" for cause, count in causes.most_common(5)]
    if trials and all(trial.fidelity for trial in trials):
        lines.append(f"  none was trained in full; allow more: tunelab resume {plan.folder} --time-budget TIME")
    if not lines:
        lines = ["  no trial was started in the time given; allow more with --time-budget"]
    return "\n".join([f"no trial of this search can be ranked; report: {plan.folder / 'report.html'}", *lines])
