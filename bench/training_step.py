"""Whole training steps: batch drawing, forward, backward, update. Who takes part, and the checks.

Stock are the loops of stock_training.py, for several models also two_processes.py. Of mlpkern:

    ops   the engine of that name in `mlpkern.lm`: a loop over batches drawn by the chunk with the
          fused ops; with AdamW the same loop here, with `torch.optim.AdamW(fused=True)`
    run   `mlpkern.train_steps`: many steps of all models in one call, on batches drawn before it

All providers train on the same rows, draw the same batches and start from the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.accuracy import Yardstick
from bench.case import Cost, Settings
from bench.providers import (
    MAX_AUTOTUNE,
    MLPKERN,
    STOCK,
    Contest,
    Prepared,
    Provider,
    backend_switch,
    compiled,
    named,
    threads_switch,
)
from bench.stock_training import (
    BatchedRun,
    Loop,
    StockRun,
    adamw_step,
    batched_loop,
    batched_results,
    batched_sgd_step,
    chunk_loop,
    foreach_loop,
    lecture_loop,
    loss_of,
    sgd_step,
    step_loop,
    stock_results,
)
from bench.training_case import BETAS, EPS, WEIGHT_DECAY, TrainingCase, every_model, start
from bench.two_processes import LOOPS, SideBySide

OURS = "run"
BASELINE = "lecture loop"
NAMES = ("losses", "embedding", "hidden weight", "hidden bias", "output weight", "output bias")


def contest(case: TrainingCase, cost: Cost, settings: Settings) -> Contest:
    """The provider table of a training step on a CPU, in the order in which rows are printed."""
    rows = [*_stock_rows(case, settings), *_our_rows(case, settings.threads)]
    exact = stock_results(case, lecture_loop, torch.float64)
    return Contest(rows, Yardstick(NAMES, exact, stock_results(case, lecture_loop)))


def _stock_rows(case: TrainingCase, settings: Settings) -> list[Provider]:
    threads, sgd = settings.threads, case.optimizer == "sgd"
    models, steps = case.sizes["M"], case.stock_steps
    counts = [1, threads] if threads > 1 else [1]
    whole = sgd_step if sgd else adamw_step
    rows: list[Provider] = []

    def add(name: str, count: int, make: Callable[[], Prepared]) -> None:
        switch = threads_switch(count)
        rows.append(Provider(named(name, count, threads), STOCK, count, make, switch))

    def loop_row(name: str, count: int, loop: Loop) -> None:
        def make() -> Prepared:
            runs = [StockRun(case, m=m) for m in every_model(case)]
            call = lambda: loop(runs, steps)  # noqa: E731
            return Prepared(call, lambda: stock_results(case, loop), steps * models)

        add(name, count, make)

    def batched_row(name: str, count: int, step: Callable[..., Tensor] | None) -> None:
        def make() -> Prepared:
            run = BatchedRun([StockRun(case, m=m) for m in every_model(case)])
            call = lambda: batched_loop(run, steps, step)  # noqa: E731
            return Prepared(call, lambda: batched_results(case, step), steps * models)

        add(name, count, make)

    eager: dict[str, Loop] = {BASELINE: lecture_loop, "foreach update": foreach_loop}
    if not sgd:
        eager["fused update"] = chunk_loop(loss_of, "fused")
    eager["batches by chunk"] = chunk_loop(loss_of)
    for name, loop in eager.items():
        for count in counts:
            loop_row(name, count, loop)
    # several models one after the other are as fast as one, so --quick compiles them as one only
    for count in settings.compile_threads if models == 1 or not settings.quick else []:
        loop_row("compile", count, chunk_loop(compiled(loss_of), "foreach" if sgd else "fused"))
        loop_row("compile, whole step", count, step_loop(compiled(whole)))
    if settings.autotune:
        name = "compile max-autotune, whole step"
        loop_row(name, threads, step_loop(compiled(whole, MAX_AUTOTUNE)))
    if models > 1:
        for count in counts:
            batched_row("batched products", count, None)
        for count in settings.compile_threads:
            batched_row("compile, batched", count, compiled(batched_sgd_step))
        if not settings.quick:
            rows += _processes_rows(case, settings)
    return rows


def _processes_rows(case: TrainingCase, settings: Settings) -> list[Provider]:
    """A process a model; the numbers that are checked are those of the same loop in this one."""
    loops = {LOOPS[0]: lecture_loop}
    if settings.compile:
        loops[LOOPS[1]] = step_loop(compiled(sgd_step))
    models = case.sizes["M"]

    def row(name: str, loop: Loop) -> Provider:
        def make() -> Prepared:
            processes = SideBySide(case, name)
            return Prepared(
                lambda: processes.take(case.stock_steps),
                lambda: stock_results(case, loop),
                case.stock_steps * models,
                processes.close,
            )

        return Provider(f"{name}, {models} processes", STOCK, models, make, threads_switch(1))

    return [row(name, loop) for name, loop in loops.items()]


def _our_rows(case: TrainingCase, threads: int) -> list[Provider]:
    counts = sorted({1, threads}, reverse=True)
    models, cores = case.sizes["M"], case.cores

    def make_ops() -> Prepared:
        steps = case.stock_steps
        if case.optimizer != "sgd":
            loop = chunk_loop(fused_loss, "fused")
            runs = [StockRun(case, m=m) for m in every_model(case)]
            call = lambda: loop(runs, steps)  # noqa: E731
            return Prepared(call, lambda: stock_results(case, loop), steps * models)
        from mlpkern.lm.engines import OpsEngine

        engine, states = OpsEngine(), [start(case, m) for m in every_model(case)]

        def results() -> tuple[Tensor, ...]:
            fresh = [start(case, m) for m in every_model(case)]
            losses = [engine.run_chunk(state, case.checked_steps) for state in fresh]
            parameters = zip(*(state.model.parameters() for state in fresh), strict=True)
            return (torch.stack(losses), *(torch.stack(same).detach() for same in parameters))

        call = lambda: [engine.run_chunk(state, steps) for state in states]  # noqa: E731
        return Prepared(call, results, steps * models)

    def make_run() -> Prepared:
        steps, run = case.run_steps, Run(case)
        return Prepared(lambda: run.take(steps), lambda: Run(case).results(), steps * models)

    rows = []
    for name, make in (("ops", make_ops), (OURS, make_run)):
        for label, backend, count in [
            (f"{name} on reference", "reference", threads),
            *((named(name, count, threads), "cpu", count) for count in counts),
        ]:
            used = cores(count) if make is make_run and backend == "cpu" else count
            switch = backend_switch(backend, count)
            rows.append(Provider(label, MLPKERN, count, make, switch, backend, used))
    return rows


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
