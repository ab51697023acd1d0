"""Many configurations trained side by side: one call of `mlpkern.train_steps` for all of a shape.

>>> from dataclasses import replace
>>> from mlpkern import lm
>>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
>>> base = lm.TrainConfig(steps=5_000, lr=((0, 0.1),))
>>> widths = [replace(base, hidden=(h,), seed=s) for h in (50, 100, 200) for s in range(4)]
>>> for trained in lm.population(widths, dataset):  # three groups of four models
...     print(trained.config.hidden, trained.config.seed, trained.dev.loss)

Sizes: M models of a group, S steps of a chunk, N rows of a batch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import mlpkern
from mlpkern.lm.config import TrainConfig, seed_for
from mlpkern.lm.data import Dataset, Split
from mlpkern.lm.engines import MAX_ROWS
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.evaluate import Metrics
from mlpkern.lm.model import MLPLanguageModel
from mlpkern.lm.progress import NoProgress, Progress
from mlpkern.lm.state import TrainState
from mlpkern.lm.step_options import common_options, own_options

__all__ = ["Trained", "population"]

CHUNK_SECONDS = 0.5  # how long Ctrl-C waits, and how often the progress moves
FIRST_CHUNK = 64


@dataclass(frozen=True)
class Trained:
    """A configuration after its run.

    losses   (points,) float32: the mean loss of every ``every`` steps, of fewer at the end
    stopped  the step whose loss was not finite, where this model stopped; None: it ran to the end.
             ``losses`` are nan from there on, and ``model`` is what it was before that step
    """

    config: TrainConfig
    model: MLPLanguageModel
    losses: Tensor
    every: int
    dev: Metrics
    stopped: int | None


def population(
    configs: Sequence[TrainConfig],
    dataset: Dataset,
    *,
    max_points: int = 2_000,
    progress: Progress | None = None,
) -> list[Trained]:
    """Every one of ``configs`` trained on the words of ``dataset``, in the order given.

    Configurations with the same block size, widths, batch size, number of steps and optimizer (with
    its momentum, gradient bound and label smoothing) advance together; learning rates, decay,
    dropout, seeds and initial parameters may differ. Each result has the bits of
    a training of that configuration alone with the engine `run`, whatever else is in the list.

    Args:
        configs: what to train. Of each, ``split_seed`` and the intervals of logs, dev losses and
            checkpoints have no effect: the splits are those of ``dataset``, and nothing is written.
        dataset: its device is where the training happens. For a block size other than its own the
            windows are made from its words.
        max_points: the most points of a loss curve, at least 1.
        progress: told of every step of every model (`mlpkern.lm.progress`).

    A model whose loss is not finite stops with a RuntimeWarning that names its place in the list;
    the others go on. Ctrl-C ends the call between two chunks with KeyboardInterrupt.
    """
    if max_points < 1:
        raise ConfigError(f"population: max_points must be at least 1, got {max_points}")
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, config in enumerate(configs):
        shape = (config.block_size, config.embedding_dim, config.hidden)
        same = (*shape, config.batch_size, config.steps, *common_options(config).values())
        groups.setdefault(same, []).append(i)
    results: dict[int, Trained] = {}
    for members in groups.values():
        group = [configs[i] for i in members]
        splits = dataset.splits_for(group[0].block_size)
        trained = _train_group(group, dataset, splits, max_points, progress or NoProgress())
        results |= dict(zip(members, trained, strict=True))
    for i, result in sorted(results.items()):
        if result.stopped is not None:
            warnings.warn(
                f"population: configuration {i} stopped at step {result.stopped}: its loss was "
                "not finite; a smaller learning rate usually helps",
                RuntimeWarning,
                stacklevel=2,
            )
    return [results[i] for i in range(len(configs))]


def _train_group(
    configs: list[TrainConfig],
    dataset: Dataset,
    splits: dict[str, Split],
    max_points: int,
    progress: Progress,
) -> list[Trained]:
    """`population` for configurations of one shape."""
    train, dev = splits["train"], splits["dev"]
    states = [TrainState.start(_model(c, dataset), train, c) for c in configs]
    own = [mlpkern.MLPParams.from_module(state.model) for state in states]
    params = mlpkern.MLPParams.stack(own)
    common = common_options(configs[0])
    going = mlpkern.OptimizerState.zeros(params, configs[0].optimizer, configs[0].momentum)
    options = {**common, **own_options(configs)}
    steps, batch_size = configs[0].steps, configs[0].batch_size
    curve = _Curve(len(configs), steps, max_points)
    most = max(1, MAX_ROWS // (len(configs) * batch_size))
    done, chunk = 0, min(most, FIRST_CHUNK)
    while done < steps:
        chunk = min(chunk, steps - done)
        began = time.perf_counter()
        batches = torch.stack([s.draw_batches(chunk) for s in states])  # (M, S, N)
        rates = torch.stack([s.learning_rates(chunk) for s in states])  # (M, S)
        with warnings.catch_warnings():  # `population` says it with the place in its list
            warnings.filterwarnings("ignore", "train_steps: ", RuntimeWarning)
            losses = mlpkern.train_steps(
                params,
                train.inputs,
                train.targets,
                batches.to(train.targets.device),
                rates,
                state=going,
                **options,
            )
        curve.add(losses.cpu())
        for state in states:
            state.step += chunk
        done += chunk
        progress.advance(chunk * len(configs))
        elapsed = max(time.perf_counter() - began, 1e-9)
        chunk = max(1, min(most, 4 * chunk, int(chunk * CHUNK_SECONDS / elapsed)))
    measured = mlpkern.evaluate(params, dev.inputs, dev.targets)
    results = []
    for m, config in enumerate(configs):
        with torch.no_grad():
            for ours, theirs in zip(own[m].tensors(), params.model(m).tensors(), strict=True):
                ours.copy_(theirs)
        metrics = Metrics(measured.loss[m].item(), measured.accuracy[m].item(), len(dev))
        stopped = int(going.stopped[m])
        results.append(
            Trained(
                config,
                states[m].model,
                curve.points(m),
                curve.every,
                metrics,
                None if stopped < 0 else stopped,
            )
        )
    return results


def _model(config: TrainConfig, dataset: Dataset) -> MLPLanguageModel:
    """The model that a training of ``config`` starts with."""
    model = MLPLanguageModel(
        len(dataset.vocab),
        config.block_size,
        config.embedding_dim,
        config.hidden,
        init=config.init,
        seed=seed_for(config.seed, "init"),
    )
    return model.to(dataset.splits["train"].targets.device)


class _Curve:
    """Means of every ``every`` losses of M models, the same bits however the chunks are cut.

    Sums run one after the other in float64 and are carried from chunk to chunk.
    """

    def __init__(self, models: int, steps: int, max_points: int) -> None:
        self.every = max(1, -(-steps // max_points))
        self._sums = torch.zeros(models, 1, dtype=torch.float64)  # of the steps so far
        self._kept = [self._sums]  # the sums after every `every` steps
        self._steps, self._total = 0, steps

    def add(self, losses: Tensor) -> None:
        """The next losses (M, S)."""
        sums = torch.cat([self._sums, losses.double()], 1).cumsum(1)[:, 1:]  # (M, S)
        ends = torch.arange(self._steps + 1, self._steps + 1 + losses.shape[1])
        self._kept.append(sums[:, (ends % self.every == 0) | (ends == self._total)])
        self._sums = sums[:, -1:]
        self._steps += losses.shape[1]

    def points(self, m: int) -> Tensor:
        """The curve of model ``m``: (points,) float32."""
        sums = torch.cat([kept[m] for kept in self._kept])
        counts = torch.full((len(sums) - 1,), float(self.every), dtype=torch.float64)
        if self._total % self.every:
            counts[-1] = self._total % self.every
        return (sums.diff() / counts).float()
