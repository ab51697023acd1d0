"""Training loops in plain torch, from the lecture's own to the fastest that torch offers.

    lecture loop         draws, zeroes gradients, `.backward()`, `p.data += -lr * p.grad`
    foreach update       `torch.autograd.grad`, one `torch._foreach_add_` for all parameters
    batches by chunk     also draws and gathers the minibatches of a chunk at once
    compile              the same with the loss compiled
    compile, whole step  loss, gradients and update compiled as one graph

With AdamW the lecture loop uses `torch.optim.AdamW` with its defaults, "foreach update" and
"batches by chunk" with `foreach=True`, "fused update" and "compile" with `fused=True`. Several
models as one are in stock_batched.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.training.case import BETAS, EPS, LR, WEIGHT_DECAY, TrainingCase, every_model, start

Loss = Callable[[list[Tensor], Tensor, Tensor], Tensor]
Step = Callable[..., Tensor]


class StockRun:
    """Parameters, data and batch generator of one model in plain torch."""

    def __init__(self, case: TrainingCase, dtype: torch.dtype = torch.float32, m: int = 0):
        state = start(case, m)
        self.case, self.m = case, m
        self.rows, self.sgd = case.sizes["N"], case.optimizer == "sgd"
        self.generator = state.generator
        self.inputs, self.targets = state.train.inputs.long(), state.train.targets.long()
        self.parameters = [
            p.detach().to(dtype).requires_grad_(p.requires_grad) for p in state.model.parameters()
        ]
        self.values = [p.detach() for p in self.parameters]  # the same memory without autograd
        self._optimizers: dict[str, torch.optim.AdamW] = {}
        kept = [] if self.sgd else self.values
        self.moments = [[torch.zeros_like(p) for p in kept] for _ in range(2)]
        self.first = [p.clone() for p in self.values] if case.length else []
        self.steps_done = 0

    def draw(self) -> Tensor:
        return torch.randint(len(self.targets), (self.rows,), generator=self.generator)

    def draw_rows(self, steps: int) -> Tensor:
        """Row numbers (S, N) that `draw` would give in S calls."""
        return torch.randint(len(self.targets), (steps, self.rows), generator=self.generator)

    def draw_chunk(self, steps: int) -> tuple[Tensor, Tensor]:
        """Ids (S, N, T) and targets (S, N) of the minibatches of S steps."""
        ix = self.draw_rows(steps)
        return self.inputs[ix], self.targets[ix]

    def batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        ids, targets = self.draw_chunk(steps)
        return zip(ids.unbind(), targets.unbind(), strict=True)

    def adamw(self, kind: str = "") -> torch.optim.AdamW:
        """torch's AdamW on these parameters: with its defaults, or "foreach", or "fused"."""
        if kind not in self._optimizers:
            matrices = [p for p in self.parameters if p.dim() == 2]
            biases = [p for p in self.parameters if p.dim() == 1]
            groups = [
                {"params": matrices, "weight_decay": WEIGHT_DECAY},
                {"params": biases, "weight_decay": 0.0},
            ]
            options = {kind: True} if kind else {}
            self._optimizers[kind] = torch.optim.AdamW(
                groups, lr=self.case.rate, betas=BETAS, eps=EPS, **options
            )
        return self._optimizers[kind]

    def rates(self, steps: int) -> list[float]:
        """The learning rates of the next steps; a run at its end begins again."""
        if self.case.length and self.steps_done == self.case.length:
            torch._foreach_copy_(self.values, self.first)
            self.steps_done = 0
        rates = self.case.rates(self.m, self.steps_done, steps)
        self.steps_done += steps
        return rates

    def extras(self, steps: int) -> Iterable[tuple[object, ...]]:
        """What a compiled step takes besides parameters and minibatch, for each step."""
        if not self.sgd:
            return ((*self.moments, correction) for correction in self.corrections(steps))
        rates = self.rates(steps)
        if self.case.constant_rate:
            return [()] * steps
        return zip(torch.tensor(rates, dtype=self.values[0].dtype).unbind(), strict=True)

    def corrections(self, steps: int) -> Iterator[Tensor]:
        """Of each step (2,): rate over AdamW's first bias correction, root of the second."""
        done = torch.arange(1, steps + 1, dtype=torch.float64) + self.steps_done
        self.steps_done += steps
        rates = self.case.rate / (1 - BETAS[0] ** done)
        roots = (1 - BETAS[1] ** done).sqrt()
        return iter(torch.stack([rates, roots], 1).to(self.values[0].dtype).unbind())

    @property
    def trained(self) -> list[Tensor]:
        """The parameters that are not frozen, which come last."""
        return [p for p in self.parameters if p.requires_grad]

    def update(self, grads: tuple[Tensor, ...], kind: str, rate: float) -> None:
        """Updates what is trained, in the loops that get all gradients at once."""
        if self.sgd:
            torch._foreach_add_(self.values[-len(grads) :], grads, alpha=-rate)
            return
        for p, grad in zip(self.trained, grads, strict=True):
            p.grad = grad
        self.adamw(kind).step()


Loop = Callable[[list[StockRun], int], list[Tensor]]  # losses: all of model 0, then of model 1, …


