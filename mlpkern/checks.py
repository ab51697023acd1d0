"""The checks every op makes of its arguments, once for all backends.

Reading one attribute of a tensor takes 0.06 us, and a call has ten to read. A compiled backend
reads them anyway, so an op hands a good call straight to it; only when the backend refuses do these
functions find out what is wrong and raise. For a backend without checks they run before each call.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.compiler import is_compiling

#: The tensor types a backend may be handed. A subclass may have no memory of its own.
PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
FLOATS = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))
INTEGERS = frozenset((torch.uint8, torch.int16, torch.int32, torch.int64))

_FLOAT_NAMES = "float32, float64, bfloat16 or float16"
_INTEGER_NAMES = "uint8, int16, int32 or int64"


def require_tensor(op: str, name: str, value: Any) -> None:
    """TypeError unless ``value`` is a dense tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested:
        raise TypeError(f"{op}: {name} must be a dense tensor, got {value.layout}")


def require_float(op: str, name: str, value: torch.Tensor) -> None:
    """TypeError unless ``value`` has one of the four floating dtypes."""
    if value.dtype not in FLOATS:
        raise TypeError(f"{op}: {name} must be {_FLOAT_NAMES}, got {dtype_name(value)}")


def require_integer(op: str, name: str, value: torch.Tensor) -> None:
    """TypeError unless ``value`` has one of the four integer dtypes."""
    if value.dtype not in INTEGERS:
        raise TypeError(f"{op}: {name} must be {_INTEGER_NAMES}, got {dtype_name(value)}")


def real(op: str, name: str, value: Any) -> float:
    """``value`` as a float: a number of Python or numpy, or a tensor () that needs no gradient.

    torch takes the same for a float. TypeError for anything else.
    """
    if isinstance(value, (float, int)):
        return float(value)
    kind = type(value).__name__
    if isinstance(value, torch.Tensor) and (value.dim() or value.requires_grad):
        kind = f"a tensor {shape(value)}" + " that requires a gradient" * value.requires_grad
    elif not isinstance(value, (str, bytes)) and getattr(value, "ndim", 0) == 0:
        with contextlib.suppress(TypeError, RuntimeError):
            return float(value)
    raise TypeError(f"{op}: {name} must be a float, got {kind}")


def integer(op: str, name: str, value: Any) -> int:
    """``value`` as an int: of Python or numpy, or an integer tensor (). TypeError otherwise."""
    # To Dynamo a NumPy number is a tensor, whose operator.index only few versions can trace.
    if hasattr(value, "dtype") and is_compiling():
        return int(value)
    try:
        return operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{op}: {name} must be an int, got {kind}") from None


def require_same_dtype(
    op: str, name: str, value: torch.Tensor, other_name: str, other: torch.Tensor
) -> None:
    """TypeError unless both tensors have one dtype."""
    if value.dtype != other.dtype:
        raise TypeError(
            f"{op}: {name} must be {dtype_name(other)} like {other_name}, got {dtype_name(value)}"
        )


def require_same_device(
    op: str, name: str, value: torch.Tensor, other_name: str, other: torch.Tensor
) -> None:
    """ValueError unless both tensors are on one device."""
    if value.device != other.device:
        raise ValueError(
            f"{op}: {name} must be on {other.device} like {other_name}, got {value.device}"
        )


def require_alike(
    op: str, tensors: dict[str, torch.Tensor], dtypes: tuple[torch.dtype, ...]
) -> None:
    """Raise unless all are dense tensors of one of ``dtypes`` on one device: those of the first."""
    first = next(iter(tensors))
    for name, tensor in tensors.items():
        require_tensor(op, name, tensor)
        if tensor.dtype not in dtypes:
            expected = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
            raise TypeError(f"{op}: {name} must be {expected}, got {dtype_name(tensor)}")
        require_same_dtype(op, name, tensor, first, tensors[first])
        require_same_device(op, name, tensor, first, tensors[first])


def require_linear(
    op: str,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    width: int,
    inputs: Mapping[str, torch.Tensor],
) -> None:
    """Raise unless weight (H, ``width``) and bias (H,) or None match ``inputs``, by name.

    The last of the inputs has the dtype and the device of both.
    """
    name, like = list(inputs.items())[-1]
    require_same_dtype(op, "weight", weight, name, like)
    if weight.dim() != 2 or weight.shape[1] != width:
        given = " and ".join(f"{name} {shape(input)}" for name, input in inputs.items())
        raise ValueError(f"{op}: weight must be (H, {width}) to match {given}, got {shape(weight)}")
    require_same_device(op, "weight", weight, name, like)
    if bias is None:
        return
    require_same_dtype(op, "bias", bias, name, like)
    if bias.dim() != 1 or bias.shape[0] != weight.shape[0]:
        raise ValueError(
            f"{op}: bias must be ({weight.shape[0]},) to match weight {shape(weight)}, "
            f"got {shape(bias)}"
        )
    require_same_device(op, "bias", bias, name, like)


def shape(tensor: torch.Tensor) -> str:
    """``(32, 30)`` for a message."""
    sizes = ", ".join(map(str, tensor.shape))
    return f"({sizes},)" if tensor.dim() == 1 else f"({sizes})"


def dtype_name(tensor: torch.Tensor) -> str:
    """``float32`` for a message."""
    return str(tensor.dtype).removeprefix("torch.")
