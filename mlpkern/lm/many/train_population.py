"""Many configurations trained side by side in one call, in memory or in a folder.

>>> from dataclasses import replace
>>> from mlpkern import lm
>>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
>>> base = lm.TrainConfig(steps=500, lr=((0, 0.1),))
>>> widths = [replace(base, hidden=(h,), seed=s) for h in (50, 100, 200) for s in range(4)]
>>> trained = lm.population(widths, dataset)  # three groups of four models
>>> best = min(trained, key=lambda one: one.dev.loss)
>>> best.config.hidden, best.dev.loss < 3
((...,), True)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlpkern.lm.arguments import list_of
from mlpkern.lm.errors import CheckpointError, ConfigError
from mlpkern.lm.many.kept.folder import PopulationFolder
from mlpkern.lm.many.kept.population import train_in_folder
from mlpkern.lm.many.kept.record import PopulationRecord
from mlpkern.lm.many.population import Population
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.run_words import dataset_of_record
from mlpkern.lm.training.divergence import ADVICE
from mlpkern.lm.training.progress import Progress, shown_progress
from mlpkern.lm.words.data import Dataset


def population(
    configs: Sequence[TrainConfig],
    dataset: Dataset,
    *,
    max_points: int = 2_000,
    progress: Progress | bool | None = True,
    keep_best: bool = False,
    data: dict[str, Any] | None = None,
    folder: str | Path | None = None,
    parquet: bool | None = None,
    tensorboard: bool = False,
    force: bool = False,
) -> list[Trained]:
    """The results of training each of ``configs`` on the words of ``dataset``, in their order.

    On a GPU configurations with the same block size, widths, batch size, number of steps and
    optimizer (with its momentum, gradient bound and label smoothing) train together; learning
    rates, decay, dropout, seeds and initial parameters may differ. Each result has the bits of
    training that configuration alone with the engine `run`, whatever else is in the list.

    Args:
        configs: what to train. Their ``split_seed`` and their intervals of logs and checkpoints
            have no effect: the splits are those of ``dataset``. Dev losses are taken every
            ``eval_every`` steps for configurations with ``patience``, which may end them early, and
            for all with ``keep_best``; otherwise only at the end.
        dataset: training runs on its device. For another block size the windows are made from its
            words.
        max_points: the largest number of points in a loss curve, at least 1.
        progress: gets the steps of all models (`mlpkern.lm.training.progress`). True: a bar with
            the time left if standard error is a terminal. False or None: nothing.
        keep_best: also keeps the model with the lowest dev loss of each, in ``best``.
        data: the record of the words, for runs that are saved (`Trained.save`). None: commands that
            need the words of such a run expect the embedded ones, or a FILE.
        folder: keeps the population there: results.csv, curves.csv, all models, and the best of
            them as a run. The same call goes on from what is there, after Ctrl-C or a crash, with
            the bits of an uninterrupted one, and trains nothing that has ended again.
        parquet: in ``folder``, the curves also as curves.parquet, which needs pyarrow. None: where
            pyarrow is installed.
        tensorboard: in ``folder``, also a run of TensorBoard for each model.
        force: replaces another population in ``folder``.

    A model whose loss is not finite stops, with a RuntimeWarning that names its place in the list;
    the others continue. A model that diverged at a finite loss is named as well. Ctrl-C, or another
    signal whose handler raises, ends the call within 0.3 s.

    With a ``folder``: Ctrl-C, SIGTERM and SIGHUP save everything and raise `Interrupted`.
    CheckpointError if the folder holds something else, with the first difference if that is another
    population; FolderInUseError if another process writes there. A full disk is a RuntimeWarning
    during the training, at its end a WriteError.
    """
    configs = list_of("population", "configs", configs, "one for each model")
    if folder is None:
        if parquet or tensorboard or force:
            raise ConfigError("population: parquet, tensorboard and force need a folder")
        with shown_progress(progress, sum(config.steps for config in configs)) as shown:
            models = Population(
                configs, dataset, max_points=max_points, progress=shown, keep_best=keep_best,
                data=data,
            )  # fmt: skip
            models.advance(1.0)
        results = models.results()
    else:
        words = {**(data or {}), "digest": dataset.digest}
        record = PopulationRecord(tuple(configs), words, max_points, keep_best)
        results = train_in_folder(
            record, dataset, PopulationFolder(Path(folder)),
            show=partial(shown_progress, progress), parquet=parquet, tensorboard=tensorboard,
            force=force,
        )  # fmt: skip
    for i, result in enumerate(results):
        why = result.diverged
        if result.stopped is not None:
            why = f"stopped at step {result.stopped}: its loss was not finite; {ADVICE}"
        if why:
            warnings.warn(f"population: configuration {i} {why}", RuntimeWarning, stacklevel=2)
    return results


def load_population(folder: str | Path, dataset: Dataset | None = None) -> list[Trained]:
    """The models in the folder of a population that have ended, in the order of their numbers.

    ``dataset``: the words; None: they are read again from where they came.

    CheckpointError if it is no such folder, if a file is damaged, or if the words are others.
    """
    found = trained_in(folder, dataset)
    return [found[i] for i in sorted(found)]


def trained_in(folder: str | Path, dataset: Dataset | None = None) -> dict[int, Trained]:
    """As `load_population`, by their numbers."""
    there = PopulationFolder.open(folder)
    record = PopulationRecord.read(there.record)
    if not record.configs:
        return {}
    if dataset is None:
        dataset, _ = dataset_of_record(record.data, record.configs[0], folder=there.path)
    elif dataset.digest != (digest := str(record.data.get("digest"))):
        raise CheckpointError(
            f"{there.path}: trained on other words (SHA-256 {digest[:12]}…, not "
            f"{dataset.digest[:12]}…)"
        )
    vocab, data = dataset.vocab, record.data
    every = (one for part in there.read(record.configs, dataset) for one in part.items())
    return {i: one.trained(vocab, data) for i, one in every if one.dev}
