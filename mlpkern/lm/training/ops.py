"""One step of the language model on the fused ops: what the engine ``ops`` repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlpkern.autograd import CrossEntropy, EmbeddingGather, LinearTanh
from mlpkern.cuda.graphed_step import surroundings
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.options import DropoutMasks, TorchOptimizer, moments_of
from mlpkern.lm.words.data import Split

__all__ = ["FusedOptionsStep", "FusedStep", "GraphedSteps"]

_OPTIONS = (-100, 1, 0.0)  # of cross_entropy: ignore_index as in torch, the mean, no smoothing


class FusedStep:
    """The model's parameters as autograd leaves; the loss of a batch and its gradients.

    ``leaves``: those that are trained; ``values``: their memory once more, without autograd, to
    update. The ops are called below
    their argument checks, which the batches of a split cannot fail, with every name looked up once:
    both count when a step takes 130 us.
    """

    def __init__(self, model: MLPLanguageModel) -> None:
        # The output weight as (H, V), so that addmm takes it without a transposition per step.
        self.embedding = _leaf(model.embedding.weight)
        self.hidden = [(_leaf(weight), _leaf(bias)) for weight, bias in model.hidden_parameters()]
        weight, bias = model.output.weight, model.output.bias
        self.output = weight.detach().t().requires_grad_(weight.requires_grad), _leaf(bias)
        flat = (p for pair in self.hidden for p in pair)
        self.parameters = (self.embedding, *flat, *self.output)
        self.leaves = tuple(leaf for leaf in self.parameters if leaf.requires_grad)
        self.values = [leaf.detach() for leaf in self.leaves]
        self._one = torch.ones_like(self.embedding[0, 0])
        self._ops = EmbeddingGather.direct, LinearTanh.direct, CrossEntropy.direct

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The loss () of ids (N, T) and targets (N,), with its graph."""
        gather, tanh, entropy = self._ops
        x = gather(ids, self.embedding, -1)  # (N, T*D); -1: no padding
        for weight, bias in self.hidden:
            x = tanh(x, weight, bias)  # (N, H)
        weight_out, bias_out = self.output
        logits = torch.addmm(bias_out, x, weight_out)  # (N, V)
        return entropy(logits, targets, None, *_OPTIONS)

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        """``torch.autograd.grad(loss, leaves)`` without its checks, which take 15 us of a step.

        The engine it calls is what torch's own function calls, with the same arguments. Use the
        result at once and let it go: memory that the next step takes again is still in the caches.
        """
        if not self.leaves:
            return ()
        return torch.autograd.Variable._execution_engine.run_backward(
            (loss,), (self._one,), False, False, self.leaves, False, accumulate_grad=False
        )

    def take(self, ids: Tensor, targets: Tensor, lr: float) -> Tensor:
        """One step of plain SGD: its loss () before the update."""
        loss = self.loss(ids, targets)
        if self.leaves:
            torch._foreach_add_(self.values, self.gradients(loss), alpha=-lr)
        return loss.detach()


class FusedOptionsStep(FusedStep):
    """The same with every option of a step, for the run ``state``, whose momenta it updates.

    Args:
        step: the number of the first step that it takes; it counts on from there.
    """

    def __init__(self, state: TrainState, step: int) -> None:
        super().__init__(state.model)
        self._masked, self._at = DropoutMasks(state.config), step
        self._entropy = (-100, 1, state.config.label_smoothing)
        moments = []
        for tensors in moments_of(state.optimizer):
            if tensors is not None:  # the output weight lies transposed here
                *rest, weight, bias = tensors
                tensors = [*rest, weight.t(), bias]
            moments.append(tensors)
        self._optimizer = TorchOptimizer(state.config, self.parameters, moments, step, "foreach")

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The loss of the step with dropout and smoothing."""
        gather, tanh, entropy = self._ops
        x = self._masked(self._at, 0, gather(ids, self.embedding, -1))  # (N, T*D)
        for layer, (weight, bias) in enumerate(self.hidden, 1):
            x = self._masked(self._at, layer, tanh(x, weight, bias))  # (N, H)
        weight_out, bias_out = self.output
        logits = torch.addmm(bias_out, x, weight_out)  # (N, V)
        return entropy(logits, targets, None, *self._entropy)

    def take(self, ids: Tensor, targets: Tensor, lr: float) -> Tensor:
        """One step of the run's optimizer: its loss () before the update."""
        loss = self.loss(ids, targets)
        for leaf, gradient in zip(self.leaves, self.gradients(loss), strict=True):
            leaf.grad = gradient
        self._optimizer.step(lr)
        self._at += 1
        return loss.detach()


