"""The checks of the arguments of ``train_steps``, and their form for a backend.

Parameters and training set: see ``mlp_arguments``. The ids and row numbers are left to the backend.
"""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import torch
from torch import Tensor

from mlpkern.checks import dtype_name, real, require_same_device, require_tensor, shape
from mlpkern.mlp.arguments import require_ids
from mlpkern.mlp.optimizer_state import OPTIMIZERS, OptimizerState
from mlpkern.mlp.params import MLPParams

_OP = "train_steps"


def require_batches(params: MLPParams, batches: Any) -> Tensor:
    """The row numbers as (M, S, N), with stride 0 along M if all models share them."""
    require_ids(_OP, "batches", batches, params)
    models = params.models
    own = models is not None and batches.dim() == 3
    if batches.dim() != 2 and not (own and batches.shape[0] == models):
        expected = "(S, N)" if models is None else f"(S, N) or ({models}, S, N)"
        raise ValueError(f"{_OP}: batches must be {expected}, got {shape(batches)}")
    if batches.shape[-1] == 0:
        raise ValueError(f"{_OP}: batches must have at least one row, got {shape(batches)}")
    return batches if own else batches.expand(models or 1, -1, -1)


def learning_rates(params: MLPParams, lr: Any, steps: int) -> Tensor:
    """The rates as (M, S) float64 with adjacent steps, on the device of the parameters."""
    models = params.models
    largest = torch.finfo(params.dtype).max
    if isinstance(lr, float) and 0 <= lr <= largest:
        return _full(steps, lr, params).expand(models or 1, -1)
    rates = _float64("lr", lr, params)
    fits = rates.dim() < 2 or (models is not None and rates.shape[0] == models)
    if rates.dim() > 2 or not fits or (rates.dim() and rates.shape[-1] != steps):
        expected = f"a number, ({steps},)" + ("" if models is None else f" or ({models}, {steps})")
        raise ValueError(f"{_OP}: lr must be {expected}, got {shape(rates)}")
    good = (rates >= 0) & (rates <= largest)
    if not good.all():
        where = (~good).nonzero()[0].tolist()
        raise ValueError(
            f"{_OP}: {_item('lr', where)} is {rates[tuple(where)].item()}, expected a finite "
            "number >= 0"
        )
    rates = rates if rates.dim() else rates.expand(steps)
    return rates.contiguous().expand(models or 1, steps)


def per_model(params: MLPParams, name: str, value: Any, below: float) -> Tensor:
    """``value`` as (M,) float64; ValueError unless 0 <= value < below."""
    models = params.models or 1
    if isinstance(value, float) and 0 <= value < below:
        return _full(models, value, params)
    tensor = _float64(name, value, params)
    if tensor.dim() > 1 or (tensor.dim() == 1 and tensor.shape[0] != models):
        raise ValueError(f"{_OP}: {name} must be a number or ({models},), got {shape(tensor)}")
    for m, number in enumerate(tensor.tolist() if tensor.dim() else [tensor.item()]):
        if not 0 <= number < below:
            where = _item(name, [m] if tensor.dim() else [])
            limit = "finite and >= 0" if below == math.inf else f"0 <= {name} < {below:g}"
            raise ValueError(f"{_OP}: {where} is {number}, expected {limit}")
    return tensor.expand(models).contiguous()


def random_streams(params: MLPParams, seed: Any) -> tuple[Tensor, Tensor]:
    """The seed, as int64, and the dropout stream of each model, (M,) both."""
    models, device = params.models or 1, params.device
    if isinstance(seed, Tensor):
        seed = seed.tolist()
    one = isinstance(seed, numbers.Integral)
    try:
        seeds = [operator.index(s) for s in ([seed] * models if one else seed)]
    except TypeError:
        raise TypeError(
            f"{_OP}: seed must be an int or ({models},) ints, got {type(seed).__name__}"
        ) from None
    if len(seeds) != models:
        raise ValueError(f"{_OP}: seed must be an int or ({models},) ints, got {len(seeds)}")
    for m, number in enumerate(seeds):
        if not -(2**63) <= number < 2**64:
            where = _item("seed", [] if one else [m])
            raise ValueError(f"{_OP}: {where} is {number}, expected -2^63 <= seed < 2^64")
    if len(params.hidden) > 255 or models > 1 << 24:
        raise ValueError(f"{_OP}: at most 255 hidden layers and 2^24 models")
    signed = [number - 2**64 if number >= 2**63 else number for number in seeds]
    streams = torch.arange(models, device=device)
    if not one:
        streams.zero_()
    return torch.tensor(signed, dtype=torch.int64, device=device), streams


