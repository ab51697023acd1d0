"""The models of a population that have one shape, trained by one call of `mlpkern.train_steps`.

Sizes: M models of a group, S steps of a chunk, N rows of a batch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any

import torch
from torch import Tensor

import mlpkern
from mlpkern.lm.many.drawn_batches import Drawing, Drawn, drawn_rows
from mlpkern.lm.many.loss_curve import Curve, LossCurve
from mlpkern.lm.many.snapshot import KeptBest, Snapshot, copied, copy_into
from mlpkern.lm.many.trained import BestModel, Trained
from mlpkern.lm.model.config import TrainConfig, seed_for
from mlpkern.lm.model.state import TrainState, initial_model
from mlpkern.lm.training.chunks import is_evaluated
from mlpkern.lm.training.divergence import divergence
from mlpkern.lm.training.evaluation import Metrics
from mlpkern.lm.training.options import common_options, own_options
from mlpkern.lm.training.run import MAX_ROWS
from mlpkern.lm.words.data import Dataset

CHUNK_SECONDS = 0.5  # between updates of the progress
FIRST_CHUNK = 64
# Row numbers of a chunk on a GPU, 128 MB; large, because between chunks the GPU waits for the CPU.
CUDA_ROWS = 32_000_000


class Group:
    """Models of one shape, number of steps and optimizer.

    If `judged_every` asks for dev losses during the run, the best model of each is kept, and a
    model whose patience has ended leaves the arrays, which does not change the others. ``saved``
    continues models from snapshots; those that have not ended must all be there, at one step.
    """

    def __init__(
        self,
        configs: dict[int, TrainConfig],
        dataset: Dataset,
        max_points: int,
        keep_best: bool = False,
        data: dict[str, Any] | None = None,
        saved: Mapping[int, Snapshot] | None = None,
    ) -> None:
        self._vocab, self._data = dataset.vocab, data or {"digest": dataset.digest}
        saved = saved or {}
        self._done = {i: one for i, one in saved.items() if one.dev is not None}
        # (M) the number of the model in each row of every tensor
        self._rows = [i for i in configs if i not in self._done]
        self._best = {i: saved[i].best if i in saved else KeptBest() for i in self._rows}
        first = next(iter(configs.values()))
        self._eval_every = judged_every(first, keep_best)
        self.steps = first.steps
        splits = dataset.splits_for(first.block_size)
        self._train, self._dev = splits["train"], splits["dev"]
        self._chunk = FIRST_CHUNK
        self._pace = math.inf  # seconds per step in the last chunk
        self._seconds = {i: saved[i].seconds if i in saved else 0.0 for i in self._rows}
        if not self._rows:
            return
        device = self._train.targets.device
        self._states = [
            saved[i].state
            if i in saved
            else TrainState.start(
                initial_model(configs[i], len(dataset.vocab)).to(device), self._train, configs[i]
            )
            for i in self._rows
        ]
        own = [mlpkern.MLPParams.from_module(state.model) for state in self._states]
        self._params = mlpkern.MLPParams.stack(own)
        self._optimizer = mlpkern.OptimizerState.zeros(
            self._params, first.optimizer, first.momentum
        )
        self._curve = LossCurve(len(own), self.steps, max_points)
        if saved:
            self._restore([saved[i] for i in self._rows])

    def _restore(self, saved: list[Snapshot]) -> None:
        """Continues from a snapshot of the model in each row; their parameters are there already,
        and their generators."""
        optimizer = self._optimizer
        optimizer.step = saved[0].state.step
        for m, one in enumerate(saved):
            own = one.state.optimizer
            optimizer.stopped[m] = own.stopped[0]
            for ours, theirs in ((optimizer.first, own.first), (optimizer.second, own.second)):
                if ours is not None and theirs is not None:
                    copy_into(ours.model(m), theirs)
        self._curve.restore([one.sums for one in saved], optimizer.step)

    def seconds(self, end: int) -> float:
        """The time that training to step ``end`` will take; inf before the first chunk."""
        left = end - self._optimizer.step if self._rows else 0
        return left * self._pace if left > 0 else 0.0

    @property
    def ended(self) -> bool:
        """Whether no model of it is in training, see `end`."""
        return not self._rows

    @property
    def step(self) -> int:
        """The steps done by the models in training; `steps` if none is."""
        return self._optimizer.step if self._rows else self.steps

    @property
    def steps_done(self) -> int:
        """The steps done, over all models."""
        return self.step * len(self._rows) + sum(one.state.step for one in self._done.values())

    @property
    def members(self) -> list[int]:
        """The numbers of all models, also of those whose patience has ended."""
        return [*self._rows, *self._done]

    def advance(
        self, end: int, until: Callable[[], bool] = lambda: False
    ) -> Generator[int, None, None]:
        """Trains all to step ``end`` in chunks; yields the steps of each chunk, over all models.

        Ends before where ``until``, asked between chunks, says so. `mlpkern.train_steps` warns of a
        model that stops.
        """
        while self._rows and (done := self._optimizer.step) < end:
            every = self._eval_every
            part = min(end, done - done % every + every) if every else end
            yield from self._advance(part, until)
            step = self._optimizer.step
            if every is not None and is_evaluated(self._states[0].config, step):
                self._judge()
            if step < part:
                return

    def _advance(self, end: int, until: Callable[[], bool]) -> Generator[int, None, None]:
        states = self._states
        device = self._train.targets.device
        rows = CUDA_ROWS if device.type == "cuda" else MAX_ROWS
        most = max(1, rows // (len(states) * states[0].config.batch_size))  # steps of a chunk
        with Drawing(states, device) as drawing:
            following: Drawn | None = None
            while (done := self._optimizer.step) < end:
                began = time.perf_counter()
                drawn = following or drawing.begin(done, min(self._chunk, most, end - done))
                drawn.wait()
                chunk = drawn.rates.shape[1]
                left = end - done - chunk
                following = None
                if left and drawing.ahead and not until():
                    following = drawing.begin(done + chunk, min(self._chunk, most, left))
                batches = drawn.batches.to(device, non_blocking=True)
                losses = self._train_steps(self._params, self._optimizer, batches, drawn.rates)
                drawing.aside(self._curve.add, losses.cpu())
                elapsed = max(time.perf_counter() - began, 1e-9)
                self._pace = elapsed / chunk
                for i in self._rows:
                    self._seconds[i] += elapsed / len(states)
                self._chunk = max(1, min(4 * chunk, int(CHUNK_SECONDS / self._pace)))
                yield chunk * len(states)
                if following is None and until():  # what is drawn must be trained
                    return

    def _judge(self) -> None:
        """Takes the dev losses, keeps the best models, ends those without patience left."""
        step, going = self._optimizer.step, []
        for m, (i, metrics) in enumerate(self._measured(self._params).items()):
            best, config = self._best[i], self._states[m].config
            if best.take(step, metrics.loss) and step < self.steps:  # the last model is kept anyway
                best.keep(BestModel(self._state(m), metrics))
            if step < self.steps and best.ends(config.patience):
                self._done[i] = self._snapshot(m, metrics)
            else:
                going.append(i)
        if len(going) < len(self._rows):
            self._keep_rows(going)

    def dev(self, cooldown: int = 0) -> dict[int, Metrics]:
        """The metrics of each model on dev, after a cool-down of so many steps if not 0; of models
        whose patience has ended, their last metrics."""
        done = {i: one.dev for i, one in self._done.items() if one.dev is not None}
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
        """Copies of the parameters after ``steps`` more steps, at rates falling linearly to 0.

        The batches are drawn from other generators, so the runs themselves do not change.
        """
        params, optimizer = self._params.clone(), self._optimizer.clone()
        configs = [state.config for state in self._states]
        done, batch_size = optimizer.step, configs[0].batch_size
        seeds = [seed_for(config.seed, f"cooldown {done}") for config in configs]
        batches = drawn_rows(seeds, len(self._train), steps, batch_size)
        fall = 1 - torch.arange(1, steps + 1, dtype=torch.float64, device="cpu") / (steps + 1)
        rates = torch.stack([config.learning_rates(done, 1) * fall for config in configs])  # (M, S)
        self._train_steps(params, optimizer, batches.to(self._train.targets.device), rates)
        return params

    def _train_steps(
        self,
        params: mlpkern.MLPParams,
        optimizer: mlpkern.OptimizerState,
        batches: Tensor,
        rates: Tensor,
    ) -> Tensor:
        configs = [state.config for state in self._states]
        return mlpkern.train_steps(
            params, self._train.inputs, self._train.targets, batches, rates, state=optimizer,
            **common_options(configs[0]), **own_options(configs),
        )  # fmt: skip

    def keep(self, members: Collection[int]) -> None:
        """Drops all other models."""
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

    def end(self) -> None:
        """Measures the models in training, which are at their last step."""
        measured = self._measured(self._params) if self._rows else {}
        for m, (i, dev) in enumerate(measured.items()):
            self._done[i] = self._snapshot(m, dev)
        self._keep_rows([])

    def snapshots(self) -> dict[int, Snapshot]:
        """Each model by its number, without dev losses of those in training."""
        return {i: self._snapshot(m, None) for m, i in enumerate(self._rows)} | self._done

    def curves(self) -> dict[int, Curve]:
        """The loss curve of each model so far, by its number."""
        going = {i: self._curve.curve(m) for m, i in enumerate(self._rows)}
        return going | {i: one.curve for i, one in self._done.items()}

    def results(self) -> dict[int, Trained]:
        """The result of each model by its number; a copy, which later steps do not change."""
        measured = self._measured(self._params) if self._rows else {}
        going = {i: self._snapshot(m, dev) for m, (i, dev) in enumerate(measured.items())}
        every = going | self._done
        return {i: one.trained(self._vocab, self._data) for i, one in every.items()}

    def _snapshot(self, m: int, dev: Metrics | None) -> Snapshot:
        """Row ``m``, whose metrics are ``dev``."""
        state, i = self._state(m), self._rows[m]
        finite = int(state.optimizer.stopped) < 0
        return Snapshot(
            state,
            copy.copy(self._best[i]),
            self._curve.sums(m),
            self._curve.every,
            self._seconds[i],
            dev,
            divergence(state, dev.loss) if dev and finite else None,
        )

    def _state(self, m: int) -> TrainState:
        """The state of row ``m``; a copy, which later steps do not change."""
        state, own = copied(self._states[m]), self._optimizer
        copy_into(mlpkern.MLPParams.from_module(state.model), self._params.model(m))
        moments = [None if p is None else p.model(m).clone() for p in (own.first, own.second)]
        state.optimizer = mlpkern.OptimizerState(own.step, own.stopped[m : m + 1].clone(), *moments)
        return state


def judged_every(config: TrainConfig, keep_best: bool) -> int | None:
    """The steps between dev losses of a model; 0: only at the end; None: not needed at all."""
    return config.eval_interval if keep_best or config.patience else None


def _rows_of(params: mlpkern.MLPParams, rows: list[int]) -> mlpkern.MLPParams:
    return params.map(lambda tensor: tensor[rows])
