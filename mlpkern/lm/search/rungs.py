"""A hyper-parameter sweep: Optuna proposes trials, a population trains them, the worst stop early.

    ask a batch of trials -> train all to the first rung -> dev losses -> keep one in four
                          -> to the next rung -> ... -> the rest to the end -> tell the study

Where seeds are searched, settings are ranked by the mean of their seeds, which go on or stop
together. A trial that stops at a rung is "pruned"; TPE learns from it too. The dev loss at a rung
is that of a copy after a short cool-down, see `Population.dev`. The rungs are those of successive
halving (Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter
optimization", AISTATS 2016, arXiv 1502.07943), within a batch. The proposals are by TPE (Bergstra,
Bardenet, Bengio, Kégl, "Algorithms for hyper-parameter optimization", NIPS 2011).

The dev split decides; the test split is not used.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlpkern.lm.errors import LMError, WriteError
from mlpkern.lm.many.loss_curve import Curve
from mlpkern.lm.many.population import Population
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.folder_lock import FolderInUseError
from mlpkern.lm.search.curves import MOST_POINTS, TrialCurve
from mlpkern.lm.search.folder import LOCK_SECONDS, SweepFolder
from mlpkern.lm.search.plan import SweepPlan
from mlpkern.lm.search.progress import SweepProgress, Unfailing
from mlpkern.lm.search.study import ask_batch, best_trial, finished_trials, open_study
from mlpkern.lm.training.evaluation import Metrics
from mlpkern.lm.training.tensorboard import require_tensorboard
from mlpkern.lm.words.data import Dataset

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial


class Trainees(Protocol):
    """Trains a batch of trials, as `Population` does."""

    def advance(self, share: float) -> None: ...

    def dev(self, cooldown: int = 0) -> dict[int, Metrics]: ...

    def curves(self) -> dict[int, Curve]: ...

    def keep(self, members: Collection[int]) -> None: ...

    def results(self) -> list[Trained]: ...


def sweep(
    plan: SweepPlan,
    dataset: Dataset,
    folder: SweepFolder | str | Path,
    *,
    data: dict[str, Any] | None = None,
    trainees: Callable[[Sequence[TrainConfig], Dataset], Trainees] | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: SweepProgress | None = None,
    tensorboard: bool = False,
) -> Sweep:
    """Runs the remaining trials of ``plan`` in the study of ``folder``.

    Args:
        data: the record of the words, kept with the best run.
        trainees: makes the trainer of a batch; None: a `Population`.
        report: called with a line of text at every rung.
        progress: what is to show how far the sweep is.
        tensorboard: also writes a run of TensorBoard for every trial.

    Several processes may work on one folder; together they may begin more trials than planned, by
    the number that the others have under way. The best run, trials.csv and curves.csv are written
    after every batch. After Ctrl-C, or any error, the trials under way count as failed, the files
    hold those that had ended, and the next call continues the study.
    """
    if tensorboard:
        require_tensorboard()
    folder = SweepFolder.open(folder) if isinstance(folder, (str, Path)) else folder
    study = open_study(folder.journal, plan, dataset.digest)
    shown = Unfailing(progress)
    if trainees is None:
        trainees = partial(Population, max_points=MOST_POINTS, progress=shown)
    this = Sweep(plan, dataset, folder, study, data or {}, trainees, report, shown, tensorboard)
    began, longest = time.perf_counter(), 0.0
    try:
        while (left := plan.trials - len(finished_trials(study))) > 0:
            at = time.perf_counter()
            seconds = math.inf if plan.minutes is None else 60 * plan.minutes - (at - began)
            if longest and longest > seconds:
                report(f"stopping: {plan.minutes:g} minutes would not hold another batch")
                break
            count = min(left, plan.batch)
            fit = seconds / longest if longest else math.inf  # batches into the time that is left
            this.run_batch(count, int(min(math.ceil(left / count) - 1, max(0.0, fit - 1))))
            longest = max(longest, time.perf_counter() - at)
    except BaseException:
        with suppress(LMError):  # the error that ended the sweep matters more
            this.save()
        raise
    this.save()
    return this


@dataclass
class Sweep:
    """A sweep that runs or has ended; ``trained``: the number of trials this process began."""

    plan: SweepPlan
    dataset: Dataset
    folder: SweepFolder
    study: Study
    data: dict[str, Any]
    trainees: Callable[[Sequence[TrainConfig], Dataset], Trainees]
    report: Callable[[str], None]
    progress: Unfailing
    tensorboard: bool = False
    trained: int = field(default=0)
    _unsaved: tuple[Trained, int, float] | None = field(default=None, init=False)
    _curves: list[TrialCurve] = field(default_factory=list, init=False)  # not yet in the file
    _events: list[TrialCurve] = field(default_factory=list, init=False)  # not yet written

    @property
    def best(self) -> FrozenTrial | None:
        """The best trial, see `best_trial`."""
        return best_trial(self.study, self.plan.space.seeds)

    def run_batch(self, count: int, later: int = 0) -> None:
        """Gets ``count`` trials from the study, trains them through the rungs, reports results.

        ``later``: how many such batches will probably follow, for the progress.
        """
        from optuna.trial import TrialState

        trials = ask_batch(self.study, self.plan, count)
        self.trained += len(trials)
        steps = self.plan.work(len(trials)) + later * self.plan.work(count)
        self.progress.batch(f"trials {trials[0].number}-{trials[-1].number}", steps)
        under_way = set(range(len(trials)))
        try:
            self._train(trials, under_way)
        finally:
            for i in under_way:  # none, except after Ctrl-C or an error
                with suppress(WriteError):  # the error that ended the batch matters more
                    self.study.tell(trials[i], state=TrialState.FAIL)
        try:
            self.save()
        except (WriteError, FolderInUseError) as error:
            warnings.warn(
                f"{error}; what is not saved waits for the next batch", RuntimeWarning, stacklevel=2
            )

    def save(self) -> None:
        """Writes what is not in the folder yet: tables, and the best run if this process has it.

        WriteError if it cannot be written, FolderInUseError while another process writes there.
        """
        trials = partial(finished_trials, self.study)
        self.folder.save_tables(trials, list(self.plan.space.entries), self._curves)
        self._curves.clear()
        self.save_best()
        while self._events:
            self._events[-1].write_events(self.folder.events(self._events[-1].number))
            self._events.pop()

    def save_best(self) -> None:
        """Saves the best run if this process trained it and has not saved it yet; as `save`."""
        if self._unsaved is None:
            return
        trained, number, seconds = self._unsaved
        with self.folder.best.lock(wait=LOCK_SECONDS):
            if (best := self.best) and best.number == number:  # else another process has a better
                self.folder.save_best(trained, number, self.dataset, self.data, seconds)
        self._unsaved = None

    def _train(self, trials: list[Trial], under_way: set[int]) -> None:
        from optuna.trial import TrialState

        plan, began = self.plan, time.perf_counter()
        configs = [plan.space.config(plan.base, trial.params) for trial in trials]
        models = self.trainees(configs, self.dataset)
        first, last = trials[0].number, trials[-1].number
        told: dict[int, dict[int, float]] = {i: {} for i in under_way}  # step -> dev loss
        curves: dict[int, Curve] = {}

        def end(i: int, loss: float | None = None) -> None:
            """Tells the study the dev loss at the end of a trial; None: that it was pruned."""
            state = TrialState.PRUNED if loss is None else None
            self.study.tell(trials[i], loss, state=state)
            under_way.discard(i)
            number, params = trials[i].number, trials[i].params
            self._curves.append(TrialCurve(number, params, configs[i], curves[i], told[i]))
            self._events += self._curves[-1:] * self.tensorboard

        for share in (*plan.rungs, 1.0):
            models.advance(share)
            step, cooldown = plan.step_at(share), plan.cooldown_at(share)
            dev = {i: _finite(metrics.loss) for i, metrics in models.dev(cooldown).items()}
            self.progress.advance(cooldown * len(dev))
            for i, loss in dev.items():
                trials[i].report(loss, step)
                told[i][step] = loss
            means = _means(dev, max(1, len(plan.space.seeds)))
            ranked = sorted(means, key=lambda members: means[members])
            self.report(
                f"trials {first}-{last}  step {step:>{len(str(plan.base.steps))}}  "
                f"{len(dev):>3} in training  best dev {means[ranked[0]]:.4f}  "
                f"{time.perf_counter() - began:.1f} s"
            )
            kept = {i for members in ranked[: plan.kept(len(ranked))] for i in members}
            curves = models.curves()
            if share < 1:
                for i in sorted(set(dev) - kept):
                    end(i)
                models.keep(kept)
        results = dict(zip(sorted(dev), models.results(), strict=True))
        for i, trained in results.items():
            if trained.diverged:
                self.report(f"trial {trials[i].number} {trained.diverged}")
            end(i, None if trained.stopped is not None or trained.diverged else dev[i])
        best = self.best
        for i, trained in results.items():
            if best and best.number == trials[i].number:
                self._unsaved = (trained, best.number, time.perf_counter() - began)


def _means(dev: dict[int, float], seeds: int) -> dict[tuple[int, ...], float]:
    """The mean of the dev losses of the trials of the same settings: one for each seed in turn."""
    members: dict[int, list[int]] = {}
    for i in dev:
        members.setdefault(i // seeds, []).append(i)
    return {tuple(those): sum(dev[i] for i in those) / len(those) for those in members.values()}


def _finite(loss: float) -> float:
    """``loss``, or a number worse than any other if it is not finite."""
    return loss if math.isfinite(loss) else 1e30
