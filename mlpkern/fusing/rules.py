"""The fused layer for each pair of layers, and the properties of a layer that rule it out."""

from __future__ import annotations

from torch import nn

from mlpkern.nn import CrossEntropyLoss, EmbeddingFlatten, EmbeddingGather, LinearTanh

FUSED = (CrossEntropyLoss, EmbeddingGather, LinearTanh)

#: The attribute of a layer made by ``fuse``: (the stock layer it replaces, the other layers of the
#: same swap). A tuple, so that nn.Module does not take them for children.
REPLACES = "_mlpkern_replaces"


def mark(layer: nn.Module, stock: nn.Module, *partners: nn.Module) -> None:
    """Note in ``layer`` that it replaces ``stock``, in one swap with ``partners``."""
    layer.__dict__[REPLACES] = (stock, *partners)


def is_marked(layer: nn.Module) -> bool:
    """Whether ``fuse`` made this layer."""
    return REPLACES in layer.__dict__


def replaced(layer: nn.Module) -> nn.Module:
    """The stock layer that ``layer``, made by ``fuse``, replaces."""
    stock: nn.Module = layer.__dict__[REPLACES][0]
    return stock


def partners(layer: nn.Module) -> tuple[nn.Module, ...]:
    """The other layers of the swap in which ``fuse`` made ``layer``."""
    others: tuple[nn.Module, ...] = layer.__dict__[REPLACES][1:]
    return others


def is_pair(first: nn.Module, second: nn.Module) -> bool:
    """Whether there is a fused layer for ``first`` followed by ``second``."""
    if isinstance(first, FUSED):
        return False
    return (isinstance(first, nn.Linear) and isinstance(second, nn.Tanh)) or (
        isinstance(first, nn.Embedding) and isinstance(second, nn.Flatten)
    )


def fused_class(second: nn.Module) -> type[nn.Module]:
    """The fused layer for a pair with this second layer."""
    if not isinstance(second, nn.Flatten):
        return LinearTanh
    return EmbeddingGather if second.start_dim == -2 else EmbeddingFlatten


def objection(first: nn.Module, second: nn.Module) -> str:
    """Why these two layers must not be fused wherever they stand, or ""."""
    reason = layer_objection(first, type(second).__name__)
    reason = reason or not_plain(second, nn.Tanh if isinstance(second, nn.Tanh) else nn.Flatten)
    if reason:
        return reason
    hooks = (second._forward_hooks, second._forward_pre_hooks)
    if any(hooks) or second._backward_hooks or second._backward_pre_hooks:
        return f"a hook is registered on the {type(second).__name__}"
    if isinstance(second, nn.Flatten) and (second.end_dim != -1 or second.start_dim not in (1, -2)):
        return f"Flatten({second.start_dim}, {second.end_dim}) joins other dimensions"
    return ""


def layer_objection(layer: nn.Module, after: str) -> str:
    """Why this Linear or Embedding must not be fused with what follows it, or ""."""
    reason = not_plain(layer, nn.Linear if isinstance(layer, nn.Linear) else nn.Embedding)
    reason = reason or not_real(layer)
    if reason:
        return reason
    if layer._forward_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return f"a hook sees what is between {type(layer).__name__} and {after}"
    if isinstance(layer, nn.Embedding) and (
        layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse
    ):
        return "max_norm, scale_grad_by_freq and sparse are not supported"
    return ""


def not_plain(module: nn.Module, cls: type[nn.Module]) -> str:
    """Why ``module`` may compute something else than a ``cls``, or ""."""
    if hasattr(module, "parametrizations"):
        return f"the {cls.__name__} is parametrized"
    if type(module) is not cls:
        return f"{type(module).__name__} is a subclass of {cls.__name__}"
    if "forward" in module.__dict__:
        return f"the forward of the {cls.__name__} was replaced on the object"
    return ""


def not_real(module: nn.Module) -> str:
    """Why weight or bias of ``module`` is not a Parameter of its own, or ""."""
    for name in ("weight", "bias"):
        if name not in module._parameters and hasattr(module, name):
            return (
                f"{name} is not a Parameter of the {type(module).__name__}: a hook (weight_norm, "
                "spectral_norm, prune) recomputes it, or it is a buffer"
            )
    return ""
