"""Whole training steps on a CPU: minibatch drawing, forward, backward, update.

Stock are the rows of stock_rows.py. Of mlpkern:

    ops   the engine of that name in `mlpkern.lm`: a loop over minibatches drawn by the chunk with
          the fused ops; with AdamW the same loop here, with `torch.optim.AdamW(fused=True)`
    run   `mlpkern.train_steps`: many steps of all models in one call, on minibatches drawn before

All providers train on the same rows, draw the same minibatches and start from the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Cost, Settings
from bench.core.providers import MLPKERN, Contest, Prepared, Provider, backend_switch, named
from bench.training.case import BETAS, EPS, WEIGHT_DECAY, TrainingCase, every_model, start
from bench.training.jax_rows import training_rows
from bench.training.stock_loops import chunk_loop, lecture_loop, stock_results
from bench.training.stock_rows import loop_prepared, stock_rows

OURS = "run"
NAMES = ("losses", "embedding", "hidden weight", "hidden bias", "output weight", "output bias")


def contest(
    case: TrainingCase,
    cost: Cost,
    settings: Settings,
    run: Callable[..., Prepared] | None = None,
) -> Contest:
    """The provider table, in the order in which rows are printed.

    `run` makes the row `run` of a case ready, by default a call of `train_steps`, which the
    reference backend has as well.
    """
    reference = run is None and not case.slow and not settings.quick
    ours = {"ops": partial(ops_prepared, case), OURS: partial(run or run_prepared, case)}
    rows = [*stock_rows(case, settings), *training_rows(case, settings)]
    counts = sorted({settings.threads} if case.slow else {1, settings.threads}, reverse=True)
    for name, make in ours.items():
        backends = [(f"{name} on reference", "reference", settings.threads)] if reference else []
        backends += [(named(name, count, settings.threads), "cpu", count) for count in counts]
        for label, backend, count in backends:
            cores = case.cores(count) if name == OURS and backend == "cpu" else count
            switch = backend_switch(backend, count)
            rows.append(Provider(label, MLPKERN, count, make, switch, backend, cores))
    exact = stock_results(case, lecture_loop, torch.float64)
    return Contest(rows, Yardstick(NAMES, exact, stock_results(case, lecture_loop)))


def ops_prepared(case: TrainingCase) -> Prepared:
    """The models one after the other by the engine `ops`."""
    if case.optimizer != "sgd":
        return loop_prepared(case, chunk_loop(fused_loss, "fused"))
    from mlpkern.lm import OpsEngine

    engine, steps = OpsEngine(), case.stock_steps
    states = [start(case, m) for m in every_model(case)]
    first = [deepcopy(state.model.state_dict()) for state in states] if case.length else []

    def call() -> None:
        for m, state in enumerate(states):
            if case.length and state.step == case.length:
                state.model.load_state_dict(first[m])
                state.step = 0
            engine.run_chunk(state, steps)

    def results() -> tuple[Tensor, ...]:
        fresh = [start(case.checked, m) for m in every_model(case)]
        losses = torch.stack([engine.run_chunk(state, case.checked_steps) for state in fresh])
        parameters = stacked(list(state.model.parameters()) for state in fresh)
        return case.compared((losses, *parameters))

    return Prepared(call, results, steps * len(states))


def stacked(parameters: Iterable[list[Tensor]]) -> list[Tensor]:
    """The parameters of several models with a leading axis of models."""
    return [torch.stack(same).detach() for same in zip(*parameters, strict=True)]


def fused_loss(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    """`loss_of` by the three ops."""
    import mlpkern

    embedding, weight1, bias1, weight2, bias2 = parameters
    x = mlpkern.embedding_gather(ids, embedding)  # (N, T*D)
    h = mlpkern.linear_tanh(x, weight1, bias1)  # (N, H)
    return mlpkern.cross_entropy(torch.nn.functional.linear(h, weight2, bias2), targets)


class Run:
    """All models of a case on a device as `mlpkern.train_steps` takes them."""

    def __init__(self, case: TrainingCase, device: str = "cpu"):
        import mlpkern

        self.case, self.device = case, device
        self.states = [start(case, m) for m in every_model(case)]
        single = [mlpkern.MLPParams.from_module(state.model) for state in self.states]
        self.params = mlpkern.MLPParams.stack(single).map(lambda tensor: tensor.to(device))
        self.train = self.states[0].train.to(device)
        self.options = {}
        if case.optimizer == "adamw":
            self.options = {"weight_decay": WEIGHT_DECAY, "betas": BETAS, "eps": EPS}
        self.state = mlpkern.OptimizerState.zeros(self.params, case.optimizer)

    def draw(self, steps: int) -> Tensor:
        """Row numbers (M, S, N) by the generators of the models, which draw on the CPU."""
        drawn = torch.stack([state.draw_batches(steps) for state in self.states])
        return drawn.to(self.device)

    def take(self, rows: Tensor) -> Tensor:
        """The losses (M, S) of S steps on the minibatches `rows` (M, S, N)."""
        import mlpkern

        return mlpkern.train_steps(
            self.params,
            self.train.inputs,
            self.train.targets,
            rows,
            self.case.rate,
            optimizer=self.case.optimizer,
            state=self.state,
            **self.options,
        )

    def results(self) -> tuple[Tensor, ...]:
        """Losses and parameters after the checked steps."""
        return (self.take(self.draw(self.case.checked_steps)), *self.params.tensors())


def run_prepared(case: TrainingCase) -> Prepared:
    run, steps = Run(case), case.run_steps
    units = steps * case.sizes["M"]
    return Prepared(lambda: run.take(run.draw(steps)), lambda: Run(case).results(), units)
