"""``fuse``: swap the layers of an existing model for the fused ones, in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from mlpkern.fuse_rules import FUSED, fused_class, is_pair, not_plain, objection
from mlpkern.fuse_trace import CONTAINERS, Trace, called_elsewhere
from mlpkern.nn import CrossEntropyLoss


@dataclass(frozen=True)
class Swap:
    """One swap: the qualified names of the layers, their classes, and what does their work now."""

    names: tuple[str, ...]
    was: tuple[str, ...]
    now: str

    def __str__(self) -> str:
        return f"{' + '.join(self.names)}: {' + '.join(self.was)} -> {self.now}"


@dataclass(frozen=True)
class Refusal:
    """Layers left as they are, because swapping them could change a result, and why."""

    names: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{' + '.join(self.names)}: left as is, {self.reason}"


class Fused(list[Swap]):
    """What ``fuse`` swapped; ``refused`` has the layers it left alone, each with its reason."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[Refusal] = []

    def __str__(self) -> str:
        return "\n".join(map(str, [*self, *self.refused]))


def fuse(model: nn.Module) -> Fused:
    """The list of swaps made in ``model``, in place; its ``refused`` says what was left and why.

    - ``nn.Linear`` followed by ``nn.Tanh`` becomes ``mlpkern.nn.LinearTanh`` and ``nn.Identity``;
    - ``nn.Embedding`` followed by ``nn.Flatten(-2)`` or ``nn.Flatten()`` becomes
      ``mlpkern.nn.EmbeddingGather`` and ``nn.Identity``;
    - ``nn.CrossEntropyLoss`` becomes ``mlpkern.nn.CrossEntropyLoss``.

    "Followed by" means: next to each other in an ``nn.Sequential``, or called so by the forward of
    the module that has them as attributes, which a symbolic trace must confirm. The new layers
    hold the very same Parameters, buffers and hooks, so optimizers, handles and the keys of
    the state_dict stay valid; results, dtype, device and training mode do too. Left alone is
    whatever could change a result: subclasses, parametrizations, layers whose output before the
    tanh is seen by a hook, by another layer or by another method, a forward that cannot be traced.

    >>> print(fuse(nn.Sequential(nn.Linear(30, 200), nn.Tanh())))
    0 + 1: Linear + Tanh -> LinearTanh
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fuse: model must be an nn.Module, got {type(model).__name__}")
    result = Fused()
    owners = dict(model.named_modules())
    traces = {name: Trace(owner) for name, owner in owners.items() if _worth_tracing(owner)}
    reached_into = _reached_into(owners, traces)
    for name, owner in owners.items():
        if _is_sequential(owner):
            _fuse_sequential(name, owner, reached_into, result)
        elif name in traces:
            _fuse_attributes(name, owner, traces[name], reached_into, result)
        _fuse_losses(name, owner, result)
    if type(model) is nn.CrossEntropyLoss:
        reason = "the model itself cannot be replaced in place; use mlpkern.nn.CrossEntropyLoss"
        result.refused.append(Refusal(("model",), reason))
    return result


@dataclass(frozen=True)
class _Place:
    """Where a layer hangs: ``parent._modules[key]``, called ``name`` in the model."""

    name: str
    parent: nn.Module
    key: str
    module: nn.Module


def _fuse_sequential(
    name: str, owner: nn.Module, reached_into: dict[nn.Module, str], result: Fused
) -> None:
    places = list(_places(name, owner))
    for first, second in pairwise(places):
        if not is_pair(first.module, second.module):
            continue
        reason = objection(first.module, second.module)
        taken = reached_into.get(first.module) or reached_into.get(second.module)
        if not reason and taken:
            reason = f"the forward of {taken} calls them one by one"
        if reason:
            result.refused.append(Refusal((first.name, second.name), reason))
        else:
            _swap([first], second, result)


def _fuse_attributes(
    name: str,
    owner: nn.Module,
    trace: Trace,
    reached_into: dict[nn.Module, str],
    result: Fused,
) -> None:
    places = list(_places(name, owner))
    if trace.failure:
        for first, second in pairwise(places):
            if is_pair(first.module, second.module):
                result.refused.append(Refusal((first.name, second.name), trace.failure))
        return
    for second in places:
        sources = trace.sources(second.module)
        before = [
            place
            for place in places
            if is_pair(place.module, second.module)
            and any(place.module is source for source in sources)
        ]
        if not before:
            continue
        reason = _attribute_objection(name, owner, trace, before, second, reached_into)
        if not reason:
            _swap(before, second, result)
            if Trace(owner).failure:  # the forward holds the old layers in a list of its own
                _restore([*before, second], result)
                reason = "the forward keeps them outside the attributes"
        if reason:
            result.refused.append(Refusal(tuple(p.name for p in (*before, second)), reason))


def _attribute_objection(
    name: str,
    owner: nn.Module,
    trace: Trace,
    before: list[_Place],
    second: _Place,
    reached_into: dict[nn.Module, str],
) -> str:
    """Why ``second`` and the layers whose output it gets must stay apart, or an empty string."""
    sources = trace.sources(second.module)
    if any(all(source is not place.module for place in before) for source in sources):
        return f"{second.key} is also applied to something else"
    for first in before:
        reason = objection(first.module, second.module)
        if reason:
            return reason
        if not trace.only_user(first.module, second.module):
            return f"the output of {first.key} is also used without {second.key}"
    for place in (*before, second):
        attribute = place.name[len(name) + 1 if name else 0 :].partition(".")[0]
        other = called_elsewhere(owner, attribute) or reached_into.get(place.module, "")
        if other:
            return f"{place.key} is also used by {other}"
    return ""


def _fuse_losses(name: str, owner: nn.Module, result: Fused) -> None:
    for place in _places(name, owner, containers=False):
        if not isinstance(place.module, nn.CrossEntropyLoss) or isinstance(place.module, FUSED):
            continue
        reason = not_plain(place.module, nn.CrossEntropyLoss)
        if reason:
            result.refused.append(Refusal((place.name,), reason))
        else:
            place.parent._modules[place.key] = _recast(place.module, CrossEntropyLoss)
            result.append(Swap((place.name,), ("CrossEntropyLoss",), "CrossEntropyLoss (fused)"))


def _swap(before: list[_Place], second: _Place, result: Fused) -> None:
    new = fused_class(second.module)
    for first in before:
        first.parent._modules[first.key] = _recast(first.module, new)
        was = (type(first.module).__name__, type(second.module).__name__)
        result.append(Swap((first.name, second.name), was, new.__name__))
    second.parent._modules[second.key] = nn.Identity().train(second.module.training)


def _restore(places: list[_Place], result: Fused) -> None:
    for place in places:
        place.parent._modules[place.key] = place.module
    del result[-(len(places) - 1) :]


def _recast(module: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """A ``cls`` with the state of ``module``, shared: the handles of its hooks stay valid."""
    new = cls.__new__(cls)
    new.__dict__.update(module.__dict__)
    return new


def _places(name: str, owner: nn.Module, containers: bool = True) -> Iterator[_Place]:
    """The layers ``owner`` calls itself: its children, and those in its lists and dictionaries."""
    prefix = f"{name}." if name else ""
    for key, child in owner._modules.items():
        if child is None:
            continue
        if containers and type(child) in CONTAINERS:
            yield from _places(prefix + key, child)
        else:
            yield _Place(prefix + key, owner, key, child)


def _is_sequential(owner: nn.Module) -> bool:
    return type(owner).forward is nn.Sequential.forward and "forward" not in owner.__dict__


def _worth_tracing(owner: nn.Module) -> bool:
    if _is_sequential(owner) or type(owner) in CONTAINERS or not owner._modules:
        return False
    return any(isinstance(module, (nn.Tanh, nn.Flatten)) for module in owner.modules())


def _reached_into(owners: dict[str, nn.Module], traces: dict[str, Trace]) -> dict[nn.Module, str]:
    """Layers called by a forward that is not their own owner's, and whose forward that is."""
    found: dict[nn.Module, str] = {}
    for name, trace in traces.items():
        own = {place.module for place in _places(name, owners[name])}
        who = name or type(owners[name]).__name__
        found.update((module, who) for module in trace.called() if module not in own)
    return found
