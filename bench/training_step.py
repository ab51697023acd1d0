"""Whole training steps of the lecture's model: batch drawing, forward, backward, SGD update.

The stock loops go from the lecture's own to everything that stock torch can be made to do:

    lecture loop         draws a batch, zeroes gradients, `.backward()`, `p.data += -lr * p.grad`
    foreach update       `torch.autograd.grad`, one `torch._foreach_add_` for all parameters
    batches by chunk     also draws and gathers the batches of a whole chunk at once
    compile              the same with the loss compiled
    compile, whole step  loss, gradients and update compiled as one graph

`ops` is the engine of that name in `mlpkern.lm`: the loop of "batches by chunk" with the fused ops.
All providers train on the embedded names, draw the same batches and start from the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.accuracy import Yardstick
from bench.case import Case, Cost, Settings
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

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm.data import Dataset
    from mlpkern.lm.engines import Engine
    from mlpkern.lm.state import TrainState

OURS = "ops"
BASELINE = "lecture loop"
T, D, H = 3, 10, 200
LR = 0.1
SEED = 1
CHECKED_STEPS = 10
STEPS_PER_CALL = {32: 100, 4096: 5}
NAMES = ("losses", "embedding", "hidden weight", "hidden bias", "output weight", "output bias")


def _case(rows: int, quick: bool = False) -> Case:
    shape = f"V=27 T={T} D={D} H={H} N={rows}"
    return Case("training_step", shape, "float32", {"N": rows, "V": 27}, quick)


CASES = (_case(32, quick=True), _case(4096))


def cost(case: Case) -> Cost:
    """Six flops per weight of the two products and row; parameters read and written once."""
    rows, classes = case.sizes["N"], case.sizes["V"]
    products = T * D * H + H * classes
    parameters = 4 * (classes * D + products + H + classes)
    rows_bytes = rows * (T + 1) * 8
    return Cost(
        bytes=2 * parameters + rows_bytes,
        flops=6 * rows * products,
        footprint=2 * parameters + rows_bytes + 8 * rows * (T * D + H + classes),
        largest_output=4 * rows * H,
    )


@cache
def _dataset() -> Dataset:
    from mlpkern.lm.data import build_dataset, embedded_names

    return build_dataset(embedded_names(), block_size=T, source="embedded names")


def _state(case: Case) -> TrainState:
    """A run at step 0: the model, the training rows and the generator of the batches."""
    from mlpkern.lm.config import TrainConfig, seed_for
    from mlpkern.lm.model import MLPLanguageModel
    from mlpkern.lm.state import TrainState

    data = _dataset()
    config = TrainConfig(
        block_size=T,
        embedding_dim=D,
        hidden=(H,),
        batch_size=case.sizes["N"],
        lr=((0, LR),),
        seed=SEED,
    )
    if len(data.vocab) != case.sizes["V"]:
        raise ValueError(f"the embedded names have {len(data.vocab)} symbols, expected 27")
    model = MLPLanguageModel(len(data.vocab), T, D, H, seed=seed_for(SEED, "init"))
    return TrainState.start(model, data.splits["train"], config)


class StockRun:
    """Parameters, data and batch generator of one stock training run."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32):
        state = _state(case)
        self.rows = case.sizes["N"]
        self.generator = state.generator
        self.inputs, self.targets = state.train.inputs.long(), state.train.targets.long()
        self.parameters = [p.detach().to(dtype).requires_grad_() for p in state.model.parameters()]
        self.values = [p.detach() for p in self.parameters]  # the same memory without autograd

    def draw(self) -> Tensor:
        return torch.randint(len(self.targets), (self.rows,), generator=self.generator)

    def drawn_chunk(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        size = (steps, self.rows)
        ix = torch.randint(len(self.targets), size, generator=self.generator)
        return zip(self.inputs[ix].unbind(), self.targets[ix].unbind(), strict=True)


Loop = Callable[[StockRun, int], list[Tensor]]


def loss_of(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    embedding, weight1, bias1, weight2, bias2 = parameters
    x = F.embedding(ids, embedding).flatten(-2)  # (N, T*D)
    h = torch.tanh(F.linear(x, weight1, bias1))  # (N, H)
    return F.cross_entropy(F.linear(h, weight2, bias2), targets)


def whole_step(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    grads, loss = torch.func.grad_and_value(loss_of)(parameters, ids, targets)
    # not p.add_(grad, alpha=-LR): torch 2.13 compiles it into a wrong update on a CPU, alpha is
    # lost where the gradient is a matrix product
    torch._foreach_add_(parameters, grads, alpha=-LR)
    return loss


def lecture_loop(run: StockRun, steps: int) -> list[Tensor]:
    losses = []
    for _ in range(steps):
        ix = run.draw()
        loss = loss_of(run.parameters, run.inputs[ix], run.targets[ix])
        for p in run.parameters:
            p.grad = None
        loss.backward()
        for p in run.parameters:
            p.data += -LR * p.grad
        losses.append(loss.detach())
    return losses


def foreach_loop(run: StockRun, steps: int) -> list[Tensor]:
    losses = []
    for _ in range(steps):
        ix = run.draw()
        loss = loss_of(run.parameters, run.inputs[ix], run.targets[ix])
        grads = torch.autograd.grad(loss, run.parameters)
        torch._foreach_add_(run.values, grads, alpha=-LR)
        losses.append(loss.detach())
    return losses


def chunk_loop(loss_function: Callable[..., Tensor]) -> Loop:
    def loop(run: StockRun, steps: int) -> list[Tensor]:
        losses = []
        for ids, targets in run.drawn_chunk(steps):
            loss = loss_function(run.parameters, ids, targets)
            grads = torch.autograd.grad(loss, run.parameters)
            torch._foreach_add_(run.values, grads, alpha=-LR)
            losses.append(loss.detach())
        return losses

    return loop


def compiled_step_loop(step: Callable[..., Tensor]) -> Loop:
    def loop(run: StockRun, steps: int) -> list[Tensor]:
        return [step(run.values, ids, targets) for ids, targets in run.drawn_chunk(steps)]

    return loop


def contest(case: Case, cost: Cost, settings: Settings) -> Contest:
    """The provider table of a training step on a CPU, in the order in which rows are printed."""
    threads = settings.threads
    counts = [1, threads] if threads > 1 else [1]
    steps = STEPS_PER_CALL[case.sizes["N"]]
    rows: list[Provider] = []

    def stock(name: str, count: int, loop: Loop) -> None:
        def make() -> Prepared:
            run = StockRun(case)
            return Prepared(lambda: loop(run, steps), lambda: _stock_results(case, loop), steps)

        row = Provider(named(name, count, threads), STOCK, count, make, threads_switch(count))
        rows.append(row)

    eager = {
        BASELINE: lecture_loop,
        "foreach update": foreach_loop,
        "batches by chunk": chunk_loop(loss_of),
    }
    for name, loop in eager.items():
        for count in counts:
            stock(name, count, loop)
    for count in settings.compile_threads:
        stock("compile", count, chunk_loop(compiled(loss_of)))
        stock("compile, whole step", count, compiled_step_loop(compiled(whole_step)))
    if settings.autotune:
        loop = compiled_step_loop(compiled(whole_step, MAX_AUTOTUNE))
        stock("compile max-autotune, whole step", threads, loop)

    def make_ops() -> Prepared:
        from mlpkern.lm.engines import OpsEngine

        state, engine = _state(case), OpsEngine()
        return Prepared(
            lambda: engine.run_chunk(state, steps), lambda: _ops_results(case, engine), steps
        )

    def ours(name: str, backend: str, count: int) -> None:
        switch = backend_switch(backend, count)
        rows.append(Provider(name, MLPKERN, count, make_ops, switch, backend))

    ours("ops on reference", "reference", threads)
    for count in reversed(counts):
        ours(named(OURS, count, threads), "cpu", count)
    exact = _stock_results(case, lecture_loop, torch.float64)
    return Contest(rows, Yardstick(NAMES, exact, _stock_results(case, lecture_loop)))


def _stock_results(
    case: Case, loop: Loop, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Losses and parameters of the first steps of a fresh run."""
    run = StockRun(case, dtype)
    losses = torch.stack(loop(run, CHECKED_STEPS)).detach()
    return (losses, *run.values)


def _ops_results(case: Case, engine: Engine) -> tuple[Tensor, ...]:
    state = _state(case)
    losses = engine.run_chunk(state, CHECKED_STEPS)
    return (losses, *(p.detach() for p in state.model.parameters()))
