"""What a module's own forward does with its layers: the evidence on which ``fuse`` decides.

A symbolic trace (torch.fx) in which every layer stays a call shows which layer's output goes where.
It follows the forward for any input: a forward whose path depends on the values of its input, or on
an argument, cannot be traced, and then there is no evidence.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType

import torch.fx
from torch import nn

CONTAINERS = (nn.ModuleList, nn.ModuleDict)

_DATA = frozenset(
    ("weight", "bias", "in_features", "out_features", "num_embeddings", "embedding_dim")
)


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class Trace:
    """The calls of layers in one module's forward, in training and in evaluation mode."""

    def __init__(self, owner: nn.Module) -> None:
        self.failure = ""
        self._modules = dict(owner.named_modules(remove_duplicate=False))
        self._nodes: list[torch.fx.Node] = []
        if "forward" in owner.__dict__:
            self.failure = "its forward was replaced on the object"
            return
        for training in (True, False):
            try:
                graph = _Tracer().trace(_copy(owner, training))
            except Exception as error:  # a forward may raise anything when handed proxies
                text = str(error).partition("\n")[0]
                self.failure = f"its forward cannot be traced ({type(error).__name__}: {text})"
                return
            self._nodes += graph.nodes

    def called(self) -> list[nn.Module]:
        """Every module that the forward calls."""
        modules = (self._module(node) for node in self._nodes)
        return [module for module in modules if module is not None]

    def sources(self, module: nn.Module) -> list[nn.Module | None]:
        """Whose output each call of ``module`` gets; None for anything but one layer's output."""
        found: list[nn.Module | None] = []
        for node in self._calls(module):
            only = len(node.args) == 1 and not node.kwargs
            argument = node.args[0] if only else None
            found.append(self._module(argument) if isinstance(argument, torch.fx.Node) else None)
        return found

    def only_user(self, module: nn.Module, user: nn.Module) -> bool:
        """Whether the outputs of ``module`` go to ``user`` and nowhere else."""
        return all(
            self._module(other) is user for node in self._calls(module) for other in node.users
        )

    def _calls(self, module: nn.Module) -> Iterator[torch.fx.Node]:
        return (node for node in self._nodes if self._module(node) is module)

    def _module(self, node: torch.fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None


def called_elsewhere(owner: nn.Module, name: str) -> str:
    """A method of ``owner``, other than the forward, that may call the attribute ``name``; or "".

    Such a method may use the layer without what follows it in the forward. It is read off the
    bytecode; to look only at a parameter or a size of the layer is no use of it.
    """
    for cls in type(owner).__mro__:
        if cls is nn.Module:
            break
        for method, value in vars(cls).items():
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if method in ("__init__", "forward") or not isinstance(function, FunctionType):
                continue
            if _may_call(function.__code__, name):
                return method
    return ""


def _may_call(code: CodeType, name: str) -> bool:
    instructions = list(dis.get_instructions(code))
    for this, following in zip(instructions, [*instructions[1:], None], strict=True):
        looks = (
            following is not None and following.opname == "LOAD_ATTR" and following.argval in _DATA
        )
        if this.argval == name and not looks:
            return True
    return any(_may_call(const, name) for const in code.co_consts if isinstance(const, CodeType))


def _copy(owner: nn.Module, training: bool) -> nn.Module:
    """A module with the same layers, so that a forward that sets attributes leaves no proxies."""
    copy = owner.__new__(type(owner))
    copy.__dict__.update(owner.__dict__)
    for name in ("_parameters", "_buffers", "_modules"):
        copy.__dict__[name] = dict(owner.__dict__[name])
    copy.__dict__["training"] = training
    return copy
