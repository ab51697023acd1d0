"""A hyper-parameter sweep: Optuna proposes trials, a population trains them, the worst stop early.

    ask a batch of trials -> train all to the first rung -> dev losses -> keep one in four
                          -> to the next rung -> ... -> the rest to the end -> tell the study

A trial that stops at a rung is "pruned"; TPE learns from it too. The dev loss at a rung is that of
a copy after a short cool-down, see `Population.dev`. The rungs are those of successive halving
(Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016, arXiv 1502.07943), within a batch. The proposals are by TPE (Bergstra, Bardenet,
Bengio, Kégl, "Algorithms for hyper-parameter optimization", NIPS 2011).

The dev split decides; the test split is not used.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mlpkern.lm.errors import LMError, WriteError
from mlpkern.lm.many.population import Population
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.folder_lock import FolderInUseError
from mlpkern.lm.search.folder import SweepFolder
from mlpkern.lm.search.plan import SweepPlan
from mlpkern.lm.search.study import ask_batch, finished_trials, open_study
from mlpkern.lm.training.evaluation import Metrics
from mlpkern.lm.words.data import Dataset

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

LOCK_SECONDS = 10.0  # more than another process of the sweep takes to save its best run


class Trainees(Protocol):
    """Trains a batch of trials, as `Population` does."""

    def advance(self, share: float) -> None: ...

    def dev(self, cooldown: int = 0) -> dict[int, Metrics]: ...

    def keep(self, members: Collection[int]) -> None: ...

    def results(self) -> list[Trained]: ...


def sweep(
    plan: SweepPlan,
    dataset: Dataset,
    folder: SweepFolder,
    *,
    data: dict[str, Any] | None = None,
    trainees: Callable[[Sequence[TrainConfig], Dataset], Trainees] = Population,
    report: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Runs the remaining trials of ``plan`` in the study of ``folder``.

    Args:
        data: the record of the words, kept with the best run.
        trainees: makes the trainer of a batch.
        report: called with a line of text at every rung.

    Several processes may work on one folder; together they may begin more trials than planned, by
    the number that the others have under way. After Ctrl-C, or any error, the trials under way
    count as failed, and the next call continues the study.
    """
    study = open_study(folder.journal, plan, dataset.digest)
    this = Sweep(plan, dataset, folder, study, data or {}, trainees, report)
    began, longest = time.perf_counter(), 0.0
    try:
        while (left := plan.trials - len(finished_trials(study))) > 0:
            at = time.perf_counter()
            if plan.minutes is not None and longest and at - began + longest > 60 * plan.minutes:
                report(f"stopping: {plan.minutes:g} minutes would not hold another batch")
                break
            this.run_batch(min(left, plan.batch))
            longest = max(longest, time.perf_counter() - at)
    except BaseException:
        with suppress(LMError):  # the error that ended the sweep matters more
            this.save_best()
        raise
    this.save_best()
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
    trained: int = field(default=0)
    _unsaved: tuple[Trained, int, float] | None = field(default=None, init=False)

    def run_batch(self, count: int) -> None:
        """Gets ``count`` trials from the study, trains them through the rungs, reports results."""
        from optuna.trial import TrialState

        trials = ask_batch(self.study, self.plan, count)
        self.trained += count
        under_way = set(range(count))
        try:
            self._train(trials, under_way)
        finally:
            for i in under_way:  # none, except after Ctrl-C or an error
                with suppress(WriteError):  # the error that ended the batch matters more
                    self.study.tell(trials[i], state=TrialState.FAIL)
        try:
            self.save_best()
        except (WriteError, FolderInUseError) as error:
            warnings.warn(
                f"{error}; the best run waits for the next batch", RuntimeWarning, stacklevel=2
            )

    def save_best(self) -> None:
        """Saves the best run if this process trained it and has not saved it yet.

        WriteError if it cannot be written, FolderInUseError while another process writes there.
        """
        if self._unsaved is None:
            return
        trained, number, seconds = self._unsaved
        with self.folder.best.lock(wait=LOCK_SECONDS):
            if self.study.best_trial.number == number:  # else another process has a better one
                self.folder.save_best(trained, number, self.dataset, self.data, seconds)
        self._unsaved = None

    def _train(self, trials: list[Trial], under_way: set[int]) -> None:
        plan, began = self.plan, time.perf_counter()
        configs = [plan.space.config(plan.base, trial.params) for trial in trials]
        models = self.trainees(configs, self.dataset)
        first, last = trials[0].number, trials[-1].number
        for share in (*plan.rungs, 1.0):
            models.advance(share)
            step = round(share * plan.base.steps)
            cooldown = round(plan.cooldown * step) if share < 1 else 0
            dev = {i: _finite(metrics.loss) for i, metrics in models.dev(cooldown).items()}
            for i, loss in dev.items():
                trials[i].report(loss, step)
            ranked = sorted(dev, key=lambda i: dev[i])
            self.report(
                f"trials {first}-{last}  step {step:>{len(str(plan.base.steps))}}  "
                f"{len(dev):>3} in training  best dev {dev[ranked[0]]:.4f}  "
                f"{time.perf_counter() - began:.1f} s"
            )
            if share < 1:
                kept = ranked[: math.ceil(len(ranked) / plan.keep)]
                self._prune(trials, set(ranked) - set(kept), under_way)
                models.keep(kept)
        for i, trained in zip(sorted(dev), models.results(), strict=True):
            if trained.diverged:
                self.report(f"trial {trials[i].number} {trained.diverged}")
            if trained.stopped is not None or trained.diverged:
                self._prune(trials, {i}, under_way)
                continue
            self.study.tell(trials[i], dev[i])
            under_way.discard(i)
            if self.study.best_trial.number == trials[i].number:
                self._unsaved = (trained, trials[i].number, time.perf_counter() - began)

    def _prune(self, trials: list[Trial], which: set[int], under_way: set[int]) -> None:
        from optuna.trial import TrialState

        for i in sorted(which):
            self.study.tell(trials[i], state=TrialState.PRUNED)
            under_way.discard(i)


def _finite(loss: float) -> float:
    """``loss``, or a number worse than any other if it is not finite."""
    return loss if math.isfinite(loss) else 1e30
