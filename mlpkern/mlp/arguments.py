"""The checks of the arguments of ``train_steps`` and ``evaluate``, and their form for a backend.

A test of what is usual comes first; only where it fails do the checks that can say what is wrong.
Ids and row numbers are left to the backend.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from itertools import chain, compress
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforms_active

from mlpkern.checks import (
    INTEGERS,
    PLAIN,
    dtype_name,
    real,
    require_integer,
    require_same_device,
    require_tensor,
    shape,
)
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.optimizers import OPTIMIZERS
from mlpkern.mlp.params import MLPParams
from mlpkern.mlp.training_arguments import ADAMW, Rule
from mlpkern.mlp.written_memory import reach, require_apart


class Arguments:
    """The arguments of a call of ``op`` with ``params``, M models or one.

    Raises TypeError, ValueError or RuntimeError unless a backend can read ``params``.

    Attributes:
        own: the tensors of ``params``.
        tensors: the same without graph, sharing memory, each with a leading M.
        frozen: of each of them, whether training keeps it as it is.
        models: M; None without a leading axis. count: M, or 1.
    """

    def __init__(self, op: str, params: Any) -> None:
        if not isinstance(params, MLPParams):
            kind = type(params).__name__
            raise TypeError(f"{op}: params must be a mlpkern.MLPParams, got {kind}")
        if transforms_active():
            raise RuntimeError(f"{op}: cannot run under a transform of torch.func, it reads memory")
        params.check(op)
        own = params.tensors()
        self.op, self.params, self.own = op, params, own
        for i, tensor in enumerate(own):
            if type(tensor) not in PLAIN or tensor.is_meta or tensor.is_neg():
                self._require_memory(params.names()[i], tensor)
        embedding = own[0]
        self.models = embedding.shape[0] if embedding.dim() == 3 else None
        self.count = 1 if self.models is None else self.models
        self.device, self.dtype = embedding.device, embedding.dtype
        self.tensors = self.with_model_axis(own)
        self.frozen = params.is_frozen()

    def with_model_axis(self, tensors: list[Tensor]) -> list[Tensor]:
        """``tensors`` without graph, sharing memory, each with a leading M."""
        plain = [tensor.detach() for tensor in tensors]
        return plain if self.models is not None else [tensor.unsqueeze(0) for tensor in plain]

    def split(self, inputs: Any, targets: Any) -> None:
        """Raise unless ``inputs`` is (rows, T) and ``targets`` (rows,), of integers."""
        self._ids("inputs", inputs)
        self._ids("targets", targets)
        embedding, weight = self.own[:2]
        context = weight.shape[-1] // embedding.shape[-1]
        if inputs.dim() != 2 or inputs.shape[1] != context:
            raise ValueError(
                f"{self.op}: inputs must be (rows, {context}) to match embedding "
                f"{shape(embedding)} and hidden.0.weight {shape(weight)}, got {shape(inputs)}"
            )
        if targets.dim() != 1 or targets.shape[0] != inputs.shape[0]:
            raise ValueError(
                f"{self.op}: targets must be ({inputs.shape[0]},) to match inputs {shape(inputs)}, "
                f"got {shape(targets)}"
            )

    def batches(self, batches: Any) -> Tensor:
        """The row numbers as (M, S, N), with stride 0 along M if all models share them."""
        self._ids("batches", batches)
        own = self.models is not None and batches.dim() == 3
        if batches.dim() != 2 and not (own and batches.shape[0] == self.models):
            expected = "(S, N)" if self.models is None else f"(S, N) or ({self.models}, S, N)"
            raise ValueError(f"{self.op}: batches must be {expected}, got {shape(batches)}")
        if batches.shape[-1] == 0:
            raise ValueError(f"{self.op}: batches must have at least one row, got {shape(batches)}")
        ready: Tensor = batches if own else batches.expand(self.count, -1, -1)
        return ready

    def learning_rates(self, lr: Any, steps: int) -> Tensor:
        """The rates as (M, S) float64 with adjacent steps, on the device of the parameters."""
        largest = torch.finfo(self.dtype).max
        if isinstance(lr, float) and 0 <= lr <= largest:
            return self._full(steps, lr).expand(self.count, -1)
        rates = self._float64("lr", lr)
        fits = rates.dim() < 2 or (self.models is not None and rates.shape[0] == self.models)
        if rates.dim() > 2 or not fits or (rates.dim() and rates.shape[-1] != steps):
            more = "" if self.models is None else f" or ({self.models}, {steps})"
            raise ValueError(
                f"{self.op}: lr must be a number, ({steps},){more}, got {shape(rates)}"
            )
        good = (rates >= 0) & (rates <= largest)
        if not good.all():
            where = (~good).nonzero()[0].tolist()
            raise ValueError(
                f"{self.op}: {_item('lr', where)} is {rates[tuple(where)].item()}, expected a "
                "finite number >= 0"
            )
        rates = rates if rates.dim() else rates.expand(steps)
        return rates.contiguous().expand(self.count, steps)

    def per_model(self, name: str, value: Any, below: float) -> Tensor:
        """``value`` as (M,) float64; ValueError unless 0 <= value < below."""
        if isinstance(value, float) and 0 <= value < below:
            return self._full(self.count, value)
        tensor = self._float64(name, value)
        if tensor.dim() > 1 or (tensor.dim() == 1 and tensor.shape[0] != self.count):
            raise ValueError(
                f"{self.op}: {name} must be a number or ({self.count},), got {shape(tensor)}"
            )
        for m, number in enumerate(tensor.tolist() if tensor.dim() else [tensor.item()]):
            if not 0 <= number < below:
                where = _item(name, [m] if tensor.dim() else [])
                limit = "finite and >= 0" if below == math.inf else f"0 <= {name} < {below:g}"
                raise ValueError(f"{self.op}: {where} is {number}, expected {limit}")
        return tensor.expand(self.count).contiguous()

    def random_streams(self, seed: Any) -> tuple[Tensor, Tensor]:
        """The seed, as int64, and the dropout stream of each model, (M,) both."""
        count, device = self.count, self.device
        if isinstance(seed, Tensor):
            seed = seed.tolist()
        one = isinstance(seed, numbers.Integral)
        try:
            seeds = [operator.index(s) for s in ([seed] * count if one else seed)]
        except TypeError:
            kind = type(seed).__name__
            raise TypeError(
                f"{self.op}: seed must be an int or ({count},) ints, got {kind}"
            ) from None
        if len(seeds) != count:
            raise ValueError(f"{self.op}: seed must be an int or ({count},) ints, got {len(seeds)}")
        for m, number in enumerate(seeds):
            if not -(2**63) <= number < 2**64:
                where = _item("seed", [] if one else [m])
                raise ValueError(f"{self.op}: {where} is {number}, expected -2^63 <= seed < 2^64")
        if len(self.own) > 2 * 255 + 3 or count > 1 << 24:
            raise ValueError(f"{self.op}: at most 255 hidden layers and 2^24 models")
        signed = [number - 2**64 if number >= 2**63 else number for number in seeds]
        streams = torch.arange(count, device=device)
        return (
            torch.tensor(signed, dtype=torch.int64, device=device),
            streams if one else streams.zero_(),
        )

    def rule(
        self,
        optimizer: Any,
        momentum: Any,
        nesterov: Any,
        betas: Any,
        eps: Any,
        max_grad_norm: Any,
        label_smoothing: Any,
    ) -> Rule:
        """The options of a step; raises unless they are what `train_steps` says."""
        op = self.op
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"{op}: optimizer must be 'sgd' or 'adamw', got {optimizer!r}")
        if isinstance(betas, str) or not hasattr(betas, "__len__") or len(betas) != 2:
            raise TypeError(f"{op}: betas must be two numbers, got {betas!r}")
        rule = Rule(
            OPTIMIZERS.index(optimizer),
            self._between("momentum", momentum, math.inf, "finite and >= 0"),
            bool(nesterov),
            self._between("betas[0]", betas[0], 1, "0 <= beta < 1"),
            self._between("betas[1]", betas[1], 1, "0 <= beta < 1"),
            self._between("eps", eps, math.inf, "finite and >= 0"),
            math.inf
            if max_grad_norm is None or max_grad_norm == math.inf
            else self._between("max_grad_norm", max_grad_norm, math.inf, "None or >= 0"),
            self._between("label_smoothing", label_smoothing, math.nextafter(1, 2), "0 to 1"),
        )
        if rule.optimizer == ADAMW and (momentum or nesterov):
            raise ValueError(f"{op}: momentum and nesterov are for optimizer 'sgd', got 'adamw'")
        if nesterov and not momentum:
            raise ValueError(f"{op}: nesterov needs a momentum > 0, got {momentum}")
        return rule

    def state(self, state: Any, rule: Rule) -> OptimizerState:
        """``state``, if it is that of a run of ``params`` by this rule; otherwise raises."""
        op = self.op
        if not isinstance(state, OptimizerState):
            kind = type(state).__name__
            raise TypeError(f"{op}: state must be a mlpkern.OptimizerState, got {kind}")
        stopped = state.stopped
        self._ids("state.stopped", stopped)
        if stopped.dtype != torch.int64 or stopped.shape != (self.count,):
            raise ValueError(
                f"{op}: state.stopped must be ({self.count},) int64 to match params, got "
                f"{shape(stopped)} {dtype_name(stopped)}"
            )
        if not stopped.is_contiguous():
            raise ValueError(f"{op}: state.stopped must be contiguous")
        if not isinstance(state.step, int) or state.step < 0:
            raise ValueError(f"{op}: state.step must be an int >= 0, got {state.step!r}")
        if rule.optimizer or rule.momentum or state.first or state.second:
            state.require_moments(op, self.params, rule.optimizer == ADAMW, rule.momentum != 0)
        return state

    def written(self, state: OptimizerState, read: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors that are written: what is not frozen, its moments, and state.stopped.

        ValueError if one of them holds an element twice, or shares memory with another of them or
        with anything that the call reads: frozen parameters and the tensors of ``read``.
        """
        moments = [part.tensors() for part in (state.first, state.second) if part]
        trains = [not kept for kept in self.frozen]
        writes = [*trains, True, *trains * len(moments)]
        tensors = [*self.own, state.stopped, *chain.from_iterable(moments)]
        written = list(compress(tensors, writes))
        tensors += read.values()
        dense = [tensor.is_contiguous() for tensor in tensors]
        pairs = zip(tensors, dense, strict=True)
        ranges = [(at := t.data_ptr(), at + (t.nbytes if d else reach(t))) for t, d in pairs]
        in_order = list(chain.from_iterable(sorted(ranges)))
        if in_order != sorted(in_order) or not all(compress(dense, writes)):
            own = [*self.params.names(), *(f"state.{name}" for name in state.names())]
            writes += [False] * len(read)
            require_apart(self.op, dict(zip([*own, *read], tensors, strict=True)), writes)
        return written

    def _ids(self, name: str, ids: Any) -> None:
        """Raise unless ``ids`` is an integer tensor with memory on the device of the parameters."""
        usual = type(ids) is Tensor and ids.dtype in INTEGERS and ids.layout is torch.strided
        if not usual or ids.is_nested or ids.device != self.device or ids.is_neg():
            require_tensor(self.op, name, ids)
            require_integer(self.op, name, ids)
            require_same_device(self.op, name, ids, "params", self.own[0])
            self._require_memory(name, ids)

    def _require_memory(self, name: str, tensor: Tensor) -> None:
        """TypeError unless the values of ``tensor`` are those in its memory."""
        if type(tensor) not in PLAIN:
            kind = type(tensor).__name__
            raise TypeError(f"{self.op}: {name} must be a plain tensor, got a {kind}")
        if tensor.is_meta:
            raise TypeError(f"{self.op}: {name} must have values, got a meta tensor")
        if tensor.is_neg():
            raise TypeError(
                f"{self.op}: {name} must not be lazily negated, call resolve_neg() on it"
            )

    def _between(self, name: str, value: Any, below: float, expected: str) -> float:
        number = value if type(value) is float else real(self.op, name, value)
        if not 0 <= number < below:
            raise ValueError(f"{self.op}: {name} must be {expected}, got {value}")
        return number

    def _full(self, count: int, value: float) -> Tensor:
        return torch.full((count,), value, dtype=torch.float64, device=self.device)

    def _float64(self, name: str, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().to(self.device, torch.float64)
        try:
            return torch.as_tensor(value, dtype=torch.float64, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            kind = type(value).__name__
            raise TypeError(f"{self.op}: {name} must be a number or a tensor, got {kind}") from None


def packed(tensors: list[Tensor]) -> list[Tensor]:
    """``tensors`` (M, …), copied where a model's part is not contiguous."""
    return [t if t.is_contiguous() or t[0].is_contiguous() else t.contiguous() for t in tensors]


def _item(name: str, position: list[int]) -> str:
    return f"{name}[{', '.join(map(str, position))}]" if position else name
