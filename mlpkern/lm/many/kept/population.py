"""A population kept in a folder: saved as it trains, continued where it was left.

Each group saves itself about every `SAVE_SECONDS` and at its end, on the thread that trains it;
between two chunks its state is whole. Since a model has the same bits whatever trains beside it,
what was saved continues with those of an uninterrupted training.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from mlpkern.lm.many.group import Group
from mlpkern.lm.many.kept.folder import PopulationFolder
from mlpkern.lm.many.kept.group_file import write_group
from mlpkern.lm.many.kept.record import PopulationRecord
from mlpkern.lm.many.kept.tables import Curves, has_pyarrow, ranked, require_pyarrow, write_results
from mlpkern.lm.many.population import Population
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.model.mlp import parameter_shapes
from mlpkern.lm.saved.attempts import Attempts
from mlpkern.lm.saved.folder_lock import FolderLock
from mlpkern.lm.training.progress import Progress
from mlpkern.lm.training.stop_signal import Interrupted, StopSignal
from mlpkern.lm.training.tensorboard import require_tensorboard, write_model
from mlpkern.lm.words.data import Dataset

SAVE_SECONDS = 30.0  # of training of a group, at least, between two saves
SHARE = 20  # a write waits as many times as long as the last one took: it costs at most 5 %


def train_in_folder(
    record: PopulationRecord,
    dataset: Dataset,
    folder: PopulationFolder,
    *,
    show: Callable[[int, int], AbstractContextManager[Progress]],
    parquet: bool | None = None,
    tensorboard: bool = False,
    force: bool = False,
) -> list[Trained]:
    """Trains what ``record`` holds in ``folder``, from where it stands there; see `population`.

    ``show(total, done)``: the display of the progress, in steps of all models.

    `Interrupted` after Ctrl-C, SIGTERM or SIGHUP, with everything saved.
    """
    if parquet is None:
        parquet = has_pyarrow()
    elif parquet:
        require_pyarrow()
    if tensorboard:
        require_tensorboard()
    folder.check(record, force=force)
    with folder.lock() as lock, StopSignal(others=True) as stop:
        folder.begin(record, force=force)
        models = KeptPopulation(record, dataset, folder, lock, stop)
        total = sum(config.steps for config in record.configs)
        with show(total, models.steps_done) as models.progress:
            models.advance(1.0)
        models.write_groups()
        models.write_tables(parquet=parquet, tensorboard=tensorboard)
        if not models.ended:
            assert stop.received is not None
            raise models.interrupted(stop.received)
    return models.results()


class KeptPopulation(Population):
    """The population of ``record`` in ``folder``, whose lock the caller holds."""

    def __init__(
        self,
        record: PopulationRecord,
        dataset: Dataset,
        folder: PopulationFolder,
        lock: FolderLock,
        stop: StopSignal,
    ) -> None:
        saved = folder.read(record.configs, dataset)
        super().__init__(
            record.configs, dataset, max_points=record.max_points, keep_best=record.keep_best,
            data=record.data, saved=saved,
        )  # fmt: skip
        self._record, self._folder, self._lock, self._stop = record, folder, lock, stop
        self._vocab = dataset.vocab
        self._attempts = Attempts()
        self._unsaved: dict[Path, Group] = {}  # there was no room
        self._tables = threading.Lock()
        self._next_table = 0.0
        self._trains = False  # whether this call has trained anything
        self._models: dict[int, Trained] = {}  # that have ended
        for group in self._groups:
            if group.ended:
                self._models |= group.results()
        write_results(folder.results, self._models)

    @property
    def steps_done(self) -> int:
        """The steps done, over all models."""
        return sum(group.steps_done for group in self._groups)

    @property
    def ended(self) -> bool:
        """Whether all models have ended."""
        return len(self._models) == len(self._record.configs)

    def _pieces(self, group: Group, end: int) -> Generator[int, None, None]:
        wait = SAVE_SECONDS
        while not group.ended and self._stop.received is None:
            self._trains = True
            yield from group.advance(end, partial(self._pauses, time.monotonic() + wait))
            if group.step == end:
                group.end()
            began = time.monotonic()
            self._save(group)
            wait = max(SAVE_SECONDS, SHARE * (time.monotonic() - began))
            if group.ended:
                self._add_results(group)

    def _left(self, group: Group, end: int) -> float:
        """Begun groups first, so that results come early; then those with the most to do, roughly
        in multiplications."""
        of = self._record.configs[min(group.members)]
        sizes = parameter_shapes(len(self._vocab), of.block_size, of.embedding_dim, of.hidden)
        work = len(group.members) * of.batch_size * end * sum(map(math.prod, sizes.values()))
        return math.inf if group.step else float(work)

    def _pauses(self, due: float) -> bool:
        return self._stop.received is not None or time.monotonic() >= due

    def _add_results(self, group: Group) -> None:
        """Adds the models of ``group``, which has ended, to the table, if it is time for that."""
        with self._tables:
            self._models |= group.results()
            path, began = self._folder.results, time.monotonic()
            if began >= self._next_table:
                self._attempts.attempt(path, lambda: write_results(path, self._models))
                self._next_table = time.monotonic() + SHARE * (time.monotonic() - began)

    def write_groups(self) -> None:
        """Writes the groups that could not be written before; WriteError if they still cannot."""
        for group in self._unsaved.values():
            self._write(group)

    def write_tables(self, *, parquet: bool, tensorboard: bool) -> None:
        """Writes the tables, the best run and what was asked for, of the models that have ended."""
        self._lock.check()
        models, folder = self._models, self._folder
        write_results(folder.results, models)
        curves = Curves(models)
        curves.write_csv(folder.curves)
        if parquet:
            curves.write_parquet(folder.parquet)
        best = ranked(models)[:1]
        # a best run that an earlier call wrote may have been trained on since
        if best and (self._trains or not folder.best.checkpoint.is_file()):
            with folder.best.lock():
                models[best[0]].write(folder.best, model=best[0])
        if tensorboard:
            for i, one in models.items():
                self._write_events(folder.tensorboard / str(i), one)

    def interrupted(self, signum: int) -> Interrupted:
        """The error that tells how to go on."""
        path = self._folder.path
        how = f"mlpkern population {path}" if "source" in self._record.data else "the same call"
        at = f"{len(self._models)} of {len(self._record.configs)} models"
        return Interrupted(self.steps_done, signum, path, at=at, how=how)

    def _save(self, group: Group) -> None:
        path = self._path(group)
        if self._attempts.attempt(path, lambda: self._write(group)):
            self._unsaved.pop(path, None)
        else:
            self._unsaved[path] = group

    def _write(self, group: Group) -> None:
        self._lock.check()
        write_group(self._path(group), group.snapshots(), self._vocab)

    def _path(self, group: Group) -> Path:
        return self._folder.group(min(group.members))

    def _write_events(self, folder: Path, one: Trained) -> None:
        if not folder.exists():  # of a model that has ended: it does not change
            settings = {name: getattr(one.config, name) for name in self._record.varying()}
            metrics = {"dev loss": one.dev.loss, "best dev loss": one.best.dev.loss}
            write_model(folder, one.log_rows(), settings, metrics)
