"""The backend ``cuda``: the compiled kernels of ``mlpkern/_cuda.so``, or why there are none.

The functions are those of ``mlpkern._C``, which runs a call on the device of its tensors. This file
adds what depends on the call: torch's float32 precision of matrix products, and the choice of
cuBLAS with an epilogue kernel for wide layers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mlpkern import build_record
from mlpkern.cpu import native_failure
from mlpkern.cuda.precision import tf32

#: The compiled functions raise TypeError or ValueError for whatever they cannot compute.
CHECKS_ARGUMENTS = True

#: Widths up to which the fused kernel of linear_tanh runs. Saving one pass over the output is worth
#: 370 / K of the time of the product, so far beyond this a tuned product counts for more.
FUSED_WIDTH = 1024
#: The same for half types on a card where cuBLAS uses tensor-core instructions (wgmma, tcgen05)
#: twice as fast as those of the kernel. Derived from their peak rates, not measured.
FUSED_WIDTH_HALF = 512

LIBRARY = Path(__file__).parents[1] / "_cuda.so"

_failure = native_failure()
if not _failure:
    from mlpkern import _C
    from mlpkern._C import (
        cross_entropy_backward,
        cross_entropy_forward,
        embedding_gather_backward,
        embedding_gather_forward,
    )
    from mlpkern.cuda.models import evaluate, train_steps, which_way

__all__ = [
    "CHECKS_ARGUMENTS",
    "check_errors",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_gather_backward",
    "embedding_gather_forward",
    "evaluate",
    "linear_tanh_backward",
    "linear_tanh_forward",
    "status",
    "train_steps",
    "which_kernel",
    "which_way",
]


@functools.cache
def status() -> tuple[bool, str, str]:
    """(available, reason, detail), see ``mlpkern.registry.Backend``; loads the library."""
    if _failure:
        return False, _failure, "Install a C++17 compiler and run `pip install -e .` again."
    if not LIBRARY.exists():
        reason = build_record.read().get("cuda", {}).get("reason", "")
        return (
            False,
            "mlpkern/_cuda.so was not built" + (f": {reason}" if reason else ""),
            "Install the CUDA toolkit (nvcc) and run `pip install -e .` again.",
        )
    available, reason, detail = _C.load_cuda_library(str(LIBRARY))
    if available and torch.version.cuda is None:
        return False, f"torch {torch.__version__} is built without CUDA", detail
    return available, reason, f"compiled CUDA C++, {detail}" if available else detail


def linear_tanh_forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See ``mlpkern.reference.linear_tanh``; obeys torch's float32 matmul precision."""
    if not _library_product(weight):
        return _C.linear_tanh_forward(input, weight, bias, tf32(input))
    _require_like(weight, input, "weight")
    rows = input.reshape(-1, input.shape[-1])
    output = torch.mm(rows, weight.t())
    _C.linear_tanh_epilogue(output, bias)
    return output.view(*input.shape[:-1], weight.shape[0])


def linear_tanh_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    output: Tensor,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See ``mlpkern.reference.linear_tanh``; obeys torch's float32 matmul precision."""
    if not _library_product(weight):
        return _C.linear_tanh_backward(
            grad_output,
            input,
            weight,
            output,
            need_input,
            need_weight,
            need_bias,
            tf32(input),
        )
    width = weight.shape[0]
    dz, grad_bias = _C.linear_tanh_slope(
        grad_output.reshape(-1, width), output.reshape(-1, width), need_bias
    )
    grad_input = torch.mm(dz, weight).view_as(input) if need_input else None
    grad_weight = torch.mm(dz.t(), input.reshape(-1, input.shape[-1])) if need_weight else None
    return grad_input, grad_weight, grad_bias


def check_errors() -> None:
    """Raise IndexError if a kernel met a bad id since the last call; waits for the GPU."""
    if status()[0]:
        _C.check_cuda_errors()


def which_kernel(op: str, tensors: Sequence[Tensor]) -> str:
    """What ``explain`` adds for a call with these tensors, or ""."""
    if op != "linear_tanh" or len(tensors) < 2:
        return ""
    if _library_product(tensors[1]):
        return "a layer so wide takes the product of cuBLAS, then one pass for bias and tanh"
    return "the product with bias and tanh in one kernel"


def _library_product(weight: Tensor) -> bool:
    if weight.dim() != 2:
        return False
    widest = max(weight.shape)
    if widest <= FUSED_WIDTH_HALF or weight.element_size() > 2:
        return widest > FUSED_WIDTH
    return widest > FUSED_WIDTH or _has_faster_halves(weight.device.index)


@functools.cache
def _has_faster_halves(device_index: int) -> bool:
    """Whether a card has wgmma (9.x) or tcgen05 (10.x, 11.x); 12.x has neither."""
    return 9 <= torch.cuda.get_device_capability(device_index)[0] <= 11


def _require_like(tensor: Tensor, input: Tensor, name: str) -> None:
    """The checks that the fused kernel makes itself; the op turns the error into a full message."""
    if tensor.device != input.device or input.dim() == 0 or tensor.shape[1] != input.shape[-1]:
        raise ValueError(f"linear_tanh: {name} does not match input")
    if tensor.dtype != input.dtype:
        raise TypeError(f"linear_tanh: {name} must have the dtype of input")
