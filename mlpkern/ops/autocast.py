"""torch's autocast policy for the ops: the casts that ``F.linear`` and ``F.cross_entropy`` get.

The casts are ordinary ``Tensor.to`` calls, so gradients come back in the dtype of the caller's
tensors. As in torch, float64 is left alone, and so are ids.
"""

from __future__ import annotations

import torch
from torch import Tensor

any_autocast = torch._C._is_any_autocast_enabled
#: The device types for which torch has no autocast; asking it about one of them raises. Listed,
#: because Dynamo of torch 2.11 cannot trace ``torch.amp.is_autocast_available``.
WITHOUT_AUTOCAST = frozenset(
    {"fpga", "hip", "ideep", "lazy", "meta", "mkldnn", "opencl", "opengl", "ve", "vulkan"}
)


def linear_dtype(input: Tensor) -> torch.dtype | None:
    """The policy of ``F.linear``: the autocast dtype of the device of ``input``; None when off."""
    device = input.device.type
    return torch.get_autocast_dtype(device) if _enabled(device) else None


def loss_dtype(input: Tensor) -> torch.dtype | None:
    """The policy of ``F.cross_entropy``: float32; None when autocast is off."""
    return torch.float32 if _enabled(input.device.type) else None


def _enabled(device: str) -> bool:
    """Whether autocast is on for a device type."""
    return device not in WITHOUT_AUTOCAST and torch.is_autocast_enabled(device)


def cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """``tensor`` in ``dtype``, if there is one and autocast would touch the tensor."""
    if dtype is None or not tensor.is_floating_point() or tensor.dtype is torch.float64:
        return tensor
    return tensor.to(dtype)
