"""Configurations trained side by side, in pieces; `population` (train_population.py) is one call.

One call of `mlpkern.train_steps` trains all models of one shape, or on a CPU a part of them: shapes
need unequal times, and so every thread trains its own models, and none is idle (jobs.py). A search
drops poor configurations on the way:

>>> from dataclasses import replace
>>> from mlpkern import lm
>>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
>>> base = lm.TrainConfig(steps=500, lr=((0, 0.1),))
>>> widths = [replace(base, hidden=(h,), seed=s) for h in (50, 100, 200) for s in range(4)]
>>> some = lm.Population(widths, dataset)
>>> some.advance(0.2)  # a fifth of the steps
>>> dev = some.dev()  # {place in the list: metrics}
>>> some.keep(sorted(dev, key=lambda i: dev[i].loss)[:4])
>>> some.advance(1.0)
>>> best = some.results()
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from mlpkern.lm.arguments import check_kind
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many.group import Group, judged_every
from mlpkern.lm.many.jobs import Job, kernel_threads, run_jobs
from mlpkern.lm.many.loss_curve import Curve
from mlpkern.lm.many.snapshot import Snapshot
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.model.config import SHAPE, TrainConfig
from mlpkern.lm.training.evaluation import Metrics
from mlpkern.lm.training.progress import NoProgress, Progress
from mlpkern.lm.words.data import Dataset
from mlpkern.registry import refusal


class Population:
    """Configurations trained side by side in pieces; the arguments are those of `population`.

    The number of a configuration is its place in the list, also after others were dropped. Neither
    the ends of the pieces nor dropped configurations change the others: each has the bits of
    training it alone. A model whose loss is not finite stops without a warning. After an exception
    in one of its methods, such as Ctrl-C, a population cannot continue.

    ``saved``: snapshots, by their numbers, of groups that continue; a part for each group.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        dataset: Dataset,
        *,
        max_points: int = 2_000,
        progress: Progress | None = None,
        keep_best: bool = False,
        data: dict[str, Any] | None = None,
        saved: Sequence[Mapping[int, Snapshot]] = (),
    ) -> None:
        check_kind("population", "dataset", dataset, Dataset, "as build_dataset makes it")
        if max_points < 1:
            raise ConfigError(f"population: max_points must be at least 1, got {max_points}")
        if refused := refusal("train_steps", dataset.splits["train"].targets.device.type):
            raise ConfigError(f"population: {refused}")
        self.progress: Progress = progress or NoProgress()
        kept = {i for part in saved for i in part}
        members: dict[tuple[object, ...], list[int]] = {}
        for i, config in enumerate(configs):
            if i not in kept:
                key = (*group_key(config), config.steps, judged_every(config, keep_best))
                members.setdefault(key, []).append(i)
        self._threads = kernel_threads(dataset.splits["train"].targets.device)
        # One shape that fills the threads evenly is fastest in one call.
        even = len(members) == 1 and (len(configs) - len(kept)) % self._threads == 0
        parts = 1 if even or self._threads == 1 else 2 * self._threads
        begun = [part for group in members.values() for part in _cut(group, parts)]
        self._groups = [
            Group({i: configs[i] for i in part}, dataset, max_points, keep_best, data, found)
            for part, found in [*((list(one), one) for one in saved), *((one, {}) for one in begun)]
        ]

    def advance(self, share: float) -> None:
        """Trains each to ``share`` of its steps, 0 to 1 (rounded); does nothing if past it."""
        if not 0 <= share <= 1:
            raise ConfigError(f"population: share must be 0 to 1, got {share}")
        jobs = []
        for group in self._groups:
            end = round(share * group.steps)
            jobs.append(Job(self._pieces(group, end), partial(self._left, group, end)))
        self._run(jobs)

    def _pieces(self, group: Group, end: int) -> Generator[int, None, None]:
        """Trains ``group`` to step ``end``; yields the steps of each piece."""
        return group.advance(end)

    def _left(self, group: Group, end: int) -> float:
        """By which jobs.py chooses: all groups end at about the same time."""
        return group.seconds(end)

    def _run(self, jobs: Sequence[Job]) -> None:
        with warnings.catch_warnings():  # `population` warns with the place in its list
            warnings.filterwarnings("ignore", "train_steps: ", RuntimeWarning)
            run_jobs(jobs, self._threads, self.progress.advance)

    def dev(self, cooldown: int = 0) -> dict[int, Metrics]:
        """Loss and accuracy on dev of every configuration not dropped; those at its end for one
        whose patience has ended.

        ``cooldown``: measures a copy after so many more steps, at learning rates that fall from the
        current one to 0. The noise of a high rate hides how good the parameters are, so without a
        cool-down low rates look better during a run than at its end. The runs do not change.
        """
        if cooldown < 0:
            raise ConfigError(f"population: cooldown must be at least 0, got {cooldown}")
        found: dict[int, Metrics] = {}

        def measure(group: Group) -> Generator[int, None, None]:
            found.update(group.dev(cooldown))
            yield 0

        self._run(
            [Job(measure(group), partial(group.seconds, group.steps)) for group in self._groups]
        )
        return dict(sorted(found.items()))

    def keep(self, members: Collection[int]) -> None:
        """Drops all others for good; ConfigError for a member that does not exist."""
        known = {i for group in self._groups for i in group.members}
        if strangers := sorted(set(members) - known):
            raise ConfigError(f"population: cannot keep {strangers}, which are not in training")
        for group in self._groups:
            group.keep([i for i in group.members if i in set(members)])
        self._groups = [group for group in self._groups if group.members]

    def curves(self) -> dict[int, Curve]:
        """The loss curve so far of every configuration not dropped."""
        return {i: curve for group in self._groups for i, curve in group.curves().items()}

    def results(self) -> list[Trained]:
        """The results of those not dropped, in the order of the list; with copies of the models."""
        found = {i: trained for group in self._groups for i, trained in group.results().items()}
        return [found[i] for i in sorted(found)]


def _cut(members: list[int], parts: int) -> list[list[int]]:
    """``members`` in at most ``parts`` parts of nearly equal size."""
    size = math.ceil(len(members) / parts)
    return [members[i : i + size] for i in range(0, len(members), size)]


def group_key(config: TrainConfig) -> tuple[object, ...]:
    """The settings that configurations must share to train in one call."""
    return tuple(getattr(config, name) for name in SHAPE)