def require_options(
    optimizer: Any,
    momentum: Any,
    nesterov: Any,
    betas: Any,
    eps: Any,
    max_grad_norm: Any,
    label_smoothing: Any,
) -> None:
    """Raise unless the options of the run are what `train_steps` says."""
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"{_OP}: optimizer must be 'sgd' or 'adamw', got {optimizer!r}")
    if isinstance(betas, str) or not hasattr(betas, "__len__") or len(betas) != 2:
        raise TypeError(f"{_OP}: betas must be two numbers, got {betas!r}")
    _require_between("momentum", momentum, 0, math.inf, "finite and >= 0")
    _require_between("betas[0]", betas[0], 0, 1, "0 <= beta < 1")
    _require_between("betas[1]", betas[1], 0, 1, "0 <= beta < 1")
    _require_between("eps", eps, 0, math.inf, "finite and >= 0")
    _require_between("label_smoothing", label_smoothing, 0, math.nextafter(1, 2), "0 to 1")
    if max_grad_norm is not None and max_grad_norm != math.inf:
        _require_between("max_grad_norm", max_grad_norm, 0, math.inf, "None or >= 0")
    if optimizer == "adamw" and (momentum or nesterov):
        raise ValueError(f"{_OP}: momentum and nesterov are for optimizer 'sgd', got 'adamw'")
    if nesterov and not momentum:
        raise ValueError(f"{_OP}: nesterov needs a momentum > 0, got {momentum}")


def require_state(params: MLPParams, state: Any, optimizer: str, momentum: float) -> None:
    """Raise unless ``state`` is that of a run of ``params`` with this optimizer."""
    if not isinstance(state, OptimizerState):
        raise TypeError(
            f"{_OP}: state must be a mlpkern.OptimizerState, got {type(state).__name__}"
        )
    models = params.models or 1
    require_tensor(_OP, "state.stopped", state.stopped)
    if state.stopped.dtype != torch.int64 or state.stopped.shape != (models,):
        raise ValueError(
            f"{_OP}: state.stopped must be ({models},) int64 to match params, got "
            f"{shape(state.stopped)} {dtype_name(state.stopped)}"
        )
    require_same_device(_OP, "state.stopped", state.stopped, "params", params.embedding)
    if not state.stopped.is_contiguous():
        raise ValueError(f"{_OP}: state.stopped must be contiguous")
    if not isinstance(state.step, int) or state.step < 0:
        raise ValueError(f"{_OP}: state.step must be an int >= 0, got {state.step!r}")
    adamw = optimizer == "adamw"
    if adamw != (state.second is not None) or (state.first is None and (adamw or momentum)):
        held = "adamw" if state.second else "sgd with" if state.first else "sgd without"
        needed = "adamw" if adamw else "sgd with" if momentum else "sgd without"
        text = [t + " momentum" if " " in t else t for t in (needed, held)]
        raise ValueError(f"{_OP}: state must be that of {text[0]}, got that of {text[1]}")
    for field, moments in (("first", state.first), ("second", state.second)):
        if moments is None:
            continue
        own = moments.named_tensors()
        for name, tensor in params.named_tensors().items():
            other = own.get(name)
            if (
                other is None
                or (other.shape, other.dtype) != (tensor.shape, tensor.dtype)
                or other.device != tensor.device
            ):
                got = "none" if other is None else f"{shape(other)} {dtype_name(other)}"
                raise ValueError(
                    f"{_OP}: state.{field}.{name} must be {shape(tensor)} {dtype_name(tensor)} on "
                    f"{tensor.device} like params, got {got}"
                )


def _full(count: int, value: float, params: MLPParams) -> Tensor:
    return torch.full((count,), value, dtype=torch.float64, device=params.device)


def _float64(name: str, value: Any, params: MLPParams) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(params.device, torch.float64)
    try:
        return torch.as_tensor(value, dtype=torch.float64, device=params.device)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise TypeError(f"{_OP}: {name} must be a number or a tensor, got {kind}") from None


def _require_between(name: str, value: Any, low: float, below: float, expected: str) -> None:
    if not low <= real(_OP, name, value) < below:
        raise ValueError(f"{_OP}: {name} must be {expected}, got {value}")


def _item(name: str, position: list[int]) -> str:
    return f"{name}[{', '.join(map(str, position))}]" if position else name
