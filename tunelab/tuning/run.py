"""A search from its plan to its report: assemble Ray, searcher, scheduler and reporter, and end in good order.

The same for a new run and for one that goes on: what the journal holds is replayed first, and the rest is done. The
run's folder is local; with ``s3://`` storage it is mirrored there. Ray keeps its own state in the hidden folder
``.ray`` inside it, which nothing here ever reads back, and which is made anew each time.
"""

from __future__ import annotations

import errno
import resource
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from tunelab import metrics
from tunelab.errors import StorageError
from tunelab.mirror import Mirror
from tunelab.models import starts
from tunelab.progress import plain
from tunelab.report import write_report
from tunelab.spending import prices_here
from tunelab.tuning.budget import ALL_OVER, Budget, check_gpu_hours
from tunelab.tuning.cluster_session import check_resources, gpus_of_a_trial, places, ray_session
from tunelab.tuning.cost import Meter
from tunelab.tuning.hold import Hold
from tunelab.tuning.keeper import kept
from tunelab.tuning.no_winner import check_winner
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
    budget: Budget
    in_vain: int = 0
    """How many trials failed for one cause, which ended the search; 0: it did not."""
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
        NoTrialSucceededError: no trial can be ranked, none keeps the constraints, or all fail for one cause; the report
            is written.
        StorageError: results cannot be written; what is local is kept.
        ClusterError: no cluster answers, or it lacks what a trial asks for.
    """
    recorder = Recorder(hold.journal)
    shutil.rmtree(plan.folder / ".ray", ignore_errors=True)
    with ray_session(plan.address, debug=plan.debug) as there:
        gpus, concurrent = agreed(plan, there, console)
        prices = prices_here()
        search = _Search(
            plan=plan,
            recorder=recorder,
            console=console,
            gpus=gpus,
            concurrent=concurrent,
            fence=hold.fence,
            budget=Budget(
                hold.journal,
                trials=plan.trials,
                seconds=plan.options.time_budget,
                gpu_hours=plan.options.gpu_hours,
                begun=plan.begun,
                max_cost=plan.options.max_cost,
                meter=Meter(hold.journal, prices) if prices else None,
            ),
        )
        _assemble(search)
        report = _search(search, hold)
    from tunelab.tuning.interrupt import received

    if not received():
        check_winner(report, recorder.board, plan, search.in_vain)
    return SearchResult(folder=plan.folder, report=report, exit_code=128 + received() if received() else 0)


def agreed(plan: Plan, there: Mapping[str, float], console: Console) -> tuple[float, int | None]:
    """GPUs of a trial, and trials at a time (None: as many as Ray finds places for).

    Args:
        plan: what was asked for.
        there: resources of Ray.
        console: for a note.

    Raises:
        UsageError: this machine can never give that, or GPU-hours are limited and none would be used.
    """
    gpus = gpus_of_a_trial(plan.gpus, there)
    concurrent = plan.options.concurrent
    if plan.address is not None and plan.gpus is None and not gpus:
        console.print("No GPU is in the cluster now, so trials ask for none; if it adds some, use --gpus-per-trial.")
    if plan.address is None:
        check_resources(plan.cpus, gpus, there, plan.custom)
        # proposals made ahead of time would know less than those made when a place is free
        concurrent = concurrent or places(plan.cpus, gpus, there)
    check_gpu_hours(plan.options.gpu_hours, gpus)
    return gpus, concurrent


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
        custom=plan.custom,
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
        held=search.budget.doubtful,
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
    from tunelab.tuning.optuna_log import FILE, OptunaLog

    plan, recorder, board = search.plan, search.recorder, search.recorder.board
    _open_files()
    steps = ["fidelity"] if plan.space.fidelity.steps else []
    logs = TensorBoardLogs(plan.folder / "tensorboard", [*plan.space.columns(), *steps], pooled=plan.data.n_folds > 0)
    judged = plan.data.judged()
    goal = Goal(
        trials=plan.trials,
        seconds=plan.options.time_budget,
        begun=search.budget.begun,
        always_positive_f1=metrics.always_positive_f1(judged.positives, judged.n_traces),
        folds=plan.data.n_folds,
        columns=plan.space.columns(),
        gpu_hours=plan.options.gpu_hours,
        spent=search.budget.spent,
        max_cost=plan.options.max_cost,
        cost=search.budget.cost,
    )
    retention = Retention(plan.folder, board, plan.options.keep)
    for note in retention.clean():
        plain(search.console, f"Note: {note}")

    def warn(said: str) -> None:
        plain(search.console, f"Warning: {said}")

    study = OptunaLog(plan.folder / FILE, plan.name, plan.space, recorder, warn)
    study.begin()
    recorder.listeners += [logs.told, retention.told, study.told]
    final = any(record["kind"] == "final" for record in recorder.records)
    reason = next((str(r.get("reason", "")) for r in reversed(recorder.records) if r["kind"] == "close"), "")
    mirror = hold.mirror(plan.options.sync_every, retention.spare)
    with caught_signals():
        with kept(hold, mirror, plan.options.sync_every, recorder, search.console) as kept_for:
            with Reporter(board, goal, search.console) as reporter:
                recorder.listeners.append(reporter.told)
                if not final:
                    reason = _go_on(search)
            if not final and board.best is not None and not received() and not search.in_vain:
                search.console.print("The winner answers the test split, once ...")
                answer = judge(board.best, plan, search.settings)
                recorder.other("final", trial=board.best.trial, **answer)
            status = "interrupted" if received() or search.in_vain else "done"
            recorder.other("close", status=status, reason=reason, seconds=_seconds(hold, mirror, kept_for.reports))
        logs.close()
        report = write_report(plan.folder)
        if mirror is not None:
            mirror.close()
    return report


def _open_files() -> None:
    """Let this process open as many files as it may: each trial that runs has one, and there may be a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a limit of none is more than some systems allow
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _seconds(hold: Hold, mirror: Mirror | None, reports: float) -> dict[str, float]:
    """What the session took, and how much of it went into keeping what was found; for people."""
    sync = mirror.seconds if mirror is not None else 0.0
    taken = {"session": hold.journal.clock, "journal": hold.journal.seconds, "reports": reports, "sync": sync}
    return {name: round(value, 3) for name, value in taken.items()}


