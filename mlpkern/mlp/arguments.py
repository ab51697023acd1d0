"""The checks of parameters and training set that `train_steps` and `evaluate` share."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch._C import _are_functorch_transforms_active as transforms_active

from mlpkern.checks import PLAIN, require_integer, require_same_device, require_tensor, shape
from mlpkern.mlp.params import MLPParams


def require_params(op: str, params: Any) -> list[Tensor]:
    """`with_model_axis` of ``params`` if they are what a backend can read."""
    if not isinstance(params, MLPParams):
        raise TypeError(f"{op}: params must be a mlpkern.MLPParams, got {type(params).__name__}")
    if transforms_active():
        raise RuntimeError(f"{op}: cannot run under a transform of torch.func, it reads memory")
    params.check(op)
    tensors = params.tensors()
    for i, tensor in enumerate(tensors):
        if type(tensor) not in PLAIN or tensor.is_meta or tensor.is_neg():
            require_memory(op, params.names()[i], tensor)
    return with_model_axis(params)


def with_model_axis(params: MLPParams) -> list[Tensor]:
    """The tensors of ``params`` without graph, sharing memory, each with a leading M."""
    tensors = [tensor.detach() for tensor in params.tensors()]
    return tensors if params.models is not None else [tensor.unsqueeze(0) for tensor in tensors]


def packed(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors of `with_model_axis`, copied where a model's part is not contiguous."""
    return [t if t.is_contiguous() or t[0].is_contiguous() else t.contiguous() for t in tensors]


def require_memory(op: str, name: str, tensor: Tensor) -> None:
    """TypeError unless the values of ``tensor`` are those that lie in its memory."""
    if type(tensor) not in PLAIN:
        raise TypeError(f"{op}: {name} must be a plain tensor, got a {type(tensor).__name__}")
    if tensor.is_meta:
        raise TypeError(f"{op}: {name} must have values, got a meta tensor")
    if tensor.is_neg():
        raise TypeError(f"{op}: {name} must not be lazily negated, call resolve_neg() on it")


def require_ids(op: str, name: str, ids: Any, params: MLPParams) -> None:
    """Raise unless ``ids`` is an integer tensor with memory on the device of the parameters."""
    require_tensor(op, name, ids)
    require_integer(op, name, ids)
    require_same_device(op, name, ids, "params", params.embedding)
    require_memory(op, name, ids)


def require_split(op: str, params: MLPParams, inputs: Any, targets: Any) -> None:
    """Raise unless ``inputs`` is (rows, T) and ``targets`` (rows,), of integers."""
    require_ids(op, "inputs", inputs, params)
    require_ids(op, "targets", targets, params)
    context = params.context
    if inputs.dim() != 2 or inputs.shape[1] != context:
        raise ValueError(
            f"{op}: inputs must be (rows, {context}) to match embedding {shape(params.embedding)} "
            f"and hidden.0.weight {shape(params.hidden[0][0])}, got {shape(inputs)}"
        )
    if targets.dim() != 1 or targets.shape[0] != inputs.shape[0]:
        raise ValueError(
            f"{op}: targets must be ({inputs.shape[0]},) to match inputs {shape(inputs)}, "
            f"got {shape(targets)}"
        )
