"""``unfuse``: put the layers back that ``fuse`` swapped."""

from __future__ import annotations

from torch import nn

from mlpkern.fusing.result import Fused, Swap
from mlpkern.fusing.rewriting.classes import is_rewritten, stock
from mlpkern.fusing.rules import FUSED, REPLACES, is_marked, partners, replaced
from mlpkern.nn import CrossEntropyLoss


def unfuse(model: nn.Module) -> Fused:
    """The list of swaps made in ``model``, in place: the exact inverse of `mlpkern.fuse`.

    Every layer that ``fuse`` made becomes the stock layer again, under the same name, with the
    Parameters, buffers, hooks, attributes and training mode that it has by now; layers that were
    one object are one object again. Copies and unpickled models can be unfused too.

    A module whose own code was rewritten gets its class back.

    Layers made directly as ``mlpkern.nn.CrossEntropyLoss`` become ``nn.CrossEntropyLoss``.
    ``LinearTanh`` and ``EmbeddingGather`` made directly are left: each computes what two stock
    layers do, and a second layer would change the names in the state_dict. ``refused`` has these,
    the layers that were parametrized after ``fuse``, and a layer or its ``nn.Identity`` when the
    other one is gone from the model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"unfuse: model must be an nn.Module, got {type(model).__name__}")
    result = Fused()
    if isinstance(model, FUSED):
        result.refuse("the model itself cannot be replaced in place", "")
    layers = {name: module for name, module in model.named_modules() if name}
    present = set(layers.values())
    reasons = {layer: _objection(layer, present) for layer in present}
    for name, owner in model.named_modules():
        _give_back(name, owner, result)
    undone: dict[nn.Module, nn.Module] = {}
    for name, owner in list(model.named_modules()):
        for key, layer in list(owner._modules.items()):
            if layer is None or not (is_marked(layer) or isinstance(layer, FUSED)):
                continue
            full = f"{name}.{key}" if name else key
            others = partners(layer) if is_marked(layer) else ()
            reason = reasons[layer] or next(filter(None, map(reasons.get, others)), "")
            if reason:
                result.refuse(reason, full)
                continue
            new = undone[layer] = undone.get(layer) or _stock(layer)
            owner._modules[key] = new
            result.append(Swap((full,), (type(layer).__name__,), f"nn.{type(new).__name__}"))
    return result


def _give_back(name: str, owner: nn.Module, result: Fused) -> None:
    """Give ``owner`` its own class back, if its code was rewritten."""
    cls = type(owner)
    if is_rewritten(cls):
        object.__setattr__(owner, "__class__", stock(cls))
        result.append(Swap((name or "model",), (f"{cls.__name__} (fused)",), cls.__name__))
    elif any(map(is_rewritten, cls.__mro__)):
        result.refuse(
            "its class is made of the one by fuse: remove the parametrization first", name
        )


def _objection(layer: nn.Module, present: set[nn.Module]) -> str:
    """Why ``layer`` must stay in a model with the layers ``present``, or ""."""
    if not is_marked(layer):
        if not isinstance(layer, FUSED) or type(layer) is CrossEntropyLoss:
            return ""
        return f"it was made as {type(layer).__name__}, not by fuse, and does the work of two"
    if hasattr(layer, "parametrizations"):
        return "parametrized: remove the parametrization first"
    if any(other not in present for other in partners(layer)):
        return f"the {type(partners(layer)[0]).__name__} that fuse made with it is not in the model"
    return ""


def _stock(layer: nn.Module) -> nn.Module:
    """The stock layer for ``layer``, with the state that ``layer`` has by now."""
    stock = replaced(layer) if is_marked(layer) else nn.CrossEntropyLoss()
    state = dict(vars(layer))
    state.pop(REPLACES, None)
    stock.__dict__.update(state)
    return stock
