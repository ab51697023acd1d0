"""Several models as one in plain torch: their parameters stacked along a leading axis.

batched products     `baddbmm` over the models, one update for all of them
compile, batched     the same, compiled as one graph per step
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.training.case import LR, TrainingCase, every_model
from bench.training.stock_loops import Step, StockRun


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


def batched_sgd_step(parameters: list[Tensor], ids: Tensor, targets: Tensor) -> Tensor:
    together = torch.func.grad_and_value(sum_and_losses, has_aux=True)
    grads, (_, losses) = together(parameters, ids, targets)
    torch._foreach_add_(parameters, grads, alpha=-LR["sgd"])
    return losses


def batched_sgd_step_at(
    parameters: list[Tensor], ids: Tensor, targets: Tensor, rates: Tensor
) -> Tensor:
    """`batched_sgd_step` with a learning rate for each model: (M,)."""
    together = torch.func.grad_and_value(sum_and_losses, has_aux=True)
    grads, (_, losses) = together(parameters, ids, targets)
    torch._foreach_sub_(parameters, _times_rates(grads, rates))
    return losses


def batched_whole_step(case: TrainingCase) -> Step:
    """The step that is compiled as one graph."""
    return batched_sgd_step if case.constant_rate else batched_sgd_step_at


def _times_rates(grads: Iterable[Tensor], rates: Tensor) -> list[Tensor]:
    return [grad * rates.view(-1, *(1 for _ in grad.shape[1:])) for grad in grads]


class BatchedRun:
    """Several models as one, their parameters stacked; the single runs are not updated."""

    def __init__(self, runs: list[StockRun]):
        self.runs, self.case = runs, runs[0].case
        self.values = self._stacked()
        self.steps_done = 0
        self.parameters = [v.detach().requires_grad_() for v in self.values]

    def batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids (M, N, T), for model m offset by m*V, and targets (M * N,)."""
        drawn = [run.draw_chunk(steps) for run in self.runs]
        symbols = self.values[0].shape[1]
        ids = torch.stack([ids + m * symbols for m, (ids, _) in enumerate(drawn)], 1)
        targets = torch.stack([targets for _, targets in drawn], 1).flatten(1)
        return zip(ids.unbind(), targets.unbind(), strict=True)

    def rates(self, steps: int) -> Tensor:
        """The learning rates (S, M) of the next steps; a run at its end begins again."""
        if self.case.length and self.steps_done == self.case.length:
            torch._foreach_copy_(self.values, self._stacked())
            self.steps_done = 0
        rates = [self.case.rates(run.m, self.steps_done, steps) for run in self.runs]
        self.steps_done += steps
        return torch.tensor(rates, dtype=self.values[0].dtype).T.contiguous()

    def _stacked(self) -> list[Tensor]:
        return [torch.stack(same) for same in zip(*(r.values for r in self.runs), strict=True)]


def batched_loop(run: BatchedRun, steps: int, step: Step | None = None) -> list[Tensor]:
    """Losses (M,) of each step: eager with one update for all models, or by a compiled `step`."""
    losses = []
    constant, rates = run.case.constant_rate, run.rates(steps)
    alike = (rates == rates[:, :1]).all().item()  # one rate a step, the same for all models
    for (ids, targets), each_rate, rate in zip(
        run.batches(steps), rates.unbind(), rates[:, 0].tolist(), strict=True
    ):
        if step is not None:
            more = () if constant else (each_rate,)
            losses.append(step(run.values, ids, targets, *more))
            continue
        total, each = sum_and_losses(run.parameters, ids, targets)
        grads = torch.autograd.grad(total, run.parameters)
        if alike:
            torch._foreach_add_(run.values, grads, alpha=-rate)
        else:
            torch._foreach_sub_(run.values, _times_rates(grads, each_rate))
        losses.append(each.detach())
    return losses


def batched_results(case: TrainingCase, step: Step | None = None) -> tuple[Tensor, ...]:
    run = BatchedRun([StockRun(case.checked, m=m) for m in every_model(case)])
    losses = torch.stack(batched_loop(run, case.checked_steps, step), 1).detach()
    return case.compared((losses, *run.values))