def _go_on(search: _Search) -> str:
    """All that is left to be tried; says why it ended."""
    from tunelab.tuning.interrupt import received

    recorder, budget = search.recorder, search.budget
    search.scheduler.settle()
    for trial in recorder.board.snapshot():
        if trial.unfinished and recorder.decided(trial.trial):
            recorder.end(trial.trial, "interrupted")
        if not trial.unfinished:
            search.searcher.ended(trial.trial)
    left = budget.left()
    if not budget.used() and (left is None or left > 0 or not recorder.board.trials):
        search.searcher.go_on()
        _tune(search, None if left is None else max(left, 1.0))
    if search.searcher.exhausted:
        plain(search.console, "The space has nothing more to offer that was not tried.")
    for trial in [t for t in recorder.board.snapshot() if t.status == "running"]:
        recorder.end(trial.trial, "interrupted", budget.cause())
    more = search.scheduler.promotable(last=True) is not None
    reason = budget.reason(recorder.board, exhausted=search.searcher.exhausted, more=more)
    if reason != ALL_OVER and not received():
        search.in_vain = budget.vain
    if not received() and not search.in_vain:  # those that wait may go on when the search does
        search.scheduler.give_up()
    return reason


def _tune(search: _Search, seconds: float | None) -> None:
    """Ray Tune's part, until all trials are over, a limit is reached, or a signal came."""
    from ray import tune

    from tunelab.tuning.hooks import BudgetStopper, Places
    from tunelab.tuning.trainable import KerasTrainable

    plan = search.plan
    trainable = tune.with_parameters(KerasTrainable, data=plan.access, settings=search.settings)
    resources = {"CPU": plan.cpus, **({"GPU": search.gpus} if search.gpus else {}), **plan.custom}
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
                stop=BudgetStopper(search.budget),
                callbacks=[Places(search.recorder, search.gpus)],
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
