"""Which layers ``fuse`` swaps for which, and what speaks against it in the layers themselves."""

from __future__ import annotations

from torch import nn

from mlpkern.nn import CrossEntropyLoss, EmbeddingFlatten, EmbeddingGather, LinearTanh

FUSED = (CrossEntropyLoss, EmbeddingGather, LinearTanh)


def is_pair(first: nn.Module, second: nn.Module) -> bool:
    """Whether these are layers that, one after the other, have a fused form."""
    if isinstance(first, FUSED):
        return False
    return (isinstance(first, nn.Linear) and isinstance(second, nn.Tanh)) or (
        isinstance(first, nn.Embedding) and isinstance(second, nn.Flatten)
    )


def fused_class(second: nn.Module) -> type[nn.Module]:
    """The layer that does the work of a pair with this second layer."""
    if not isinstance(second, nn.Flatten):
        return LinearTanh
    return EmbeddingGather if second.start_dim == -2 else EmbeddingFlatten


def objection(first: nn.Module, second: nn.Module) -> str:
    """Why these two layers must stay apart wherever they stand, or an empty string."""
    reason = not_plain(first, nn.Linear if isinstance(first, nn.Linear) else nn.Embedding)
    reason = reason or not_plain(second, nn.Tanh if isinstance(second, nn.Tanh) else nn.Flatten)
    if reason:
        return reason
    if first._forward_hooks or first._backward_hooks or first._backward_pre_hooks:
        return f"a hook sees what is between {type(first).__name__} and {type(second).__name__}"
    hooks = (second._forward_hooks, second._forward_pre_hooks)
    if any(hooks) or second._backward_hooks or second._backward_pre_hooks:
        return f"a hook is registered on the {type(second).__name__}"
    if isinstance(first, nn.Embedding) and isinstance(second, nn.Flatten):
        if first.max_norm is not None or first.scale_grad_by_freq or first.sparse:
            return "max_norm, scale_grad_by_freq and sparse are not supported"
        if second.end_dim != -1 or second.start_dim not in (1, -2):
            return f"Flatten({second.start_dim}, {second.end_dim}) joins other dimensions"
    return ""


def not_plain(module: nn.Module, cls: type[nn.Module]) -> str:
    """Why ``module`` may do something else than ``cls``, or an empty string."""
    if hasattr(module, "parametrizations"):
        return f"the {cls.__name__} is parametrized"
    if type(module) is not cls:
        return f"{type(module).__name__} is a subclass of {cls.__name__}"
    if "forward" in module.__dict__:
        return f"the forward of the {cls.__name__} was replaced on the object"
    return ""
