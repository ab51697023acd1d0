"""torch's autocast policy for the ops: the casts that ``F.linear`` and ``F.cross_entropy`` get.

The casts are ordinary ``Tensor.to`` calls, so gradients come back in the dtype of the caller's
tensors. As in torch, float64 is left alone, and so are ids and tensors on other devices.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import _is_any_autocast_enabled as any_autocast

__all__ = ["any_autocast", "to_autocast_dtype", "to_float32"]


def to_autocast_dtype(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The policy of ``F.linear``: the autocast dtype of the device of the first tensor."""
    device = tensors[0].device.type if tensors[0] is not None else "cpu"
    if not torch.is_autocast_enabled(device):
        return tensors
    return _cast(torch.get_autocast_dtype(device), device, tensors)


def to_float32(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The policy of ``F.cross_entropy``: float32."""
    device = tensors[0].device.type if tensors[0] is not None else "cpu"
    if not torch.is_autocast_enabled(device):
        return tensors
    return _cast(torch.float32, device, tensors)


def _cast(
    dtype: torch.dtype, device: str, tensors: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    return tuple(tensor.to(dtype) if _eligible(tensor, device) else tensor for tensor in tensors)


def _eligible(tensor: Tensor | None, device: str) -> bool:
    return (
        tensor is not None
        and tensor.is_floating_point()
        and tensor.dtype is not torch.float64
        and tensor.device.type == device
    )
