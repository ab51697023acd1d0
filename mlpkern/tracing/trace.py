"""What a forward does with its layers, as a symbolic trace (torch.fx) shows it.

Every layer stays a call, so the graph shows where the output of each layer goes. The trace holds
for all values of the inputs: a forward whose path depends on them cannot be traced.
"""

from __future__ import annotations

import inspect
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.fx
from torch import nn

from mlpkern.tracing.branches import Branches
from mlpkern.tracing.twin import Twins


class Untraceable(Exception):
    """A forward that cannot be traced; the message is the reason."""


class _Proxy(torch.fx.Proxy):
    def __setitem__(self, key: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, key, value), {})


class _Tracer(torch.fx.Tracer):
    def __init__(self, twins: Twins, flat: bool) -> None:
        super().__init__(autowrap_modules=(math,))
        self._autowrap_search.clear()  # `_recorded` wraps them once
        self._autowrap_function_ids.clear()
        self.calls: dict[torch.fx.Node, nn.Module] = {}
        self._twins = twins
        self._flat = flat

    def proxy(self, node: torch.fx.Node) -> torch.fx.Proxy:
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        module = self._twins.original(m)
        if module is None:
            if self._twins.knows(m):
                raise Untraceable("the forward keeps them outside the attributes")
            if type(m) is nn.Sequential:  # a slice of one
                return nn.Sequential.forward(m, *args, **kwargs)
            if m._modules or m._parameters or not type(m).__module__.startswith("torch.nn."):
                raise Untraceable(f"the forward calls a {type(m).__name__} that it does not own")
            module = m
        elif self._flat and m._modules:
            return type(m).forward(m, *args, **kwargs)
        proxy = self.create_proxy("call_module", type(m).__name__, args, kwargs)
        self.calls[proxy.node] = module
        return proxy


class Trace:
    """The nodes of one module's forward, in training and in evaluation mode.

    An argument whose default is None is traced as given and as None; ``only_none`` traces it as
    None alone. A ``flat`` trace goes into the modules below, down to the layers. ``failure`` says
    why there is no trace, ``open`` which branch of the code it leaves undecided.
    """

    def __init__(self, owner: nn.Module, *, flat: bool = False, only_none: bool = False) -> None:
        self.failure = ""
        self.open = ""
        self.graphs: list[torch.fx.Graph] = []
        self._modules: dict[torch.fx.Node, nn.Module] = {}
        if "forward" in owner.__dict__:
            self.failure = "its forward was replaced on the object"
            return
        branches = Branches()
        optional = _optional(type(owner).forward)
        for training in (True, False):
            for names in [tuple(optional)] if only_none else _subsets(optional):
                try:
                    self._trace(Twins(owner, training), flat, dict.fromkeys(names), branches)
                except Untraceable as error:
                    self.failure = str(error)
                except Exception as error:  # a forward may raise anything when handed proxies
                    if names and not only_none and "NoneType" in str(error):
                        continue  # the forward itself raises without that argument
                    text = str(error).partition("\n")[0]
                    self.failure = f"its forward cannot be traced ({type(error).__name__}: {text})"
                if self.failure:
                    return
        self.open = branches.open()
        self._calls: dict[nn.Module, list[torch.fx.Node]] = {}
        for node, module in self._modules.items():
            self._calls.setdefault(module, []).append(node)

    def _trace(
        self, twins: Twins, flat: bool, arguments: dict[str, None], branches: Branches
    ) -> None:
        tracer = _Tracer(twins, flat)
        for module in twins.root.modules():
            if module is not twins.root and not flat and twins.original(module) is not module:
                module.__dict__["forward"] = _called_directly(module)
        with _recorded(tracer, twins.root), branches:
            self.graphs.append(tracer.trace(twins.root, arguments or None))
        self._modules |= tracer.calls

    def module(self, node: Any) -> nn.Module | None:
        """The layer that ``node`` is a call of, or None."""
        return self._modules.get(node)

    def nodes(self) -> Iterator[torch.fx.Node]:
        return (node for graph in self.graphs for node in graph.nodes)

    def calls(self, module: nn.Module) -> list[torch.fx.Node]:
        return [] if self.failure else self._calls.get(module, [])

    def sources(self, module: nn.Module) -> list[nn.Module | None]:
        """The layer whose output each call of ``module`` gets; None for any other input."""
        found: list[nn.Module | None] = []
        for node in self.calls(module):
            only = len(node.args) == 1 and not node.kwargs
            found.append(self.module(node.args[0]) if only else None)
        return found

    def only_user(self, module: nn.Module, user: nn.Module) -> bool:
        """Whether the outputs of ``module`` go to ``user`` and nowhere else."""
        return all(
            self.module(other) is user for node in self.calls(module) for other in node.users
        )


def _called_directly(module: nn.Module) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        raise Untraceable(f"the forward calls {type(module).__name__}.forward itself")

    return forward


def _optional(forward: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(forward).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is None]


def _subsets(names: list[str]) -> list[tuple[str, ...]]:
    """Which arguments are None, in every combination; of many, all or none of them."""
    if len(names) > 3:
        return [(), tuple(names)]
    return [one for r in range(len(names) + 1) for one in itertools.combinations(names, r)]


@contextmanager
def _recorded(tracer: torch.fx.Tracer, root: nn.Module) -> Iterator[None]:
    """``len`` and the functions of ``math`` become nodes of the graph while this is active.

    torch's functions and the ops of this package record a proxy by themselves.
    """
    of_math = [function for function in vars(math).values() if callable(function)]
    recorded = {id(function): _recording(tracer, function) for function in of_math}
    spaces = {id(vars(math)): vars(math)}
    in_python = (m for m in root.modules() if not isinstance(m, torch.jit.ScriptModule))
    for cls in {type(module) for module in in_python}:
        space = getattr(inspect.unwrap(cls.forward), "__globals__", {})
        if not str(space.get("__name__")).startswith("torch."):
            spaces[id(space)] = space
    undo = []
    for space in spaces.values():
        changed = {
            name: recorded[id(value)] for name, value in space.items() if id(value) in recorded
        }
        if "len" not in space:
            changed["len"] = _recording(tracer, len)
        undo.append((space, {name: space.get(name) for name in changed}))
        space.update(changed)
    try:
        yield
    finally:
        for space, before in undo:
            for name, value in before.items():
                if value is None:
                    del space[name]
                else:
                    space[name] = value


def _recording(tracer: torch.fx.Tracer, function: Callable[..., Any]) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(arg, torch.fx.Proxy) for arg in (*args, *kwargs.values())):
            return tracer.create_proxy("call_function", function, args, kwargs)
        return function(*args, **kwargs)

    return record
