"""A copy of a tree of modules that shares its Parameters; running it changes nothing else."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import nn


class Twins:
    """A copy of ``root`` and of every module below it.

    Parameters are shared; buffers, other tensors, lists and dictionaries are copied, so that a
    forward may change them. ``training`` sets the mode of the copies, None keeps it.
    """

    def __init__(self, root: nn.Module, training: bool | None = None) -> None:
        self._training = training
        self._twins: dict[int, nn.Module] = {}
        self._originals: dict[int, nn.Module] = {}
        self._known: dict[int, nn.Module] = {}
        self.root = self._twin(root)

    def original(self, twin: nn.Module) -> nn.Module | None:
        """The module whose copy ``twin`` is, or None."""
        return self._originals.get(id(twin))

    def knows(self, module: nn.Module) -> bool:
        """Whether ``module`` is one of the originals."""
        return id(module) in self._known

    def _twin(self, module: nn.Module) -> nn.Module:
        if id(module) in self._twins:
            return self._twins[id(module)]
        self._known[id(module)] = module
        if isinstance(module, torch.jit.ScriptModule):  # not made of dictionaries
            self._twins[id(module)] = self._originals[id(module)] = module
            return module
        twin: Any = object.__new__(type(module))
        self._twins[id(module)] = twin
        self._originals[id(twin)] = module
        twin.__dict__.update({key: _own(value) for key, value in module.__dict__.items()})
        twin.__dict__["_buffers"] = {key: _own(value) for key, value in module._buffers.items()}
        twin.__dict__["_modules"] = {
            key: child if child is None else self._twin(child)
            for key, child in module._modules.items()
        }
        if self._training is not None:
            twin.__dict__["training"] = self._training
        return twin


def _own(value: Any) -> Any:
    """A copy of what a forward may change in place."""
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        return value.detach().clone()
    return copy.copy(value) if type(value) in (list, dict, set, OrderedDict) else value
