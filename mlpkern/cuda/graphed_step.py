"""One training step of the fused ops, captured as a CUDA graph, and the arrays that it works on.

The host only starts the replays. A counter on the device holds the step number: it picks the
examples of the batch, the numbers of the step (learning rate, AdamW's bias corrections) and the
dropout masks from arrays of many steps, and the place of the loss. These arrays are filled a block
of steps at a time, whatever the length of the call. The first step of all runs eagerly, so that
libraries set themselves up before the capture; on a CPU all steps do.

The trained parameters of a model, their moments and gradients are one array each, the weights
before the biases, so that the update is a handful of kernels however many layers there are. Frozen
parameters lie apart and have neither moments nor gradients. Only the device knows whether the loss
was finite: there the new values are selected, or the old ones kept.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor

from mlpkern.cuda.precision import tf32
from mlpkern.cuda.replayed_masks import ReplayedMasks
from mlpkern.mlp.training_arguments import ADAMW, Rule
from mlpkern.ops.mlp_loss import mlp_loss, transposed
from mlpkern.reference.mlp import no_dropout
from mlpkern.registry import select

_OPS = ("embedding_gather", "linear_tanh", "cross_entropy")
_ALIGNED = 32  # elements: every tensor begins where the widest loads may begin
# Of a block: at most so many steps, and ids and targets, 32 MB of them.
_BLOCK_STEPS, _BLOCK_IDS = 1 << 12, 1 << 22

_capturing = threading.Lock()


class Kind(NamedTuple):
    """What a graph is made for, all of it known to the host; frozen is one bool a parameter."""

    device: torch.device
    dtype: torch.dtype
    shapes: tuple[torch.Size, ...]  # of the parameters of one model
    frozen: tuple[bool, ...]
    batch: tuple[int, int]  # N, T
    rule: Rule
    decays: bool
    drops: bool


class Data(NamedTuple):
    """The examples of one model: all of them, those of each step (S, N), rates (S,)."""

    inputs: Tensor
    targets: Tensor
    batches: Tensor
    rates: Tensor
    step: int  # steps done before


class Dropout(NamedTuple):
    probabilities: tuple[float, float]
    seed: int
    stream: int


class Run:
    """The arrays that a graph reads and writes, and the step that it captured."""

    def __init__(self, kind: Kind) -> None:
        device, dtype, rule = kind.device, kind.dtype, kind.rule
        rows, context = kind.batch
        steps = max(1, min(_BLOCK_STEPS, _BLOCK_IDS // (rows * (context + 1))))
        self._rule, self._decays, self._graphs = rule, kind.decays, _can_capture(device)
        self._frozen, self._trained = kind.frozen, [not kept for kept in kind.frozen]
        self._layout = _Layout(list(compress(kind.shapes, self._trained)))
        kinds = 3 if rule.optimizer == ADAMW else 2 if rule.momentum else 1
        self._flat = [self._layout.zeros(dtype, device) for _ in range(kinds)]
        self._gradient = self._layout.zeros(dtype, device)
        self._gradients = self._layout.views(self._gradient)
        self._leaves = [v.detach().requires_grad_() for v in self._layout.views(self._flat[0])]
        fixed = compress(kind.shapes, kind.frozen)
        self._fixed = [torch.zeros(shape, dtype=dtype, device=device) for shape in fixed]
        both = (iter(self._leaves), iter(self._fixed))
        self._model = [next(both[kept]) for kept in kind.frozen]
        self._ids = torch.zeros(steps, rows, context, dtype=torch.int64, device=device)
        self._labels = torch.zeros(steps, rows, dtype=torch.int64, device=device)
        self._numbers = torch.zeros(steps, 4, dtype=torch.float64, device=device)
        self._decay = torch.zeros((), dtype=torch.float64, device=device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._going = torch.ones((), dtype=torch.bool, device=device)
        self._nan = torch.full((), math.nan, dtype=dtype, device=device)
        self._losses = torch.zeros(steps, dtype=dtype, device=device)
        widths = [shape[-1] for shape in kind.shapes[1::2]]  # T*D, H1, …
        self._masks = ReplayedMasks(steps, rows, widths, dtype, device) if kind.drops else None
        self._warm = False
        self._replay: Callable[[], None] | None = None
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def train(
        self,
        state: list[list[Tensor]],
        data: Data,
        decay: float,
        dropout: Dropout,
        losses: Tensor,
    ) -> None:
        """All steps of the model with these parameters and moments; fills its ``losses`` (S,)."""
        with torch.no_grad():
            _copy(self._fixed, compress(state[0], self._frozen))
            for flat, tensors in zip(self._flat, state, strict=True):
                _copy(self._layout.views(flat), compress(tensors, self._trained))
            self._decay.fill_(decay)
            self._going.fill_(True)
        for begin in range(0, len(losses), len(self._losses)):
            part = losses[begin : begin + len(self._losses)]
            self._load(data, begin, len(part), decay)
            if self._masks:
                at = (dropout.seed, dropout.stream, data.step + begin)
                self._masks.load(dropout.probabilities, *at, len(part))
            self._steps(len(part))
            part.copy_(self._losses[: len(part)])

    def store(self, state: list[list[Tensor]]) -> None:
        """The trained parameters and moments back into the model's tensors."""
        with torch.no_grad():
            for flat, tensors in zip(self._flat, state, strict=True):
                _copy(compress(tensors, self._trained), self._layout.views(flat))

    def close(self) -> None:
        """Waits for the work on its arrays."""
        if self._stream is not None:
            self._stream.synchronize()

    def _load(self, data: Data, begin: int, count: int, decay: float) -> None:
        """What the steps [begin, begin + count) of the call will use."""
        rule, numbers = self._rule, self._numbers[:count]
        rates = data.rates[begin : begin + count]
        rows = data.batches[begin : begin + count].reshape(-1).long()
        with torch.no_grad():
            self._ids[:count].view(-1, self._ids.shape[2]).copy_(data.inputs.index_select(0, rows))
            self._labels[:count].view(-1).copy_(data.targets.index_select(0, rows))
            numbers[:, 0] = rates
            if rule.optimizer == ADAMW:
                done = torch.arange(1, count + 1, dtype=torch.float64, device=rates.device)
                done += data.step + begin
                numbers[:, 1] = 1 - rates * decay
                numbers[:, 2] = rates / (1 - rule.beta1**done)
                numbers[:, 3] = (1 - rule.beta2**done).sqrt()
            self._at.zero_()

    def _steps(self, count: int) -> None:
        """So many steps of what is loaded."""
        for s in range(count):
            if self._masks:
                self._masks.draw_before(s)
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
            graph = torch.cuda.CUDAGraph()
            side = _capture_stream(device, torch.cuda.current_stream(device).cuda_stream)
            # Other threads may go on with memory of their own meanwhile.
            mode = "thread_local"
            with _capturing, torch.cuda.graph(graph, stream=side, capture_error_mode=mode):
                self._once()
        return graph.replay

    def _once(self) -> None:
        """The step that the counter names; it moves the counter on."""
        at = self._at
        loss = self._loss()
        gradients = torch.autograd.grad(loss, self._leaves) if self._leaves else ()
        with torch.no_grad():
            _copy(self._gradients, gradients)
            seen = torch.where(self._going, loss, self._nan)
            self._losses.index_copy_(0, at, seen.view(1))
            self._going.copy_(seen.isfinite())
            self._update(self._numbers.index_select(0, at).view(-1).unbind())
            at.add_(1)

    def _loss(self) -> Tensor:
        """The loss of the batch of this step, with its graph."""
        ids = self._ids.index_select(0, self._at)[0]  # (N, T)
        targets = self._labels.index_select(0, self._at)[0]  # (N,)
        dropout = partial(self._masks.apply, self._at) if self._masks else no_dropout
        model, smoothing = transposed(self._model), self._rule.label_smoothing
        return mlp_loss(model, ids, targets, smoothing, dropout)

    def _update(self, numbers: Sequence[Tensor]) -> None:
        """One step of torch.optim on all parameters of the model, if its loss was finite."""
        rule, gradient, values = self._rule, self._gradient, self._flat[0]
        rate, kept, step_size, root = numbers
        if rule.max_grad_norm != math.inf:
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_((rule.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        if rule.optimizer == ADAMW:
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


def surroundings(parameter: Tensor) -> tuple[Hashable, ...]:
    """What the capture of the ops depends on beside its arguments: switches, backends, the stream.

    Work on one stream is in order, so no two replays of a graph, or its end, can meet.
    """
    on_gpu = parameter.is_cuda
    return (
        torch.cuda.current_stream(parameter.device).cuda_stream if on_gpu else None,
        tuple(select(op, parameter) for op in _OPS),
        tf32(parameter),
        torch.backends.cuda.preferred_blas_library(),
        torch.are_deterministic_algorithms_enabled(),
    )


@functools.cache
def _capture_stream(device: torch.device, _replaying: int) -> torch.cuda.Stream:
    """One for the graphs that are replayed on a stream, and one at a time.

    cuBLAS keeps a workspace for each stream, which a graph goes on using.
    Torch's own stream for captures belongs to the device of the first.
    """
    return torch.cuda.Stream(device)


def _can_capture(device: torch.device) -> bool:
    return device.type == "cuda"


def _copy(to: Iterable[Tensor], values: Iterable[Tensor]) -> None:
    if tensors := list(to):
        torch._foreach_copy_(tensors, list(values))


class _Layout:
    """Where each trained tensor lies in one array: first the weights, then the biases."""

    def __init__(self, shapes: list[torch.Size]) -> None:
        self._shapes = shapes
        self._starts = [0] * len(shapes)
        end = 0
        for wanted in (2, 1):  # axes
            for i, shape in enumerate(shapes):
                if len(shape) == wanted:
                    self._starts[i] = end
                    end += -(-shape.numel() // _ALIGNED) * _ALIGNED
            if wanted == 2:
                self.weights = end
        self._size = end

    def zeros(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.zeros(self._size, dtype=dtype, device=device)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The tensors of the model in ``flat``; between them it stays zero."""
        both = zip(self._starts, self._shapes, strict=True)
        return [flat[a : a + shape.numel()].view(shape) for a, shape in both]