def loss_of(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    embedding, weight1, bias1, weight2, bias2 = parameters
    x = F.embedding(ids, embedding).flatten(-2)  # (N, T*D)
    h = torch.tanh(F.linear(x, weight1, bias1))  # (N, H)
    return F.cross_entropy(F.linear(h, weight2, bias2), targets)


def sgd_step(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    grads, loss = torch.func.grad_and_value(loss_of)(parameters, ids, targets)
    # not p.add_(grad, alpha=-LR): torch 2.13 compiles it into a wrong update on a CPU, which loses
    # alpha where the gradient is a matrix product
    torch._foreach_add_(parameters, grads, alpha=-LR["sgd"])
    return loss


def sgd_step_at(parameters: list[Tensor], ids: Tensor, targets: Tensor, rate: Tensor) -> Tensor:
    """`sgd_step` with a learning rate () of its own."""
    grads, loss = torch.func.grad_and_value(loss_of)(parameters, ids, targets)
    torch._foreach_sub_(parameters, torch._foreach_mul(grads, rate))
    return loss


def frozen_sgd_step(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    """`sgd_step` without the embedding, neither its gradient nor its update."""
    embedding, *trained = parameters

    def loss_of_trained(trained: list[Tensor]) -> Tensor:
        return loss_of([embedding, *trained], ids, targets)

    grads, loss = torch.func.grad_and_value(loss_of_trained)(trained)
    torch._foreach_add_(trained, grads, alpha=-LR["sgd"])
    return loss


def whole_step(case: TrainingCase) -> Step:
    """The step that is compiled as one graph."""
    if case.frozen_embedding:
        return frozen_sgd_step
    if case.optimizer != "sgd":
        return adamw_step
    return sgd_step if case.constant_rate else sgd_step_at


def adamw_step(
    parameters: list[Tensor],
    ids: Tensor,
    targets: Tensor,
    means: list[Tensor],
    squares: list[Tensor],
    correction: Tensor,
) -> Tensor:
    """AdamW written out, so that it can be compiled with the rest.

    `correction` comes from outside: in what torch 2.13 compiles a step counter stays the same.
    """
    rate, root = correction.unbind()
    grads, loss = torch.func.grad_and_value(loss_of)(parameters, ids, targets)
    torch._foreach_lerp_(means, grads, 1 - BETAS[0])
    torch._foreach_mul_(squares, BETAS[1])
    torch._foreach_addcmul_(squares, grads, grads, 1 - BETAS[1])
    torch._foreach_mul_([p for p in parameters if p.dim() == 2], 1 - LR["adamw"] * WEIGHT_DECAY)
    scale = torch._foreach_div(torch._foreach_sqrt(squares), root)
    change = torch._foreach_div(means, torch._foreach_add(scale, EPS))
    torch._foreach_sub_(parameters, torch._foreach_mul(change, rate))
    return loss


def lecture_loop(runs: list[StockRun], steps: int) -> list[Tensor]:
    losses = []
    for run in runs:
        trained = run.trained
        for rate in run.rates(steps):
            ix = run.draw()
            loss = loss_of(run.parameters, run.inputs[ix], run.targets[ix])
            for p in trained:
                p.grad = None
            loss.backward()
            if run.sgd:
                for p in trained:
                    p.data += -rate * p.grad
            else:
                run.adamw().step()
            losses.append(loss.detach())
    return losses


def foreach_loop(runs: list[StockRun], steps: int) -> list[Tensor]:
    losses = []
    for run in runs:
        trained = run.trained
        for rate in run.rates(steps):
            ix = run.draw()
            loss = loss_of(run.parameters, run.inputs[ix], run.targets[ix])
            run.update(torch.autograd.grad(loss, trained), "foreach", rate)
            losses.append(loss.detach())
    return losses


def chunk_loop(loss_function: Loss, kind: str = "foreach") -> Loop:
    def loop(runs: list[StockRun], steps: int) -> list[Tensor]:
        losses = []
        for run in runs:
            trained = run.trained
            batches = zip(run.batches(steps), run.rates(steps), strict=True)
            for (ids, targets), rate in batches:
                loss = loss_function(run.parameters, ids, targets)
                run.update(torch.autograd.grad(loss, trained), kind, rate)
                losses.append(loss.detach())
        return losses

    return loop


def step_loop(step: Step) -> Loop:
    """The loop around a whole step in one function, `whole_step` or what it compiles to."""

    def loop(runs: list[StockRun], steps: int) -> list[Tensor]:
        losses = []
        for run in runs:
            batches = zip(run.batches(steps), run.extras(steps), strict=True)
            losses += [step(run.values, ids, targets, *more) for (ids, targets), more in batches]
        return losses

    return loop


def stock_results(
    case: TrainingCase, loop: Loop, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Losses (M, S) and parameters with a leading M after the checked steps of fresh runs."""
    runs = [StockRun(case.checked, dtype, m) for m in every_model(case)]
    losses = torch.stack(loop(runs, case.checked_steps)).detach()
    parameters = zip(*(run.values for run in runs), strict=True)
    return case.compared((losses.view(len(runs), -1), *(torch.stack(same) for same in parameters)))