class GraphedSteps:
    """Steps on a GPU without the host in between: one step captured as a CUDA graph, then replayed.

    The graph holds some twenty kernels, which the GPU starts by itself. Which step a replay is, a
    counter on the GPU says: it picks the rows of the batch and the learning rate from the arrays of
    all steps, and the place of the loss.

    Args:
        capacity: the most steps of one call of ``run``.
    """

    def __init__(
        self, model: MLPLanguageModel, train: Split, batch_size: int, capacity: int = 1024
    ) -> None:
        device = train.targets.device
        self.model, self.train, self.capacity = model, train, capacity
        self._step = FusedStep(model)
        self._reads = _what_a_graph_reads(model, train)
        self._rows = torch.zeros(capacity, batch_size, dtype=torch.int64, device=device)
        self._rates = torch.zeros(capacity, device=device, dtype=self._step.embedding.dtype)
        self._losses = torch.zeros_like(self._rates)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._replay: Callable[[], None]
        self._replay = self._captured() if device.type == "cuda" else self._once

    def serves(self, model: MLPLanguageModel, train: Split, batch_size: int) -> bool:
        """Whether these steps train this very model, as it is frozen, on these very rows.

        Not where its parameters lie elsewhere now, nor under another backend, precision or stream.
        """
        mine = (self.model, self.train, self._rows.shape[1])
        same = mine[0] is model and mine[1] is train and mine[2] == batch_size
        return same and self._reads == _what_a_graph_reads(model, train)

    def run(self, rows: Tensor, rates: Tensor) -> Tensor:
        """The losses (S,) of S steps on the batches ``rows`` (S, N) at the learning rates (S,)."""
        steps = len(rates)
        self._rows[:steps].copy_(rows)
        self._rates[:steps].copy_(rates)
        self._at.zero_()
        for _ in range(steps):
            self._replay()
        return self._losses[:steps].clone()

    def _once(self) -> None:
        rows = self._rows.index_select(0, self._at).view(-1)  # (N,)
        rate = self._rates.index_select(0, self._at).view(())
        inputs, targets = self.train.inputs, self.train.targets
        loss = self._step.loss(inputs.index_select(0, rows), targets.index_select(0, rows))
        if gradients := self._step.gradients(loss):
            torch._foreach_mul_(gradients, rate)
            torch._foreach_sub_(self._step.values, gradients)
        self._losses.index_copy_(0, self._at, loss.detach().view(1))
        self._at.add_(1)

    def _captured(self) -> Callable[[], None]:
        """The replay of one step; the parameters are what they were before."""
        before = [value.clone() for value in self._step.values]
        side = torch.cuda.Stream(self._at.device)
        side.wait_stream(torch.cuda.current_stream(self._at.device))
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries set themselves up in their first calls
                self._at.zero_()
                self._once()
        torch.cuda.current_stream(self._at.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # not on torch's default stream for captures, which belongs to the device of the first
        with torch.cuda.device(self._at.device), torch.cuda.graph(graph, stream=side):
            self._once()
        for value, old in zip(self._step.values, before, strict=True):
            value.copy_(old)
        return graph.replay


def _what_a_graph_reads(model: MLPLanguageModel, train: Split) -> tuple[Any, ...]:
    """The addresses in it, which parameters it trains, and what else its capture depends on."""
    parameters = [(p.data_ptr(), p.requires_grad) for p in model.parameters()]
    data = train.inputs.data_ptr(), train.targets.data_ptr()
    return parameters, data, surroundings(model.embedding.weight)


def _leaf(parameter: Tensor) -> Tensor:
    return parameter.detach().requires_grad_(parameter.requires_grad)
