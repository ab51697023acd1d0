"""``fuse``: swap the layers of an existing model for the fused ones, in place."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from mlpkern.fusing.forward import fuse_forward
from mlpkern.fusing.near_misses import say_what_else
from mlpkern.fusing.result import Fused, Swap
from mlpkern.fusing.rules import FUSED, fused_class, is_pair, mark, not_plain, objection, replaced
from mlpkern.fusing.survey import CONTAINERS, Place, Survey, is_sequential, places
from mlpkern.nn import CrossEntropyLoss


def fuse(model: nn.Module) -> Fused:
    """The list of swaps made in ``model``, in place; its ``refused`` says what was left and why.

    - ``nn.Linear`` followed by ``nn.Tanh`` becomes ``mlpkern.nn.LinearTanh`` and ``nn.Identity``;
    - ``nn.Embedding`` followed by ``nn.Flatten(-2)`` or ``nn.Flatten()`` becomes
      ``mlpkern.nn.EmbeddingGather`` and ``nn.Identity``;
    - ``nn.CrossEntropyLoss`` becomes ``mlpkern.nn.CrossEntropyLoss``;
    - in the code of a module, a tanh of a Linear, ``torch.tanh(self.l1(x))``, a flat Embedding,
      ``self.C(x).view(len(x), -1)``, and ``F.cross_entropy`` run as one op each. These layers stay
      as they are; the module gets a subclass of its class with rewritten methods, which make the
      calls of the source in all but the plain case (hooks, other layers, transforms).

    "Followed by" means: next to each other in an ``nn.Sequential``, or called so by the forward of
    the module that has them as attributes. The new layers hold the very same Parameters, buffers
    and hooks, so optimizers, handles and the keys of the state_dict stay valid; results, dtype,
    device and training mode do too. `mlpkern.unfuse` puts the layers back.

    A layer is swapped only where the results are proved equal. It stays where a hook sees the value
    between the two layers; where it is of a subclass, parametrized, or has a weight that a hook
    recomputes; and where a method, hook or forward of the modules around may call one of the two
    alone. Their code must not name the layers, or a symbolic trace of the forward, in both modes
    and with every branch decided, must show what it does. ``refused`` also lists near misses, with
    what to write instead, such as a tanh in another function or code without its source.

    Code outside the model is not analysed: a script that calls ``model.net[0]``, or a layer kept in
    a list or closure elsewhere, gets the swapped layer. So do tools that treat every ``nn.Linear``
    alike, such as a wrapper that adds a low-rank product to its output: they would add it after the
    tanh. Run them before ``fuse`` or after `mlpkern.unfuse`; unfuse also before you change layers
    or flags that the forward depends on.

    Examples:
        >>> print(fuse(nn.Sequential(nn.Linear(30, 200), nn.Tanh())))
        0 + 1: Linear + Tanh -> LinearTanh
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"fuse: model must be an nn.Module, got {type(model).__name__}")
    result = Fused()
    survey = Survey(model)
    compiled = [name for name, owner in survey.owners.items() if hasattr(owner, "_orig_mod")]
    if compiled:
        reason = "it is compiled already: fuse the module first, then give it to torch.compile"
        result.refuse(reason, compiled[0])
        return result
    if not survey.owners:
        result.refuse("it is a ScriptModule: fuse the module first, then torch.jit.script it", "")
        return result
    for name, owner in survey.owners.items():
        if is_sequential(owner):
            _fuse_sequential(name, owner, survey, result)
        elif type(owner) not in CONTAINERS and _has_pair(name, owner):
            _fuse_attributes(name, owner, survey, result)
        _fuse_losses(name, owner, result)
    for name, owner in survey.owners.items():
        fuse_forward(name, owner, survey, result)
    if type(model) is nn.CrossEntropyLoss:
        reason = "the model itself cannot be replaced in place; use mlpkern.nn.CrossEntropyLoss"
        result.refuse(reason, "")
    say_what_else(survey, result)
    return result


def _fuse_sequential(name: str, owner: nn.Module, survey: Survey, result: Fused) -> None:
    for pair in list(pairwise(places(name, owner, lists=False))):
        first, second = pair
        if not is_pair(first.module, second.module):
            continue
        reason = objection(first.module, second.module)
        reason = reason or survey.objection_in_sequential(owner, pair)
        if reason:
            result.refuse(reason, first.name, second.name)
        else:
            _swap([first], [second], result)


def _has_pair(name: str, owner: nn.Module) -> bool:
    own = [place.module for place in places(name, owner)]
    return any(isinstance(module, (nn.Tanh, nn.Flatten)) for module in own)


def _fuse_attributes(name: str, owner: nn.Module, survey: Survey, result: Fused) -> None:
    own = list(places(name, owner))
    trace = survey.trace(owner)
    if trace.failure:
        for first, second in pairwise(own):
            if is_pair(first.module, second.module):
                result.refuse(trace.failure, first.name, second.name)
        return
    at: dict[nn.Module, list[Place]] = {}
    for place in own:
        at.setdefault(place.module, []).append(place)
    for user, after in at.items():
        sources = trace.sources(user)
        layers = [layer for layer in at if layer in sources and is_pair(layer, user)]
        before = [place for layer in layers for place in at[layer]]
        if not before:
            continue
        reason = ""
        if any(source not in layers for source in sources):
            reason = f"{after[0].key} is also applied to something else"
        for layer in layers:
            reason = reason or objection(layer, user)
            if not reason and not trace.only_user(layer, user):
                reason = f"the output of {at[layer][0].key} is also used without {after[0].key}"
        reason = reason or trace.open
        reason = reason or survey.objection_in_forward(owner, (*before, *after))
        if reason:
            result.refuse(reason, *(place.name for place in (*before, *after)))
        else:
            _swap(before, after, result)


def _fuse_losses(name: str, owner: nn.Module, result: Fused) -> None:
    for place in places(name, owner, lists=False):
        if not isinstance(place.module, nn.CrossEntropyLoss) or isinstance(place.module, FUSED):
            continue
        reason = not_plain(place.module, nn.CrossEntropyLoss)
        if reason:
            result.refuse(reason, place.name)
        else:
            place.parent._modules[place.key] = _recast(place.module, CrossEntropyLoss)
            result.append(Swap((place.name,), ("CrossEntropyLoss",), "CrossEntropyLoss (fused)"))


def _swap(before: list[Place], after: list[Place], result: Fused) -> None:
    second = after[0]
    cls = fused_class(second.module)
    new = {place.module: _recast(place.module, cls) for place in before}
    for first in before:
        first.parent._modules[first.key] = new[first.module]
        was = (type(first.module).__name__, type(second.module).__name__)
        result.append(Swap((first.name, second.name), was, cls.__name__))
    identity = nn.Identity().train(second.module.training)
    mark(identity, second.module, *new.values())
    for layer in new.values():
        mark(layer, replaced(layer), identity)
    for place in after:
        place.parent._modules[place.key] = identity


def _recast(module: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """A ``cls`` that shares the state of ``module``, so that handles of its hooks stay valid."""
    new = cls.__new__(cls)
    new.__dict__.update(module.__dict__)
    mark(new, module)
    return new
