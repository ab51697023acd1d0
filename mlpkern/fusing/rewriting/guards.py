"""Whether a call is the plain case that the fused ops compute; checked at each call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.nn.modules.module import _has_any_global_hook

from mlpkern.checks import FLOATS, PLAIN
from mlpkern.ops.routing import ordinary

# torch's own: if a library replaces them, to count or trace calls, its functions must be called.
_FORWARDS = {kind: kind.forward for kind in (nn.Linear, nn.Embedding)}


def usual(input: Any) -> bool:
    """Whether ``input`` is a dense tensor in an eager call without transforms."""
    return (
        not is_compiling()
        and type(input) in PLAIN
        and input.layout is torch.strided
        and not input.is_nested
        and not input.is_meta
        and ordinary()
    )


def plain(layer: Any, input: Any) -> bool:
    """Whether calling ``layer`` runs only the forward of its class, on Parameters of its own."""
    if not usual(input):
        return False
    own = layer.__dict__
    held = own["_parameters"]
    weight = held.get("weight")
    bias = held.get("bias", ...) if type(layer) is nn.Linear else None
    return not (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or _has_any_global_hook()
        or "forward" in own
        or type(layer).forward is not _FORWARDS[type(layer)]
        or layer._compiled_call_impl is not None
        or type(weight) not in PLAIN
        or weight.dtype not in FLOATS
        or (bias is not None and type(bias) not in PLAIN)
    )
