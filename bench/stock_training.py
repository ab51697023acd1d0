"""Training loops in plain torch, from the lecture's own to all that torch can be made to do.

    lecture loop         draws a batch, zeroes gradients, `.backward()`, `p.data += -lr * p.grad`
    foreach update       `torch.autograd.grad`, one `torch._foreach_add_` for all parameters
    batches by chunk     also draws and gathers the batches of a whole chunk at once
    compile              the same with the loss compiled
    compile, whole step  loss, gradients and update compiled as one graph
    batched products     several models as one: `baddbmm` over a leading axis of models
    compile, batched     the same, compiled as one graph per step

With AdamW the lecture loop calls `torch.optim.AdamW` as it comes, "foreach update" and "batches by
chunk" that with `foreach=True`, "fused update" and "compile" with `fused=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.training_case import BETAS, EPS, LR, WEIGHT_DECAY, TrainingCase, every_model, start

Loss = Callable[[list[Tensor], Tensor, Tensor], Tensor]
Step = Callable[..., Tensor]


class StockRun:
    """Parameters, data and batch generator of one model in plain torch."""

    def __init__(self, case: TrainingCase, dtype: torch.dtype = torch.float32, m: int = 0):
        state = start(case, m)
        self.rows, self.rate, self.sgd = case.sizes["N"], case.rate, case.optimizer == "sgd"
        self.generator = state.generator
        self.inputs, self.targets = state.train.inputs.long(), state.train.targets.long()
        self.parameters = [p.detach().to(dtype).requires_grad_() for p in state.model.parameters()]
        self.values = [p.detach() for p in self.parameters]  # the same memory without autograd
        self._optimizers: dict[str, torch.optim.AdamW] = {}
        self.moments = [[torch.zeros_like(p) for p in self.values] for _ in range(2)]
        self.steps_done = 0

    def draw(self) -> Tensor:
        return torch.randint(len(self.targets), (self.rows,), generator=self.generator)

    def draw_chunk(self, steps: int) -> tuple[Tensor, Tensor]:
        """Ids (S, N, T) and targets (S, N): the numbers that `draw` would give in S calls."""
        size = (steps, self.rows)
        ix = torch.randint(len(self.targets), size, generator=self.generator)
        return self.inputs[ix], self.targets[ix]

    def batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        ids, targets = self.draw_chunk(steps)
        return zip(ids.unbind(), targets.unbind(), strict=True)

    def adamw(self, kind: str = "") -> torch.optim.AdamW:
        """torch's AdamW on these parameters: as it comes, or "foreach", or "fused"."""
        if kind not in self._optimizers:
            matrices = [p for p in self.parameters if p.dim() == 2]
            biases = [p for p in self.parameters if p.dim() == 1]
            groups = [
                {"params": matrices, "weight_decay": WEIGHT_DECAY},
                {"params": biases, "weight_decay": 0.0},
            ]
            options = {kind: True} if kind else {}
            self._optimizers[kind] = torch.optim.AdamW(
                groups, lr=self.rate, betas=BETAS, eps=EPS, **options
            )
        return self._optimizers[kind]

    def corrections(self, steps: int) -> Iterator[Tensor]:
        """AdamW's rate over its bias correction, and the root of the other one: (2,) a step."""
        done = torch.arange(1, steps + 1, dtype=torch.float64) + self.steps_done
        self.steps_done += steps
        rates = self.rate / (1 - BETAS[0] ** done)
        roots = (1 - BETAS[1] ** done).sqrt()
        return iter(torch.stack([rates, roots], 1).to(self.values[0].dtype).unbind())

    def update(self, grads: tuple[Tensor, ...], kind: str) -> None:
        """The update of the loops that get their gradients from `torch.autograd.grad`."""
        if self.sgd:
            torch._foreach_add_(self.values, grads, alpha=-self.rate)
            return
        for p, grad in zip(self.parameters, grads, strict=True):
            p.grad = grad
        self.adamw(kind).step()


Loop = Callable[[list[StockRun], int], list[Tensor]]  # losses: all of model 0, then of model 1, …


