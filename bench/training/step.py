"""Whole training steps: batch drawing, forward, backward, update. Who takes part, and the checks.

Stock are the rows of stock_rows.py. Of mlpkern:

    ops   the engine of that name in `mlpkern.lm`: a loop over batches drawn by the chunk with the
          fused ops; with AdamW the same loop here, with `torch.optim.AdamW(fused=True)`
    run   `mlpkern.train_steps`: many steps of all models in one call, on batches drawn before it

All providers train on the same rows, draw the same batches and start from the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy

import torch
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Cost, Settings
from bench.core.providers import MLPKERN, Contest, Prepared, Provider, backend_switch, named
from bench.training.case import BETAS, EPS, WEIGHT_DECAY, TrainingCase, every_model, start
from bench.training.stock_loops import chunk_loop, lecture_loop, stock_results
from bench.training.stock_rows import Results, everything, loop_prepared, stock_rows

OURS = "run"
NAMES = ("losses", "embedding", "hidden weight", "hidden bias", "output weight", "output bias")


def contest(case: TrainingCase, cost: Cost, settings: Settings) -> Contest:
    """The provider table of a training step on a CPU, in the order in which rows are printed."""
    ours = {"ops": lambda: ops_prepared(case), OURS: lambda: _run_prepared(case)}
    reference = not case.slow
    rows = [*stock_rows(case, settings), *our_rows(case, settings.threads, ours, reference)]
    exact = stock_results(case, lecture_loop, torch.float64)
    return Contest(rows, Yardstick(NAMES, exact, stock_results(case, lecture_loop)))


def our_rows(
    case: TrainingCase,
    threads: int,
    ours: Mapping[str, Callable[[], Prepared]],
    reference: bool,
) -> list[Provider]:
    """Each of `ours` with all threads and with one, with `reference` on that backend too."""
    counts = {threads} if case.slow else {1, threads}
    rows = []
    for name, make in ours.items():
        settings = [(f"{name} on reference", "reference", threads)] if reference else []
        settings += [(named(name, n, threads), "cpu", n) for n in sorted(counts, reverse=True)]
        for label, backend, count in settings:
            used = case.cores(count) if name == OURS and backend == "cpu" else count
            switch = backend_switch(backend, count)
            rows.append(Provider(label, MLPKERN, count, make, switch, backend, used))
    return rows


def ops_prepared(case: TrainingCase, checked: Results = everything) -> Prepared:
    """The models one after the other by the engine `ops`; `checked` is that of `stock_rows`."""
    if case.optimizer != "sgd":
        return loop_prepared(case, chunk_loop(fused_loss, "fused"))
    from mlpkern.lm.training.engines import OpsEngine

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
        return checked(
            (losses, *stacked(list(state.model.parameters()) for state in fresh)),
        )

    return Prepared(call, results, steps * len(states))


def stacked(parameters: Iterable[list[Tensor]]) -> list[Tensor]:
    """The parameters of several models with a leading axis of models."""
    return [torch.stack(same).detach() for same in zip(*parameters, strict=True)]


def _run_prepared(case: TrainingCase) -> Prepared:
    steps, run = case.run_steps, Run(case)
    units = steps * case.sizes["M"]
    return Prepared(lambda: run.take(steps), lambda: Run(case).results(), units)


def fused_loss(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    """`loss_of` by the three ops."""
    import mlpkern

    embedding, weight1, bias1, weight2, bias2 = parameters
    x = mlpkern.embedding_gather(ids, embedding)  # (N, T*D)
    h = mlpkern.linear_tanh(x, weight1, bias1)  # (N, H)
    return mlpkern.cross_entropy(torch.nn.functional.linear(h, weight2, bias2), targets)


class Run:
    """All models of a case as `mlpkern.train_steps` takes them."""

    def __init__(self, case: TrainingCase):
        import mlpkern

        self.case = case
        self.states = [start(case, m) for m in every_model(case)]
        single = [mlpkern.MLPParams.from_module(state.model) for state in self.states]
        self.params = mlpkern.MLPParams.stack(single)
        self.options = {}
        if case.optimizer == "adamw":
            self.options = {"weight_decay": WEIGHT_DECAY, "betas": BETAS, "eps": EPS}
        self.state = mlpkern.OptimizerState.zeros(self.params, case.optimizer)

    def take(self, steps: int) -> Tensor:
        """Draws the batches of `steps` steps and takes them; losses (M, steps)."""
        import mlpkern

        train = self.states[0].train
        return mlpkern.train_steps(
            self.params,
            train.inputs,
            train.targets,
            torch.stack([state.draw_batches(steps) for state in self.states]),  # (M, S, N)
            self.case.rate,
            optimizer=self.case.optimizer,
            state=self.state,
            **self.options,
        )

    def results(self) -> tuple[Tensor, ...]:
        return (self.take(self.case.checked_steps), *self.params.tensors())
