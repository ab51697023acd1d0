"""Layers that ``fuse`` leaves although they look fusible: the reason, and what to write instead.

Nothing here decides a swap; it names layers that were neither swapped nor refused.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import pairwise
from types import CodeType
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.nn import functional as F

from mlpkern.fusing.bytecode import functions
from mlpkern.fusing.result import Fused
from mlpkern.fusing.rewriting.classes import TELLING
from mlpkern.fusing.rules import FUSED
from mlpkern.fusing.survey import CONTAINERS, Place, Survey, is_sequential, places
from mlpkern.tracing.trace import Trace

_TANH = (torch.tanh, F.tanh, "tanh", "tanh_")
_JOINS = (torch.flatten, torch.reshape, torch.cat, torch.concat, torch.concatenate, torch.hstack)
_JOINS_OR_METHODS = (*_JOINS, "view", "flatten", "reshape")
_TELLING = {"hstack"}.union(*TELLING.values())
_ACTIVATIONS = tuple(getattr(nn, name) for name in ("ReLU", "GELU", "Sigmoid", "SiLU", "Hardtanh"))
_DROPOUTS = (nn.Dropout, nn.AlphaDropout)


def say_what_else(survey: Survey, result: Fused) -> None:
    """Add the near misses to ``result``, and a reason if it is empty."""
    for name, owner in survey.owners.items():
        if is_sequential(owner):
            _in_sequential(name, owner, result)
        elif type(owner) not in CONTAINERS and owner._modules and not _of_torch(owner):
            _in_forward(name, owner, survey, result)
    if result or result.refused:
        return
    for name, owner in survey.owners.items():
        if name in survey.done:
            continue
        if type(owner) is nn.Linear:
            result.refuse("no nn.Tanh follows it", name)
        elif type(owner) is nn.Embedding:
            result.refuse("no nn.Flatten follows it", name)
    if not result.refused:
        done = survey.done or any(isinstance(owner, FUSED) for owner in survey.owners.values())
        what = "nothing of Linear + Tanh, Embedding + Flatten and CrossEntropyLoss"
        result.refuse(f"it has {what}{' that is not fused already' if done else ''}", "")


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _in_sequential(name: str, owner: nn.Module, result: Fused) -> None:
    answered = result.answered()
    children = list(places(name, owner, lists=False))
    for i, (first, second) in enumerate(pairwise(children)):
        if first.name in answered or not _candidate(first.module):
            continue
        later = next((p.key for p in children[i + 2 :] if isinstance(p.module, nn.Tanh)), "")
        between = children[i + 2].key == later if i + 2 < len(children) else False
        reason = _followed_by(first, second.module, later if between else "")
        if reason:
            result.refuse(reason, first.name)


def _in_forward(name: str, owner: nn.Module, survey: Survey, result: Fused) -> None:
    answered = result.answered() | survey.done
    loss = (name or "model") not in answered
    why = f" ({survey.unread[name]})" if name in survey.unread else ""
    own = [place for place in places(name, owner) if place.name not in answered]
    layers = [place for place in own if _candidate(place.module)]
    named = _names(owner)
    near = any(isinstance(place.module, (*_ACTIVATIONS, *_DROPOUTS)) for place in own)
    near = near or any("Norm" in type(place.module).__name__ for place in own)
    if not named & _TELLING and not (layers and near):
        return
    trace = survey.trace(owner)
    if trace.failure:
        if layers and own == list(places(name, owner)):
            result.refuse(trace.failure, *(place.name for place in layers))
        if "cross_entropy" in named and loss:
            result.refuse(_LOSS + why, name)
        return
    for place in layers:
        calls = trace.calls(place.module)
        reasons = [_used_by(place, trace, node, user) for node in calls for user in node.users]
        if any(reasons):
            result.refuse(next(filter(None, reasons)) + why, place.name)
    targets = [node.target for node in trace.nodes()]
    if F.cross_entropy in targets and loss:
        result.refuse(_LOSS + why, name)
    if any(_is(node, _TANH) and _is(node.args[0], (F.linear,)) for node in trace.nodes()):
        result.refuse("torch.tanh of F.linear: write mlpkern.linear_tanh(x, weight, bias)", name)


_LOSS = "F.cross_entropy in a forward is no layer: write mlpkern.cross_entropy, it takes the same"


def _candidate(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, nn.Embedding)


def _used_by(place: Place, trace: Trace, node: torch.fx.Node, user: torch.fx.Node) -> str:
    """Why the layer is not fused with ``user``, which takes its output ``node``; "" for no pair."""
    module = trace.module(user)
    linear = isinstance(place.module, nn.Linear)
    if module is not None:
        after = [trace.module(node) for node in user.users]
        tanh = any(isinstance(other, nn.Tanh) for other in after)
        tanh = tanh or any(_is(node, _TANH) for node in user.users)
        return _followed_by(place, module, "a tanh" if tanh else "")
    path = "self." + place.key if place.key.isidentifier() else "the layer"
    if linear and _is(user, _TANH):
        if len(node.users) > 1:
            return "a functional tanh follows it, but its output is also used without the tanh"
        return (
            f"a functional tanh follows it: write mlpkern.linear_tanh(x, {path}.weight, "
            f"{path}.bias), or give it an nn.Tanh as an attribute of its own"
        )
    if not linear and (_is(user, _JOINS_OR_METHODS) or _joined(user)):
        return (
            f"its output is joined by {'cat' if _joined(user) else _called(user)}: write "
            f"mlpkern.embedding_gather(ids, {path}.weight) for (…, T) ids"
        )
    return ""


def _followed_by(place: Place, module: nn.Module, tanh: str) -> str:
    kind = type(module).__name__
    if isinstance(place.module, nn.Embedding):
        if isinstance(module, (nn.Linear, nn.Identity)) or _candidate(module):
            return ""
        return f"followed by {kind}: only nn.Flatten(-2) or nn.Flatten() after it is fused"
    if isinstance(module, _DROPOUTS) and tanh:
        return f"{kind} stands between it and {tanh}: put it after the tanh, if that is meant"
    if tanh:
        return f"{kind} stands between it and {tanh}: only a tanh right after it is fused"
    if isinstance(module, _ACTIVATIONS) or "Norm" in kind or isinstance(module, _DROPOUTS):
        return f"followed by {kind}: only nn.Tanh right after it is fused"
    return ""


def _joined(node: torch.fx.Node) -> bool:
    """Whether pieces of ``node`` (of ``unbind``, or by index) are joined again by ``cat``."""
    pieces = node.target in (operator.getitem, torch.unbind, "unbind")
    return pieces and any(_is(user, _JOINS) or _joined(user) for user in node.users)


def _is(node: Any, targets: tuple[Any, ...]) -> bool:
    return (
        isinstance(node, torch.fx.Node)
        and node.op in ("call_function", "call_method")
        and node.target in targets
    )


def _called(node: torch.fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _names(owner: nn.Module) -> set[str]:
    return {name for function in functions(owner) for name in _names_in(function.code)}


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names_in(const)
