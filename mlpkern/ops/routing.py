"""Which way a call takes: straight to a backend, through torch.library, or plain torch.

- *direct*: eager calls on ordinary tensors. A torch.autograd.Function calls the backend.
- *library*: tracing (torch.compile, export, make_fx, torch.jit.trace), FakeTensors, meta tensors
  and other tensor subclasses. They need an op with a schema and a fake, which is
  ``torch.ops.mlpkern.<op>``.
- *composed*: the transforms of torch.func (grad, vmap, jvp, ...) and forward-mode derivatives. The
  op runs as the plain torch function of ``mlpkern.reference``, so that every transform composes.

An argument that only stands for a tensor, such as a ``torch.fx.Proxy``, gets the call itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch._C import _are_functorch_transforms_active as transforms_active
from torch._C import _is_tracing as jit_tracing
from torch._C import _len_torch_dispatch_stack as dispatch_modes

from mlpkern.checks import PLAIN

DIRECT, LIBRARY, COMPOSED = "direct", "library", "composed"


def ordinary() -> bool:
    """Whether nothing in the calling thread changes what an op on plain tensors means (0.2 us)."""
    return not (
        transforms_active() or dispatch_modes() or jit_tracing() or forward_ad._current_level >= 0
    )


def stands_for_tensor(*arguments: Any) -> bool:
    """Whether an argument is no tensor but implements ``__torch_function__``, as torch.fx.Proxy.

    The op then hands it the call, as torch's functions do.
    """
    return not torch.compiler.is_compiling() and any(
        not isinstance(one, torch.Tensor) and hasattr(type(one), "__torch_function__")
        for one in arguments
    )


def route(*tensors: torch.Tensor | None) -> str:
    """The way of a call that is not ``ordinary``, or whose tensors are not."""
    if torch.compiler.is_compiling() or jit_tracing():
        return LIBRARY
    if transforms_active() or forward_ad._current_level >= 0:
        return COMPOSED
    present = [tensor for tensor in tensors if tensor is not None]
    if dispatch_modes() or any(type(t) not in PLAIN or t.is_meta for t in present):
        return LIBRARY
    return DIRECT


def needs_weight_gradient(weight: torch.Tensor | None) -> bool:
    """Whether class weights ask for their gradient, which only plain torch gives."""
    return weight is not None and weight.requires_grad and torch.is_grad_enabled()


def why_composed(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Why this call runs as plain torch whatever the backend, or an empty string."""
    if transforms_active():
        return "a transform of torch.func is active, and plain torch composes with all of them"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is active"
    weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
    if op == "cross_entropy" and needs_weight_gradient(weight):
        return "the class weights require a gradient"
    return ""


def why_library(tensors: Sequence[torch.Tensor]) -> str:
    """Why this call goes through torch.library, or an empty string."""
    if dispatch_modes():
        return "through torch.library, because a TorchDispatchMode is active"
    special = [type(t).__name__ for t in tensors if type(t) not in PLAIN]
    if special:
        return f"through torch.library, because one argument is a {special[0]}"
    if any(t.is_meta for t in tensors):
        return "through torch.library, which gives meta tensors their shape"
    return ""
