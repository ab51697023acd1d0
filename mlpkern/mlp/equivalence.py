"""Whether a module computes what an MLP with its parameters computes."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mlpkern.environment import named
from mlpkern.reference.mlp import logits
from mlpkern.tracing.twin import Twins

Layers = tuple[Tensor, list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]

_ROWS = 5
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
_KINDS = (bool, int, float, str, type(None))

#: What was checked and is an MLP: for a class of modules, its structures.
_checked: weakref.WeakKeyDictionary[type[nn.Module], set[Any]] = weakref.WeakKeyDictionary()


def check_function(model: nn.Module, layers: Layers, *, once: bool = False) -> None:
    """Raise ValueError unless ``model`` computes the logits of an MLP with ``layers``.

    A copy of the model with random parameters of the same shapes runs on random ids, in training
    and in evaluation mode; the actual parameters might hide a difference (zeros, saturated units).
    The model and torch's generators stay as they are. With ``once``, another model of the same
    class, shapes and settings is not run.
    """
    tensors = [layers[0], *(t for pair in (*layers[1], layers[2]) for t in pair)]
    if tensors[0].is_meta:
        return
    structure = _structure(model) if once else None
    known = _checked.setdefault(type(model), set())
    if structure is not None and structure in known:
        return
    generator = torch.Generator().manual_seed(0)
    drawn = {id(tensor): _random(tensor, generator) for tensor in tensors}
    vocabulary, width = layers[0].shape
    context = layers[1][0][0].shape[1] // width
    ids = torch.randint(vocabulary, (_ROWS, context), generator=generator, device="cpu")
    ids = ids.to(tensors[0].device)
    with _undisturbed(tensors[0].device):
        expected = logits([drawn[id(tensor)] for tensor in tensors], ids)
        for training in (False, True):
            _compare(type(model).__name__, _run(model, training, drawn, ids), expected)
    if structure is not None:
        known.add(structure)


def _run(model: nn.Module, training: bool, drawn: dict[int, Tensor], ids: Tensor) -> Any:
    copy = Twins(model, training).root
    for module in copy.modules():
        held = module.__dict__["_parameters"]
        held.update({key: drawn.get(id(value), value) for key, value in held.items()})
    try:
        output = copy(ids)
    except Exception as error:
        raise ValueError(
            f"from_module: the forward of {type(model).__name__} must take ids "
            f"{tuple(ids.shape)}, which its layers ask for, but raised {type(error).__name__}: "
            f"{error}"
        ) from error
    return output[0] if isinstance(output, (tuple, list)) and output else output


def _compare(name: str, got: Any, expected: Tensor) -> None:
    shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
    if shape != tuple(expected.shape):
        raise ValueError(
            f"from_module: the forward of {name} must give logits {tuple(expected.shape)} for "
            f"{_ROWS} rows of ids, got {shape}"
        )
    tf32 = 100 if expected.is_cuda else 1  # its matrix products may be less exact
    slack = _TOLERANCE[expected.dtype] * tf32
    difference = (got.to(expected.dtype) - expected).abs().max().item()
    if not difference <= slack * expected.abs().max().item():
        raise ValueError(
            f"from_module: the forward of {name} must compute tanh layers between an embedding and "
            f"a linear output, but its logits differ by {difference:.2g} from those of the "
            "parameters found"
        )


def _random(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Random values as large as a layer's, from few numbers: a row is the one before, shifted."""
    columns = tensor.shape[-1]
    rows = tensor.numel() // columns
    numbers = torch.randn(rows + columns - 1, dtype=tensor.dtype, device="cpu", generator=generator)
    numbers /= math.sqrt(columns)
    values = numbers.unfold(0, columns, 1).reshape(tensor.shape).contiguous()
    return nn.Parameter(values.to(tensor.device), requires_grad=False)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """No autograd, no autocast, the reference backend, and the generators unchanged."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        token = named.set("reference")
        try:
            yield
        finally:
            named.reset(token)


def _structure(model: nn.Module) -> Any:
    """All that decides what ``model`` computes, as a value to compare; None if that is unclear."""
    parts: list[Any] = [type(model).forward]
    for name, module in model.named_modules():
        parts += [name, type(module)]
        for key, value in module.__dict__.items():
            if key in _OF_EVERY_MODULE:
                continue
            if not isinstance(value, _KINDS):
                return None
            parts += [key, value]
        parts += [(key, p.shape) for key, p in module._parameters.items() if p is not None]
        if module._buffers:
            return None
    return tuple(parts)


_OF_EVERY_MODULE = vars(nn.Module()).keys() - {"training"}
