"""``train_steps`` by the fused ops: one step, captured as a CUDA graph and replayed for the rest.

For models that no kernel of ours holds whole. The host only starts the replays: which step it is, a
counter on the device says, which picks the rows of the batch, the numbers of the step (learning
rate, AdamW's bias corrections) and the dropout masks from arrays of many steps, and the place of
the loss. The first step of a call runs as it is, so that libraries set themselves up before the
capture; on a CPU all of them do.

The trained parameters of a model, their moments and gradients are one array each, the weights
before the biases, so that the update is a handful of kernels however many layers there are. Frozen
parameters lie apart and have neither moments nor gradients. Whether the loss was finite
only the device knows: the new values are selected there, or the old ones kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor

from mlpkern.autograd import CrossEntropy, EmbeddingGather, LinearTanh
from mlpkern.replayed_masks import ReplayedMasks

_ADAMW = 1
_ALIGNED = 32  # elements: every tensor begins where the widest loads may begin
_NO_OPTIONS = (-100, 1)  # of cross_entropy: ignore_index, which no target equals, and the mean


def train_steps(
    parameters: list[Tensor],
    frozen: list[bool],
    first: list[Tensor] | None,
    second: list[Tensor] | None,
    inputs: Tensor,
    targets: Tensor,
    batches: Tensor,
    rates: Tensor,
    stopped: Tensor,
    step: int,
    optimizer: int,
    momentum: float,
    nesterov: bool,
    beta1: float,
    beta2: float,
    eps: float,
    max_grad_norm: float,
    label_smoothing: float,
    weight_decay: Tensor,
    input_dropout: Tensor,
    hidden_dropout: Tensor,
    seeds: Tensor,
    streams: Tensor,
) -> Tensor:
    """See ``mlpkern.reference.train_steps``; ids, targets and row numbers are in range.

    The models are trained one after another by the same graph. The host waits for the device once,
    to read what differs between models.
    """
    count, steps = rates.shape
    rule = _Rule(
        optimizer, momentum, nesterov, beta1, beta2, eps, max_grad_norm, label_smoothing, step
    )
    own = torch.stack([weight_decay, input_dropout, hidden_dropout]).tolist()
    keys = torch.stack([seeds, streams, stopped]).tolist()
    losses = parameters[0].new_full((count, steps), math.nan)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(losses.device.type, enabled=False),
    ):
        dropout = any(p > 0 for ps in own[1:] for p in ps)
        size = batches.shape[1:]
        run = _Run(parameters, frozen, inputs, targets, size, rule, any(own[0]), dropout)
        for m in range(count):
            if keys[2][m] >= 0:
                continue
            state = [[t[m] for t in tensors] for tensors in (parameters, first, second) if tensors]
            run.load(state, batches[m], rates[m], own[0][m])
            if run.masks:
                run.masks.load((own[1][m], own[2][m]), keys[0][m], keys[1][m], step)
            run.steps()
            run.store(state)
            losses[m] = run.losses
            bad = ~run.losses.isfinite()
            stopped[m] = torch.where(bad.any(), bad.to(torch.uint8).argmax() + step, -1)
    return losses


class _Rule(NamedTuple):
    """What all models of a call share."""

    optimizer: int
    momentum: float
    nesterov: bool
    beta1: float
    beta2: float
    eps: float
    max_grad_norm: float
    label_smoothing: float
    step: int


class _Run:
    """The arrays that a graph reads and writes, and the step that it captured."""

    def __init__(
        self,
        parameters: list[Tensor],
        frozen: list[bool],
        inputs: Tensor,
        targets: Tensor,
        size: Sequence[int],
        rule: _Rule,
        decays: bool,
        dropout: bool,
    ) -> None:
        device, dtype = parameters[0].device, parameters[0].dtype
        steps, rows = size
        self._rule, self._decays = rule, decays
        self._inputs, self._targets = inputs, targets
        self._frozen, self._trained = frozen, [not kept for kept in frozen]
        self._layout = _Layout([p[0] for p in compress(parameters, self._trained)])
        kinds = 3 if rule.optimizer == _ADAMW else 2 if rule.momentum else 1
        self._flat = [self._layout.zeros(parameters[0]) for _ in range(kinds)]
        self._gradient = self._layout.zeros(parameters[0])
        self._gradients = self._layout.views(self._gradient)
        self._leaves = [v.detach().requires_grad_() for v in self._layout.views(self._flat[0])]
        self._fixed = [p[0].clone() for p in compress(parameters, frozen)]
        both = (iter(self._leaves), iter(self._fixed))
        self._model = [next(both[kept]) for kept in frozen]
        self._batches = torch.zeros(steps, rows, dtype=torch.int64, device=device)
        self._numbers = torch.zeros(steps, 4, dtype=torch.float64, device=device)
        self._decay = torch.zeros((), dtype=torch.float64, device=device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._going = torch.ones((), dtype=torch.bool, device=device)
        self._nan = torch.full((), math.nan, dtype=dtype, device=device)
        self.losses = torch.zeros(steps, dtype=dtype, device=device)
        widths = [weight.shape[-1] for weight in parameters[1::2]]  # T*D, H1, …
        self.masks = ReplayedMasks(steps, rows, widths, dtype, device) if dropout else None
        self._graphs = device.type == "cuda"
        self._warm = False
        self._replay: Callable[[], None] | None = None

    def load(self, state: list[list[Tensor]], batches: Tensor, rates: Tensor, decay: float) -> None:
        """A model at the start of its steps: its parameters and moments, and what they will use."""
        with torch.no_grad():
            _copy(self._fixed, compress(state[0], self._frozen))
            for flat, tensors in zip(self._flat, state, strict=True):
                _copy(self._layout.views(flat), compress(tensors, self._trained))
            self._batches.copy_(batches)
            self._decay.fill_(decay)
            rule, numbers = self._rule, self._numbers
            numbers[:, 0] = rates
            if rule.optimizer == _ADAMW:
                done = torch.arange(1, len(rates) + 1, dtype=torch.float64, device=rates.device)
                done += rule.step
                numbers[:, 1] = 1 - rates * decay
                numbers[:, 2] = rates / (1 - rule.beta1**done)
                numbers[:, 3] = (1 - rule.beta2**done).sqrt()
            self._at.zero_()
            self._going.fill_(True)

    def store(self, state: list[list[Tensor]]) -> None:
        """The trained parameters and moments back into the model's tensors."""
        with torch.no_grad():
            for flat, tensors in zip(self._flat, state, strict=True):
                _copy(compress(tensors, self._trained), self._layout.views(flat))

    def steps(self) -> None:
        """All steps of the loaded model."""
        for s in range(len(self.losses)):
            if self.masks:
                self.masks.draw_before(s)
            if self._warm and self._graphs:
                self._replay = self._replay or self._captured()
                self._replay()
            else:
                self._once()
                self._warm = True

    def _captured(self) -> Callable[[], None]:
        """The replay of the step that the counter names; nothing runs yet."""
        device = self._at.device
        with torch.cuda.device(device):
            graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
            # A stream of its own: torch's default for captures belongs to the device of the first.
            # Other threads may go on with memory of their own meanwhile.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                self._once()
        return graph.replay

    def _once(self) -> None:
        """The step that the counter names; it moves the counter on."""
        at = self._at
        loss = self._loss(self._batches.index_select(0, at).view(-1))
        gradients = torch.autograd.grad(loss, self._leaves) if self._leaves else ()
        with torch.no_grad():
            _copy(self._gradients, gradients)
            seen = torch.where(self._going, loss, self._nan)
            self.losses.index_copy_(0, at, seen.view(1))
            self._going.copy_(seen.isfinite())
            self._update(self._numbers.index_select(0, at).view(-1).unbind())
            at.add_(1)

    def _loss(self, rows: Tensor) -> Tensor:
        """The loss of the batch of these rows (N,), with its graph."""
        embedding, *layers = self._model
        masked = self.masks.apply if self.masks else lambda x, _layer, _at: x
        ids = self._inputs.index_select(0, rows)  # (N, T)
        x = masked(EmbeddingGather.direct(ids, embedding, -1), 0, self._at)  # (N, T*D)
        for i in range(0, len(layers) - 2, 2):
            x = LinearTanh.direct(x, layers[i], layers[i + 1])  # (N, H)
            x = masked(x, i // 2 + 1, self._at)
        logits = torch.addmm(layers[-1], x, layers[-2].t())  # (N, C)
        targets = self._targets.index_select(0, rows)
        return CrossEntropy.direct(logits, targets, None, *_NO_OPTIONS, self._rule.label_smoothing)

    def _update(self, numbers: Sequence[Tensor]) -> None:
        """One step of torch.optim on all parameters of the model, if its loss was finite."""
        rule, gradient, values = self._rule, self._gradient, self._flat[0]
        rate, kept, step_size, root = numbers
        if rule.max_grad_norm != math.inf:
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_((rule.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        if rule.optimizer == _ADAMW:
            mean = self._flat[1].lerp(gradient, 1 - rule.beta1)
            square = (self._flat[2] * rule.beta2).addcmul_(gradient, gradient, value=1 - rule.beta2)
            new = values.clone()
            new[: self._layout.weights].mul_(kept)
            ratio = mean / (square.sqrt().div_(root).add_(rule.eps))
            self._keep([new.addcmul_(ratio, step_size, value=-1), mean, square])
            return
        if self._decays:
            gradient.addcmul_(values, self._decay)
        if not rule.momentum:
            self._keep([torch.addcmul(values, gradient, rate, value=-1)])
            return
        buffer = self._flat[1].mul(rule.momentum).add_(gradient)
        if rule.nesterov:
            gradient.add_(buffer, alpha=rule.momentum)
        change = gradient if rule.nesterov else buffer
        self._keep([torch.addcmul(values, change, rate, value=-1), buffer])

    def _keep(self, new: list[Tensor]) -> None:
        for flat, value in zip(self._flat, new, strict=True):
            torch.where(self._going, value, flat, out=flat)


def _copy(to: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    if tensors := list(to):
        torch._foreach_copy_(tensors, list(values))


class _Layout:
    """Where each trained tensor lies in one array: first the weights, then the biases."""

    def __init__(self, model: list[Tensor]) -> None:
        self._shapes = [tensor.shape for tensor in model]
        self._starts = [0] * len(model)
        end = 0
        for wanted in (2, 1):  # axes
            for i, tensor in enumerate(model):
                if tensor.dim() == wanted:
                    self._starts[i] = end
                    end += -(-tensor.numel() // _ALIGNED) * _ALIGNED
            if wanted == 2:
                self.weights = end
        self._size = end

    def zeros(self, like: Tensor) -> Tensor:
        return torch.zeros(self._size, dtype=like.dtype, device=like.device)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The tensors of the model in ``flat``; between them it stays zero."""
        both = zip(self._starts, self._shapes, strict=True)
        return [flat[a : a + shape.numel()].view(shape) for a, shape in both]
