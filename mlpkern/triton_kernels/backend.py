"""The backend ``triton``: the three ops as Triton kernels, or why they cannot run here.

Importing this module needs no Triton. The kernels are imported at the first call, which the
registry makes only where `status` allows it. float64 is computed by ``mlpkern.reference``: it is
there to check gradients, for which no kernel needs to be fast.

Without a GPU the kernels run in Triton's interpreter if TRITON_INTERPRET=1 was set before Triton
was imported; then the backend also takes CPU tensors, if the caller names it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlpkern import reference

#: The functions check nothing; the ops check the arguments before.
CHECKS_ARGUMENTS = False

OLDEST = (3, 6)  # of Triton
CAPABILITY = (8, 0)  # of the GPU: the oldest that Triton supports

__all__ = [
    "CHECKS_ARGUMENTS",
    "check_errors",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_gather_backward",
    "embedding_gather_forward",
    "linear_tanh_backward",
    "linear_tanh_forward",
    "status",
]


@functools.cache
def status() -> tuple[bool, str, str]:
    """(available, reason, detail), see ``mlpkern.registry.Backend``; imports Triton."""
    install = f"`pip install triton` (Linux), version {'.'.join(map(str, OLDEST))} or newer."
    if importlib.util.find_spec("triton") is None:
        return False, "triton is not installed", install
    try:
        triton = importlib.import_module("triton")
    except Exception as error:  # a broken installation may raise anything
        return False, f"triton does not import ({type(error).__name__}: {error})", install
    version = triton.__version__
    if _numbers(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return False, f"Triton {version} is older than {oldest}", install
    if _interpreting(triton):
        from mlpkern.triton_kernels.device import interpreter

        if fault := interpreter.fault():
            numpy = importlib.metadata.version("numpy")
            reason = f"the interpreter of Triton {version} fails with NumPy {numpy}: {fault}"
            return False, reason, "Before Triton 3.7 it needs `numpy<2.4`."
        return True, "", f"Triton {version} in its interpreter (TRITON_INTERPRET=1)"
    reason = _no_gpu()
    if reason:
        hint = "With TRITON_INTERPRET=1 in the environment the kernels run, slowly, on a CPU."
        return False, reason, hint
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        hint = "Install gcc or clang, or name a compiler in the environment variable CC."
        return False, "Triton needs a C compiler to launch kernels, and there is none", hint
    return True, "", f"Triton {version}, compiled on first use"


def devices_when_named() -> tuple[str, ...]:
    """The device types that the backend serves if the caller names it."""
    if status()[0] and _interpreting(importlib.import_module("triton")):
        return ("cuda", "cpu")
    return ("cuda",)


def why_reference(tensors: Sequence[Tensor]) -> str:
    """Why a call with these tensors runs on the reference instead, or ""."""
    if any(tensor.dtype is torch.float64 for tensor in tensors):
        return "the Triton kernels do not compute in float64"
    return ""


def check_errors() -> None:
    """Raise IndexError if a kernel met a bad id since the last call; waits for the GPU."""
    if status()[0]:
        _kernels().check_errors()


def cross_entropy_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``mlpkern.reference.cross_entropy``."""
    return _module(input).cross_entropy_forward(
        input, target, weight, ignore_index, reduction, label_smoothing
    )


def cross_entropy_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    total_weight: Tensor,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> Tensor:
    """See ``mlpkern.reference.cross_entropy``."""
    return _module(input).cross_entropy_backward(
        grad_output,
        input,
        target,
        weight,
        lse,
        total_weight,
        ignore_index,
        reduction,
        label_smoothing,
    )


def embedding_gather_forward(input: Tensor, weight: Tensor) -> Tensor:
    """See ``mlpkern.reference.embedding_gather``."""
    return _module(weight).embedding_gather_forward(input, weight)


def embedding_gather_backward(
    grad_output: Tensor, input: Tensor, num_embeddings: int, padding_idx: int
) -> Tensor:
    """See ``mlpkern.reference.embedding_gather``."""
    return _module(grad_output).embedding_gather_backward(
        grad_output, input, num_embeddings, padding_idx
    )


def linear_tanh_forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See ``mlpkern.reference.linear_tanh``; obeys torch's float32 matmul precision."""
    return _module(input).linear_tanh_forward(input, weight, bias)


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
    return _module(input).linear_tanh_backward(
        grad_output, input, weight, output, need_input, need_weight, need_bias
    )


def _module(tensor: Tensor) -> Any:
    """The module whose functions compute in the dtype of ``tensor``."""
    return reference if tensor.dtype is torch.float64 else _kernels()


@functools.cache
def _kernels() -> Any:
    from mlpkern.triton_kernels import kernels

    return kernels


def _interpreting(triton: Any) -> bool:
    """Whether Triton was imported with its interpreter in force."""
    return not isinstance(triton.language.sum, triton.JITFunction)


def _no_gpu() -> str:
    """Why there is no GPU for the kernels, or ""."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU"
    cards = range(torch.cuda.device_count())
    best = max(torch.cuda.get_device_capability(card) for card in cards)
    if best < CAPABILITY:
        return f"the NVIDIA GPU is sm_{best[0]}{best[1]}, Triton serves sm_80 and newer"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (3, 6, 0) of "3.6.0+git1234"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