def loss_of(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    embedding, weight1, bias1, weight2, bias2 = parameters
    x = F.embedding(ids, embedding).flatten(-2)  # (N, T*D)
    h = torch.tanh(F.linear(x, weight1, bias1))  # (N, H)
    return F.cross_entropy(F.linear(h, weight2, bias2), targets)


def losses_of_models(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    """(M,): `loss_of` for parameters with a leading M and the batches of `BatchedRun`."""
    embedding, weight1, bias1, weight2, bias2 = parameters
    x = F.embedding(ids, embedding.flatten(0, 1)).flatten(-2)  # (M, N, T*D)
    h = torch.tanh(torch.baddbmm(bias1.unsqueeze(1), x, weight1.mT))  # (M, N, H)
    logits = torch.baddbmm(bias2.unsqueeze(1), h, weight2.mT)  # (M, N, V)
    rows = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
    return rows.view(len(embedding), -1).mean(1)


def sum_and_losses(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    losses = losses_of_models(parameters, ids, targets)
    return losses.sum(), losses


def sgd_step(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    grads, loss = torch.func.grad_and_value(loss_of)(parameters, ids, targets)
    # not p.add_(grad, alpha=-LR): torch 2.13 compiles it into a wrong update on a CPU, alpha is
    # lost where the gradient is a matrix product
    torch._foreach_add_(parameters, grads, alpha=-LR["sgd"])
    return loss


def batched_sgd_step(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    together = torch.func.grad_and_value(sum_and_losses, has_aux=True)
    grads, (_, losses) = together(parameters, ids, targets)
    torch._foreach_add_(parameters, grads, alpha=-LR["sgd"])
    return losses


def adamw_step(
    parameters: list[Tensor],
    ids: Tensor,
    targets: Tensor,
    means: list[Tensor],
    squares: list[Tensor],
    correction: Tensor,
) -> Tensor:
    """AdamW written out, so that it can be compiled with the rest.

    `correction` comes from outside: torch 2.13 compiles a step counter that never counts.
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
        for _ in range(steps):
            ix = run.draw()
            loss = loss_of(run.parameters, run.inputs[ix], run.targets[ix])
            for p in run.parameters:
                p.grad = None
            loss.backward()
            if run.sgd:
                for p in run.parameters:
                    p.data += -run.rate * p.grad
            else:
                run.adamw().step()
            losses.append(loss.detach())
    return losses


def foreach_loop(runs: list[StockRun], steps: int) -> list[Tensor]:
    losses = []
    for run in runs:
        for _ in range(steps):
            ix = run.draw()
            loss = loss_of(run.parameters, run.inputs[ix], run.targets[ix])
            run.update(torch.autograd.grad(loss, run.parameters), "foreach")
            losses.append(loss.detach())
    return losses


def chunk_loop(loss_function: Loss, kind: str = "foreach") -> Loop:
    def loop(runs: list[StockRun], steps: int) -> list[Tensor]:
        losses = []
        for run in runs:
            for ids, targets in run.batches(steps):
                loss = loss_function(run.parameters, ids, targets)
                run.update(torch.autograd.grad(loss, run.parameters), kind)
                losses.append(loss.detach())
        return losses

    return loop


def step_loop(step: Step) -> Loop:
    """The loop of a whole step in one function: `sgd_step` or `adamw_step`, compiled or not."""

    def loop(runs: list[StockRun], steps: int) -> list[Tensor]:
        losses = []
        for run in runs:
            batches = run.batches(steps)
            if run.sgd:
                losses += [step(run.values, ids, targets) for ids, targets in batches]
                continue
            for (ids, targets), correction in zip(batches, run.corrections(steps), strict=True):
                losses.append(step(run.values, ids, targets, *run.moments, correction))
        return losses

    return loop


class BatchedRun:
    """Several models as one, their parameters stacked; the single runs get nothing back."""

    def __init__(self, runs: list[StockRun]):
        self.runs = runs
        self.values = [torch.stack(same) for same in zip(*(r.values for r in runs), strict=True)]
        self.parameters = [v.detach().requires_grad_() for v in self.values]

    def batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids (M, N, T), those of model m moved on by m*V, and targets (M * N,)."""
        drawn = [run.draw_chunk(steps) for run in self.runs]
        symbols = self.values[0].shape[1]
        ids = torch.stack([ids + m * symbols for m, (ids, _) in enumerate(drawn)], 1)
        targets = torch.stack([targets for _, targets in drawn], 1).flatten(1)
        return zip(ids.unbind(), targets.unbind(), strict=True)


def batched_loop(run: BatchedRun, steps: int, step: Step | None = None) -> list[Tensor]:
    """Losses (M,) of each step: eager with one update for all models, or by a compiled `step`."""
    losses = []
    for ids, targets in run.batches(steps):
        if step is not None:
            losses.append(step(run.values, ids, targets))
            continue
        total, each = sum_and_losses(run.parameters, ids, targets)
        grads = torch.autograd.grad(total, run.parameters)
        torch._foreach_add_(run.values, grads, alpha=-LR["sgd"])
        losses.append(each.detach())
    return losses


def stock_results(
    case: TrainingCase, loop: Loop, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Losses (M, S) and parameters with a leading M after the checked steps of fresh runs."""
    runs = [StockRun(case, dtype, m) for m in every_model(case)]
    losses = torch.stack(loop(runs, case.checked_steps)).detach()
    parameters = zip(*(run.values for run in runs), strict=True)
    return (losses.view(len(runs), -1), *(torch.stack(same) for same in parameters))


def batched_results(case: TrainingCase, step: Step | None = None) -> tuple[Tensor, ...]:
    run = BatchedRun([StockRun(case, m=m) for m in every_model(case)])
    losses = torch.stack(batched_loop(run, case.checked_steps, step), 1).detach()
    return (losses, *run.values)
