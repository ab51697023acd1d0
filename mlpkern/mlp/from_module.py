"""The layers of an nn.Module as an embedding, hidden tanh layers and an output layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from mlpkern.mlp.chain import Step, chains
from mlpkern.mlp.equivalence import Layers, check_function

_EXPECTED = "Embedding [Flatten], (Linear Tanh | LinearTanh)+, Linear"


def mlp_layers(model: nn.Module) -> Layers:
    """(embedding, [(weight, bias) of each hidden layer], (weight, bias) of the output layer).

    See `mlpkern.MLPParams.from_module` for what ``model`` may be.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"from_module: model must be a nn.Module, got {type(model).__name__}")
    model = _unwrapped(model)
    _require_no_hooks(model)
    named = getattr(model, "hidden_parameters", None)
    if callable(named):
        table = _weight(model.embedding)
        layers = (table, [_with_bias(*pair) for pair in named()], _pair(model.output))
    else:
        layers = _of_chains(chains(model))
    _require_parameters(model, layers)
    return layers


def check_module(model: nn.Module, layers: Layers) -> None:
    """Raise ValueError unless ``model`` computes what its ``layers`` do as an MLP."""
    model = _unwrapped(model)
    check_function(model, layers, once=hasattr(model, "hidden_parameters"))


def _unwrapped(model: nn.Module) -> Any:
    """The module inside the wrappers of torch.compile and of data parallelism."""
    inner: Any = model
    while True:
        if hasattr(inner, "_orig_mod"):  # torch.compile
            inner = inner._orig_mod
        elif isinstance(inner, (DataParallel, DistributedDataParallel)):
            inner = inner.module
        else:
            return inner


def _require_no_hooks(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError("from_module: model must be a module in Python, got a ScriptModule")
        hooks = (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        if any(hooks):
            raise ValueError(
                f"from_module: model must be without hooks, which train_steps does not run, but "
                f"{name or type(model).__name__} has one (also of weight_norm, spectral_norm, "
                "prune)"
            )
        if "forward" in module.__dict__:
            raise ValueError(
                f"from_module: the forward of {name or type(model).__name__} was replaced on the "
                "object"
            )


def _require_parameters(model: nn.Module, layers: Layers) -> None:
    """Raise unless every tensor is a Parameter of ``model`` itself and occurs once."""
    own = {id(parameter) for parameter in model.parameters()}
    seen: set[int] = set()
    for tensor in (layers[0], *(t for pair in (*layers[1], layers[2]) for t in pair)):
        sizes = tuple(tensor.shape)
        if id(tensor) not in own:
            raise ValueError(
                f"from_module: every weight and bias must be a Parameter of model, the tensor "
                f"{sizes} is none: a buffer, or computed by a parametrization or a hook"
            )
        if id(tensor) in seen:
            raise ValueError(
                f"from_module: every layer must have its own Parameters, {sizes} is in two layers"
            )
        seen.add(id(tensor))


def _of_chains(both: list[list[Step]]) -> Layers:
    """The parameters of the steps; ValueError unless both modes use the same ones as expected."""
    training, evaluation = (_in_order(steps) for steps in both)
    pairs = zip(_flat(training), _flat(evaluation), strict=False)
    if len(training[1]) != len(evaluation[1]) or any(one is not other for one, other in pairs):
        raise ValueError("from_module: the forward must use the same layers in both modes")
    return training


def _flat(layers: Layers) -> list[Tensor]:
    return [layers[0], *(t for pair in (*layers[1], layers[2]) for t in pair)]


def _in_order(steps: list[Step]) -> Layers:
    """The parameters of embedding, join, then linear and tanh at least once, then linear."""
    parts = [(kind, at) for at, step in enumerate(steps) for kind in step.kinds]
    done = 0

    def take(kind: str) -> Step | None:
        nonlocal done
        if done == len(parts) or parts[done][0] != kind:
            return None
        done += 1
        return steps[parts[done - 1][1]]

    table, hidden = None, []
    if first := take("embedding"):
        table = first.parameters[0] if first.module is None else _weight(first.module)
        take("join")
    while table is not None and (layer := take("linear")):
        pair = _with_bias(*layer.linear)
        if take("tanh"):
            hidden.append(pair)
        elif done == len(parts) and hidden:
            return table, hidden, pair
        else:
            done = min(done, len(parts) - 1)
            break
    raise _unexpected(steps, parts[done][1] if done < len(parts) else len(steps))


def _weight(embedding: Any) -> Tensor:
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
    weight: Tensor = embedding.weight
    return weight


_PLAIN_EMBEDDING = {
    "padding_idx": None,
    "max_norm": None,
    "scale_grad_by_freq": False,
    "sparse": False,
}


def _pair(linear: Any) -> tuple[Tensor, Tensor]:
    return _with_bias(linear.weight, linear.bias)


def _with_bias(weight: Tensor | None, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if weight is None or bias is None:
        sizes = None if weight is None else tuple(weight.shape)
        raise ValueError(f"from_module: every Linear must have a bias, that of {sizes} has none")
    return weight, bias


def _unexpected(steps: list[Step], at: int) -> ValueError:
    names = [step.name for step in steps]
    where = f"layer {at} is {names[at]}" if at < len(names) else "the last Linear is missing"
    return ValueError(
        f"from_module: model must have the layers {_EXPECTED}, got {', '.join(names) or 'none'}: "
        f"{where}"
    )
