"""The steps from the ids to the logits in a module's forward, as a symbolic trace shows them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from mlpkern.tracing.fused_steps import steps_of
from mlpkern.tracing.trace import Trace


@dataclass(frozen=True)
class Step:
    """A layer or function on the way: what it computes, what to call it, and its parameters."""

    kinds: tuple[str, ...]  # one or several of embedding, join, linear, tanh; or OTHER
    name: str
    parameters: tuple[Tensor | None, ...] = ()
    module: nn.Module | None = None

    @property
    def linear(self) -> tuple[Tensor | None, ...]:
        """The weight and, if there is one, the bias of the linear part."""
        return self.parameters[1:] if "embedding" in self.kinds else self.parameters


def chains(model: nn.Module) -> list[list[Step]]:
    """The steps in training and in evaluation mode, from the first to the last.

    Raises ValueError where the forward cannot be traced, or is not one chain of steps.
    """
    trace = Trace(model, flat=True, only_none=True)
    if trace.failure:
        raise ValueError(
            f"from_module: {type(model).__name__} does not show how it uses its layers: "
            f"{trace.failure}"
        )
    return [_Chain(model, trace).steps(graph) for graph in trace.graphs]


OTHER = ("other",)
_MODULES: dict[type[nn.Module], str] = {
    nn.Embedding: "embedding",
    nn.Flatten: "join",
    nn.Linear: "linear",
    nn.Tanh: "tanh",
}
_FUNCTIONS: dict[Any, str] = {
    F.embedding: "embedding",
    F.linear: "linear",
    torch.tanh: "tanh",
    F.tanh: "tanh",
    "tanh": "tanh",
}
_JOINS = frozenset(
    (
        "view", "reshape", "flatten", "unbind", "contiguous", "squeeze", "unsqueeze",
        torch.reshape, torch.flatten, torch.unbind, torch.squeeze, torch.unsqueeze,
        torch.cat, torch.concat, torch.concatenate, torch.hstack, operator.getitem,
    )
)  # fmt: skip
_HELD = {"embedding": ("weight",), "linear": ("weight", "bias")}  # by the layer of such a step
_CASTS = frozenset(("long", "int", "to"))
_SIZES = frozenset((len, "size", "dim", "numel"))
_ARITHMETIC = frozenset((operator.getitem, operator.mul, operator.floordiv, operator.sub))


class _Chain:
    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self._model = model
        self._trace = trace

    def steps(self, graph: torch.fx.Graph) -> list[Step]:
        (output,) = (node for node in graph.nodes if node.op == "output")
        node = _logits(output.args[0])
        found: list[Step] = []
        following: set[torch.fx.Node] = {output}
        while node.op != "placeholder":
            self._used_once(node, following)
            step, before, passed = self._step(node)
            for part in passed - {node}:
                self._used_once(part, passed)
            if step is not None:
                found.append(step)
            node, following = before, passed
        self._used_once(node, following)
        return found[::-1] or [Step(OTHER, type(self._model).__name__)]

    def _step(self, node: torch.fx.Node) -> tuple[Step | None, torch.fx.Node, set[torch.fx.Node]]:
        """What ``node`` is, the node it gets its tensor from, and the nodes between the two."""
        if _joins(node):
            source, passed = _joined(node)
            return Step(("join",), _name(node)), source, passed
        module = self._trace.module(node)
        inputs = [other for other in node.all_input_nodes if other.op != "get_attr"]
        inputs = [other for other in inputs if not _is_size(other)]
        if len(inputs) != 1:
            name = type(module).__name__ if module is not None else _name(node)
            raise _refusal(f"{name} in its forward takes {len(inputs)} tensors")
        if module is not None:
            return self._layer(module), inputs[0], {node}
        if node.op == "call_method" and node.target in _CASTS and inputs[0].op == "placeholder":
            return None, inputs[0], {node}
        return self._function(node), inputs[0], {node}

    def _layer(self, module: nn.Module) -> Step | None:
        cls = type(module)
        if cls is nn.Identity:
            return None
        kinds = (_MODULES[cls],) if cls in _MODULES else steps_of(cls.forward)
        names = [name for kind in kinds for name in _HELD.get(kind, ())]
        parameters = [getattr(module, name) for name in names]
        return Step(kinds or OTHER, cls.__name__, tuple(parameters), module)

    def _function(self, node: torch.fx.Node) -> Step:
        if _lookup(node):
            return Step(("embedding",), "indexing", (self._parameter(node.args[0]),))
        known = _FUNCTIONS.get(node.target)
        kinds = (known,) if known else steps_of(node.target)
        options = {key: value for key, value in node.kwargs.items() if key != "norm_type"}
        values = [*node.args[1:], *options.values()]
        given = [value for value in values if isinstance(value, torch.fx.Node)]
        plain = [value for value in values if not isinstance(value, torch.fx.Node)]
        if not kinds or any(value not in (None, False) for value in plain):
            return Step(OTHER, _name(node))  # options, such as padding_idx
        return Step(kinds, _name(node), tuple(map(self._parameter, given)))

    def _parameter(self, node: Any) -> Tensor:
        path, _, name = str(node.target).rpartition(".")
        try:
            held = self._model.get_submodule(path)._parameters.get(name)
        except AttributeError:
            held = None
        if held is None:
            raise _refusal(f"its forward uses {node.target}, which is no Parameter")
        return held

    def _used_once(self, node: torch.fx.Node, by: set[torch.fx.Node]) -> None:
        for user in node.users:
            if user not in by and not _is_size(user):
                module = self._trace.module(user)
                name = type(module).__name__ if module is not None else _name(user)
                raise _refusal(f"{name} in its forward uses a tensor that another step gets too")


def _refusal(why: str) -> ValueError:
    return ValueError(f"from_module: model must be one chain of layers, but {why}")


def _logits(output: Any) -> torch.fx.Node:
    """The first of what a forward returns, if the others are None."""
    first, *rest = output if isinstance(output, (tuple, list)) else (output,)
    if not isinstance(first, torch.fx.Node) or any(other is not None for other in rest):
        raise _refusal("its forward must return the logits, or a tuple of them and None")
    return first


def _name(node: torch.fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _lookup(node: torch.fx.Node) -> bool:
    """Whether ``node`` is ``C[ids]`` of a parameter C."""
    table = node.args[0] if node.args else None
    getitem = node.op == "call_function" and node.target is operator.getitem
    return getitem and isinstance(table, torch.fx.Node) and table.op == "get_attr"


def _joins(node: torch.fx.Node) -> bool:
    return (
        node.op in ("call_function", "call_method") and node.target in _JOINS and not _lookup(node)
    )


def _joined(node: torch.fx.Node) -> tuple[torch.fx.Node, set[torch.fx.Node]]:
    """The one node whose output ``node`` rearranges, and the nodes from there to ``node``."""
    passed: set[torch.fx.Node] = set()
    sources: set[torch.fx.Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if not _joins(current):
            sources.add(current)
        elif current not in passed:
            passed.add(current)
            waiting += [other for other in current.all_input_nodes if not _is_size(other)]
    if len(sources) != 1:
        raise _refusal(f"{_name(node)} in its forward joins {len(sources)} tensors")
    return sources.pop(), passed


def _is_size(node: torch.fx.Node) -> bool:
    """Whether the value of ``node`` is a size, or the assertion that an argument is None."""
    if node.op not in ("call_function", "call_method"):
        return False
    if node.target in _SIZES or "assert" in _name(node):
        return True
    if node.target is getattr:
        return node.args[1] in ("shape", "device", "dtype", "ndim")
    inputs = node.all_input_nodes
    return node.target in _ARITHMETIC and bool(inputs) and all(map(_is_size, inputs))
