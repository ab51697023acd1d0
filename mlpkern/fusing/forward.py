"""Fuses a layer with what the code of its module does next: ``torch.tanh(self.l1(x))``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from mlpkern.fusing.result import Fused, Swap
from mlpkern.fusing.rewriting.classes import (
    Method,
    is_rewritten,
    methods,
    obstacle,
    rewritten,
    stock,
    tells,
)
from mlpkern.fusing.rules import layer_objection
from mlpkern.fusing.survey import Survey

_OPS = {"linear": "linear_tanh", "rows": "embedding_gather", "loss": "mlpkern.cross_entropy"}
_KINDS = {"linear": nn.Linear, "rows": nn.Embedding}
_KNOWN = (torch.tanh, torch.tanh_, F.tanh, F.cross_entropy, torch.flatten, torch.reshape,
          torch.unbind, torch.cat, torch.concat, torch.concatenate)  # fmt: skip


def fuse_forward(name: str, owner: nn.Module, survey: Survey, result: Fused) -> None:
    """Make the methods of ``owner`` call the fused ops, and note the swaps in ``result``."""
    cls = stock(type(owner))
    # torch gives a parametrized module a class whose base must not change.
    if cls.__module__.partition(".")[0] in ("torch", "mlpkern") or "forward" in owner.__dict__:
        return
    if not tells(cls, set(map(type, owner.modules()))):
        return
    if cls not in survey.methods:
        survey.methods[cls] = methods(cls)
    found, problem = survey.methods[cls]
    swaps = list(dict.fromkeys(s for method in found for s in _swaps(name, owner, method, result)))
    if is_rewritten(type(owner)):
        survey.done |= {part for swap in swaps for part in swap.names}
        return
    stop = obstacle(cls)
    if stop or problem:
        survey.unread[name] = stop or problem
    if swaps and not stop:
        object.__setattr__(owner, "__class__", rewritten(cls, found))
        result.extend(swaps)


def _swaps(name: str, owner: nn.Module, method: Method, result: Fused) -> Iterator[Swap]:
    """What ``method`` runs as one op, given the layers that ``owner`` has."""
    for site in method.sites:
        functions = [_value(function, method.function) for function in site.functions]
        if not all(any(function is known for known in _KNOWN) for function in functions):
            continue
        if site.layer is None:
            yield Swap((name or "model",), (site.after,), _OPS[site.kind])
            continue
        for path, layer in _layers(site.layer, name, owner, method):
            if not isinstance(layer, _KINDS[site.kind]):
                continue
            reason = layer_objection(layer, site.after)
            if not reason:
                was = (type(layer).__name__, site.after)
                yield Swap((path, site.after), was, _OPS[site.kind])
            elif path not in result.answered():
                result.refuse(reason, path)


_Named = list[tuple[str, nn.Module]]


def _layers(node: ast.expr, name: str, owner: nn.Module, method: Method) -> _Named:
    """The modules that the expression ``node`` may mean in ``method`` of ``owner``, by name."""
    if isinstance(node, ast.Name):
        if node.id in method.loops:
            over = method.loops[node.id]
            held = _layers(over, name, owner, method)
            part = isinstance(getattr(over, "slice", None), ast.Slice)
            return held if part or isinstance(over, (ast.List, ast.Tuple)) else _items(held)
        return [(name, owner)] if node.id == method.code.co_varnames[0] else []
    if isinstance(node, ast.Attribute):
        return _items(_layers(node.value, name, owner, method), node.attr)
    if isinstance(node, ast.Subscript):
        return _items(_layers(node.value, name, owner, method), _index(node.slice))
    if isinstance(node, (ast.List, ast.Tuple)):
        return [pair for part in node.elts for pair in _layers(part, name, owner, method)]
    return []


def _items(held: _Named, index: Any = None) -> _Named:
    """The children of ``held``: all, those of a slice, or the one of this name or number."""
    found: _Named = []
    for path, module in held:
        children = [(key, child) for key, child in module._modules.items() if child is not None]
        if isinstance(index, slice):
            children = children[index]
        elif isinstance(index, int):
            children = children[index:][:1]
        elif index is not None:
            children = [pair for pair in children if pair[0] == index]
        found += [(f"{path}.{key}" if path else key, child) for key, child in children]
    return found


def _index(node: ast.expr) -> Any:
    """The index if it is a literal, else None."""
    try:
        if isinstance(node, ast.Slice):
            ends = (node.lower, node.upper, node.step)
            return slice(*(None if end is None else ast.literal_eval(end) for end in ends))
        return ast.literal_eval(node)
    except ValueError:
        return None


def _value(node: ast.expr, function: FunctionType) -> Any:
    """What the dotted name ``node`` means in ``function``; None for a local variable."""
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, function), node.attr, None)
    name = getattr(node, "id", "")
    if name in function.__code__.co_freevars:
        cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
        return getattr(cell, "cell_contents", None)
    return None if name in function.__code__.co_varnames else function.__globals__.get(name)
