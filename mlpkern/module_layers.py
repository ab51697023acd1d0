"""The layers of an nn.Module as an embedding, hidden tanh layers and an output layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mlpkern.nn import EmbeddingFlatten, EmbeddingGather, LinearTanh

_EXPECTED = "Embedding [Flatten], (Linear Tanh | LinearTanh)+, Linear"

Layers = tuple[Tensor, list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]


def mlp_layers(model: nn.Module) -> Layers:
    """(embedding, [(weight, bias) of each hidden layer], (weight, bias) of the output layer).

    See `mlpkern.MLPParams.from_module` for what ``model`` may be.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"from_module: model must be a nn.Module, got {type(model).__name__}")
    named = getattr(model, "hidden_parameters", None)
    if callable(named):
        table: Any = model.embedding
        hidden = [_with_bias(weight, bias) for weight, bias in named()]
        return _table(table), hidden, _pair(model.output)
    leaves = (module for module in model.modules() if not any(module.children()))
    # mlpkern.fuse leaves an Identity where a layer became part of another
    layers = [module for module in leaves if type(module) is not nn.Identity]
    return _in_order(layers)


def _in_order(layers: list[nn.Module]) -> Layers:
    """The parameters of ``layers`` if they are the expected ones, otherwise ValueError."""
    rest = list(layers)
    if not rest or not isinstance(rest[0], nn.Embedding):
        raise _unexpected(layers, 0)
    table = rest.pop(0)
    gathers = isinstance(table, (EmbeddingGather, EmbeddingFlatten))
    if rest and isinstance(rest[0], nn.Flatten) and not gathers:
        rest.pop(0)
    hidden = []
    while len(rest) > 1:
        linear = rest.pop(0)
        if type(linear) is not LinearTanh:
            if type(linear) is not nn.Linear or not isinstance(rest[0], nn.Tanh):
                at = len(layers) - len(rest) - (type(linear) is not nn.Linear)
                raise _unexpected(layers, at)
            rest.pop(0)
        hidden.append(_pair(linear))
    if len(rest) != 1 or type(rest[0]) is not nn.Linear or not hidden:
        raise _unexpected(layers, len(layers) - len(rest))
    return _table(table), hidden, _pair(rest[0])


def _table(embedding: Any) -> Tensor:
    changed = [
        f"{name}={getattr(embedding, name)}"
        for name, plain in _PLAIN_EMBEDDING.items()
        if getattr(embedding, name) is not plain
    ]
    if changed:
        raise ValueError(
            f"from_module: Embedding must be without {', '.join(changed)}, which changes its "
            "values or its gradient"
        )
    return embedding.weight


_PLAIN_EMBEDDING = {
    "padding_idx": None,
    "max_norm": None,
    "scale_grad_by_freq": False,
    "sparse": False,
}


def _pair(linear: Any) -> tuple[Tensor, Tensor]:
    return _with_bias(linear.weight, linear.bias)


def _with_bias(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if bias is None:
        sizes = tuple(weight.shape)
        raise ValueError(f"from_module: every Linear must have a bias, that of {sizes} has none")
    return weight, bias


def _unexpected(layers: list[nn.Module], at: int) -> ValueError:
    names = [type(layer).__name__ for layer in layers]
    where = f"layer {at} is {names[at]}" if at < len(names) else "the last Linear is missing"
    return ValueError(
        f"from_module: model must have the layers {_EXPECTED}, got {', '.join(names) or 'none'}: "
        f"{where}"
    )
