"""The engine ``ops``: one step after the other on the fused ops."""

from __future__ import annotations

import torch
from torch import Tensor

from mlpkern.cuda import graphed_train_steps
from mlpkern.lm.model.config import seed_for
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.options import dropout_of, rule_of, torch_optimizer
from mlpkern.mlp.params import MLPParams
from mlpkern.mlp.training_arguments import TrainingArguments
from mlpkern.ops.mlp_loss import mlp_loss, transposed
from mlpkern.registry import status

# What a chunk holds at once of the ids of its batches: 64 MB as int64.
MAX_GATHERED_IDS = 8_000_000


class OpsEngine:
    """The three fused ops through autograd, and nothing per step that can be done per chunk.

    On a GPU a step is a CUDA graph, see `mlpkern.cuda.graphed_train_steps`.
    """

    name = "ops"
    kernels = "fused"

    @staticmethod
    def unavailable(device: torch.device) -> str | None:
        kinds = ("cpu",) if device.type == "cpu" else ("cuda", "triton")
        if any(status(kind).available for kind in kinds):
            return None
        return "; ".join(f"backend {kind}: {status(kind).reason}" for kind in kinds)

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        per_step = state.config.batch_size * state.train.inputs.shape[1]
        run = graphed_steps if state.train.targets.is_cuda else _eager_steps
        parts = state.learning_rates(steps).split(max(1, MAX_GATHERED_IDS // per_step))
        return torch.cat([run(state, rates) for rates in parts])


def _eager_steps(state: TrainState, rates: Tensor) -> Tensor:
    train, step = state.train, FusedSteps(state)
    rows = state.draw_batches(len(rates)).to(train.targets.device)  # (S, N)
    batches = zip(train.inputs[rows].unbind(), train.targets[rows].unbind(), strict=True)
    pairs = zip(batches, rates.tolist(), strict=True)
    return torch.stack([step.take(ids, targets, lr) for (ids, targets), lr in pairs])


def graphed_steps(state: TrainState, rates: Tensor) -> Tensor:
    """The losses (S,) of steps at these learning rates, each the replay of a CUDA graph."""
    config, own, device = state.config, state.optimizer, state.train.targets.device

    def tensors(part: MLPParams | None) -> list[Tensor] | None:
        return None if part is None else [tensor.detach().unsqueeze(0) for tensor in part.tensors()]

    def of_model(value: float) -> Tensor:
        return torch.full((1,), value, dtype=torch.float64, device=device)

    seed = seed_for(config.seed, "dropout")
    signed = seed if seed < 1 << 63 else seed - (1 << 64)
    seeds = torch.full((1,), signed, dtype=torch.int64, device=device)
    arguments = TrainingArguments(
        parameters=tensors(state.params) or [],
        frozen=state.params.is_frozen(),
        first=tensors(own.first),
        second=tensors(own.second),
        inputs=state.train.inputs,
        targets=state.train.targets,
        batches=state.draw_batches(len(rates)).to(device).unsqueeze(0),
        rates=rates.to(device).unsqueeze(0),
        stopped=own.stopped,
        step=own.step,
        rule=rule_of(config),
        weight_decay=of_model(config.weight_decay),
        input_dropout=of_model(config.input_dropout),
        hidden_dropout=of_model(config.hidden_dropout),
        seeds=seeds,
        streams=torch.zeros_like(seeds),
    )
    losses = graphed_train_steps.train_steps(arguments)[0]
    state.step += len(rates)
    return losses.to(torch.float32)


class FusedSteps:
    """Steps of the run ``state`` by the fused ops, which update its moments and count them.

    ``leaves``: the parameters for autograd, without a copy, arranged as `mlp_loss` takes them.
    """

    def __init__(self, state: TrainState) -> None:
        config = state.config
        own = state.params.tensors()
        views = transposed([parameter.detach() for parameter in own])
        both = zip(views, own, strict=True)
        self.leaves = [view.requires_grad_(p.requires_grad) for view, p in both]
        self._trained = tuple(leaf for leaf in self.leaves if leaf.requires_grad)
        self._values = [leaf.detach() for leaf in self._trained]
        self._one = torch.ones_like(own[0][0, 0])
        self._state, self._dropout = state, dropout_of(config)
        self._smoothing = float(config.label_smoothing)
        plain = not config.beyond_plain_sgd()
        self._optimizer = None if plain else torch_optimizer(state, self.leaves, transposed, True)

    def take(self, ids: Tensor, targets: Tensor, lr: float) -> Tensor:
        """One step on ids (N, T) and targets (N,): its loss () before the update."""
        state = self._state
        dropout = self._dropout(state.step)
        loss = mlp_loss(self.leaves, ids, targets, self._smoothing, dropout)
        gradients = self._gradients(loss)
        if self._optimizer:
            for leaf, gradient in zip(self._trained, gradients, strict=True):
                leaf.grad = gradient
            self._optimizer.step(lr)
        elif gradients:
            torch._foreach_add_(self._values, gradients, alpha=-lr)
        state.step += 1
        return loss.detach()

    def _gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        """``torch.autograd.grad`` of the trained leaves without its checks: 15 us of a step.

        The engine it calls is what torch's own function calls, with the same arguments. Use the
        result at once and drop it: memory that the next step takes again is still in the caches.
        """
        if not self._trained:
            return ()
        return torch.autograd.Variable._execution_engine.run_backward(
            (loss,), (self._one,), False, False, self._trained, False, accumulate_grad=False
        )
