"""Which float32 products torch allows a GPU to compute with TF32 operands."""

from __future__ import annotations

import torch
from torch import Tensor

_fp32_precision = torch._C._get_fp32_precision_getter


def tf32(tensor: Tensor) -> bool:
    """Whether a matrix product of ``tensor`` may round its operands to TF32: torch's own switch.

    ``torch.set_float32_matmul_precision`` and ``torch.backends.cuda.matmul`` set it.
    """
    return tensor.dtype is torch.float32 and _fp32_precision("cuda", "matmul") == "tf32"
