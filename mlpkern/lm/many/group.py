"""Models of a population that have one shape: what a single call of train_steps advances.

Sizes: M models of a group, S steps of a chunk, N rows of a batch.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Collection, Generator

import torch
from torch import Tensor

import mlpkern
from mlpkern.lm.many.drawn_batches import Drawing, Drawn
from mlpkern.lm.many.trained import KeptBest, Trained, copy_into
from mlpkern.lm.model.config import TrainConfig, seed_for
from mlpkern.lm.model.state import TrainState, initial_model
from mlpkern.lm.training.divergence import divergence
from mlpkern.lm.training.engines import MAX_ROWS
from mlpkern.lm.training.evaluation import Metrics
from mlpkern.lm.training.options import common_options, own_options
from mlpkern.lm.words.data import Dataset

__all__ = ["Group", "judged_every"]

CHUNK_SECONDS = 0.5  # how often the progress moves
FIRST_CHUNK = 64
# Row numbers of a chunk on a GPU, 128 MB: between two chunks it waits for the processor.
CUDA_ROWS = 32_000_000


class Group:
    """Models of one shape, number of steps and optimizer.

    Where `judged_every` says so, their dev losses are taken on the way, the best model of each is
    kept, and a model whose patience has ended is done: it leaves the arrays, which changes nothing
    for the others.
    """

    def __init__(
        self,
        configs: dict[int, TrainConfig],
        dataset: Dataset,
        max_points: int,
        keep_best: bool = False,
    ) -> None:
        self._rows = list(configs)  # (M) the numbers of the models in the rows of every tensor
        self._done: dict[int, Trained] = {}
        self._best = {i: KeptBest() for i in configs}
        first = configs[self._rows[0]]
        self._eval_every = judged_every(first, keep_best)
        self.steps = first.steps
        splits = dataset.splits_for(first.block_size)
        self._train, self._dev = splits["train"], splits["dev"]
        device = self._train.targets.device
        self._states = [
            TrainState.start(
                initial_model(config, len(dataset.vocab)).to(device), self._train, config
            )
            for config in configs.values()
        ]
        own = [mlpkern.MLPParams.from_module(state.model) for state in self._states]
        self._params = mlpkern.MLPParams.stack(own)
        self._optimizer = mlpkern.OptimizerState.zeros(
            self._params, first.optimizer, first.momentum
        )
        self._curve = _Curve(len(own), self.steps, max_points)
        self._chunk = FIRST_CHUNK
        self._pace = math.inf  # seconds a step of the last chunk

    def seconds(self, end: int) -> float:
        """How long it will take to train to step ``end``; inf before the first chunk."""
        left = end - self._optimizer.step if self._rows else 0
        return left * self._pace if left > 0 else 0.0

    @property
    def members(self) -> list[int]:
        """The numbers that the models are called by."""
        return [*self._rows, *self._done]

    def advance(self, end: int) -> Generator[int, None, None]:
        """Trains all to step ``end``, a chunk at a time; yields the steps of each, of all models.

        train_steps warns of a model that stops.
        """
        while self._rows and (done := self._optimizer.step) < end:
            every = self._eval_every
            yield from self._advance(min(end, done - done % every + every) if every else end)
            step = self._optimizer.step
            if every is not None and (step == self.steps or (every and step % every == 0)):
                self._judge()

    def _advance(self, end: int) -> Generator[int, None, None]:
        states = self._states
        configs = [state.config for state in states]
        options = {**common_options(configs[0]), **own_options(configs)}
        device = self._train.targets.device
        most = max(
            1,
            (CUDA_ROWS if device.type == "cuda" else MAX_ROWS)
            // (len(configs) * configs[0].batch_size),
        )
        with Drawing(states, device) as drawing:
            following: Drawn | None = None
            while (done := self._optimizer.step) < end:
                began = time.perf_counter()
                drawn = following or drawing.begin(done, min(self._chunk, most, end - done))
                drawn.wait()
                chunk = drawn.rates.shape[1]
                left = end - done - chunk
                following = None
                if left and drawing.ahead:
                    following = drawing.begin(done + chunk, min(self._chunk, most, left))
                losses = mlpkern.train_steps(
                    self._params,
                    self._train.inputs,
                    self._train.targets,
                    drawn.batches.to(device, non_blocking=True),
                    drawn.rates,
                    state=self._optimizer,
                    **options,
                )
                drawing.aside(self._curve.add, losses.cpu())
                self._pace = max(time.perf_counter() - began, 1e-9) / chunk
                self._chunk = max(1, min(4 * chunk, int(CHUNK_SECONDS / self._pace)))
                yield chunk * len(configs)

    def _judge(self) -> None:
        """Takes the dev losses, keeps the best models, and ends those without patience left."""
        step, going = self._optimizer.step, []
        for m, (i, metrics) in enumerate(self._measured(self._params).items()):
            best, config = self._best[i], self._states[m].config
            if best.take(step, metrics.loss) and step < self.steps:  # else the model itself is kept
                best.keep(metrics, self._params.model(m))
            if step < self.steps and best.ends(config.patience):
                self._done[i] = self._result(m, metrics)
            else:
                going.append(i)
        if len(going) < len(self._rows):
            self._keep_rows(going)

    def dev(self, cooldown: int = 0) -> dict[int, Metrics]:
        """The metrics of each on the dev split, or after a cool-down of so many steps; of those
        that are done, the metrics they ended with."""
        done = {i: trained.dev for i, trained in self._done.items()}
        if not self._rows:
            return done
        params = self._cooled(cooldown) if cooldown else self._params
        return self._measured(params) | done

    def _measured(self, params: mlpkern.MLPParams) -> dict[int, Metrics]:
        measured = mlpkern.evaluate(params, self._dev.inputs, self._dev.targets)
        both = zip(measured.loss.tolist(), measured.accuracy.tolist(), strict=True)
        metrics = [Metrics(loss, accuracy, len(self._dev)) for loss, accuracy in both]
        return dict(zip(self._rows, metrics, strict=True))

    def _cooled(self, steps: int) -> mlpkern.MLPParams:
        """Copies after ``steps`` more steps at rates that fall evenly from the present one to 0.

        Their batches are a stream of their own, so the runs themselves take no notice.
        """
        params, optimizer = self._params.clone(), self._optimizer.clone()
        configs = [state.config for state in self._states]
        done, rows, drawn = optimizer.step, len(self._train), []
        for config in configs:
            seed = seed_for(config.seed, f"cooldown {done}")
            generator = torch.Generator().manual_seed(seed)
            shape = (steps, config.batch_size)
            drawn.append(torch.randint(rows, shape, generator=generator, device="cpu"))
        done_part = torch.arange(1, steps + 1, dtype=torch.float64, device="cpu") / (steps + 1)
        fall = 1 - done_part
        rates = torch.stack([config.learning_rates(done, 1) * fall for config in configs])  # (M, S)
        mlpkern.train_steps(
            params,
            self._train.inputs,
            self._train.targets,
            torch.stack(drawn).to(self._train.targets.device),
            rates,
            state=optimizer,
            **common_options(configs[0]),
            **own_options(configs),
        )
        return params

    def keep(self, members: Collection[int]) -> None:
        """Drops every other model."""
        self._done = {i: trained for i, trained in self._done.items() if i in members}
        self._keep_rows([i for i in self._rows if i in members])

    def _keep_rows(self, members: list[int]) -> None:
        rows = [self._rows.index(i) for i in members]
        self._rows, self._best = members, {i: self._best[i] for i in members}
        if not rows:
            return
        self._states = [self._states[m] for m in rows]
        self._params = _rows_of(self._params, rows)
        old = self._optimizer
        moments = [None if p is None else _rows_of(p, rows) for p in (old.first, old.second)]
        self._optimizer = mlpkern.OptimizerState(old.step, old.stopped[rows], *moments)
        self._curve.keep(rows)

    def results(self) -> dict[int, Trained]:
        """What became of each, by its number; later steps do not change it."""
        measured = self._measured(self._params) if self._rows else {}
        going = {i: self._result(m, dev) for m, (i, dev) in enumerate(measured.items())}
        return going | self._done

    def _result(self, m: int, dev: Metrics) -> Trained:
        """What became of row ``m``, whose present metrics are ``dev``."""
        state, old = _copied(self._states[m]), self._optimizer
        copy_into(state.model, self._params.model(m))
        moments = [None if p is None else p.model(m).clone() for p in (old.first, old.second)]
        state.optimizer = mlpkern.OptimizerState(old.step, old.stopped[m : m + 1].clone(), *moments)
        stopped = int(old.stopped[m])
        return Trained(
            state.config,
            state.model,
            self._curve.points(m),
            self._curve.every,
            dev,
            None if stopped < 0 else stopped,
            state,
            self._best[self._rows[m]].model(state, dev),
            divergence(state, dev.loss) if stopped < 0 else None,
        )


def judged_every(config: TrainConfig, keep_best: bool) -> int | None:
    """The steps between dev losses of a model, 0: only at the end; None: none are needed."""
    return config.eval_every if keep_best or config.patience else None


def _copied(state: TrainState) -> TrainState:
    """``state`` with a model and a generator of its own, which later steps leave alone."""
    generator = torch.Generator()
    generator.set_state(state.generator.get_state())
    return dataclasses.replace(state, model=copy.deepcopy(state.model), generator=generator)


def _rows_of(params: mlpkern.MLPParams, rows: list[int]) -> mlpkern.MLPParams:
    return params.map(lambda tensor: tensor[rows])


class _Curve:
    """Means of every ``every`` losses of M models, the same bits however the chunks are cut.

    Sums run one after the other in float64 and are carried from chunk to chunk.
    """

    def __init__(self, models: int, steps: int, max_points: int) -> None:
        self.every = max(1, -(-steps // max_points))
        self._sums = torch.zeros(models, 1, dtype=torch.float64, device="cpu")  # so far
        self._kept = [self._sums]  # the sums after every `every` steps
        self._steps, self._total = 0, steps

    def add(self, losses: Tensor) -> None:
        """The next losses (M, S)."""
        sums = torch.cat([self._sums, losses.double()], 1).cumsum(1)[:, 1:]  # (M, S)
        ends = torch.arange(losses.shape[1], device="cpu") + self._steps + 1
        self._kept.append(sums[:, (ends % self.every == 0) | (ends == self._total)])
        self._sums = sums[:, -1:]
        self._steps += losses.shape[1]

    def keep(self, rows: list[int]) -> None:
        """Drops the curves of all other models."""
        self._sums = self._sums[rows]
        self._kept = [kept[rows] for kept in self._kept]

    def points(self, m: int) -> Tensor:
        """The curve of model ``m`` so far: (points,) float32."""
        sums = torch.cat([kept[m] for kept in self._kept])
        counts = torch.full_like(sums[1:], self.every)
        if self._steps == self._total and self._total % self.every:
            counts[-1] = self._total % self.every
        return (sums.diff() / counts).float()
