"""The base class of the autograd Functions of the ops."""

from __future__ import annotations

from typing import Any

import torch
from torch._C import _are_functorch_transforms_active as transforms_active


class OpFunction(torch.autograd.Function):
    """A torch.autograd.Function whose ``apply`` costs 2 us less than torch's.

    torch's ``Function.apply`` is a Python method around the C++ one: each call compares
    ``setup_context``, builds closures and searches the arguments for dead functorch wrappers. None
    of that matters to an op on plain tensors, so ``direct`` is the C++ method itself, bound once
    per class. Under a transform of torch.func the op runs as ``composed``, its plain torch
    function: every transform composes with that, with no rule to write and none to get wrong.
    """

    direct: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.direct = super(torch.autograd.Function, cls).apply

    @staticmethod
    def composed(*args: Any) -> Any:
        """The same function of the same arguments in plain torch, from ``mlpkern.reference``."""
        raise NotImplementedError

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The op on its positional arguments, which are not checked here: see the functional."""
        return cls.composed(*args) if transforms_active() else cls.direct(*args)


def differentiable_again() -> bool:
    """Within a backward: whether its result must carry a graph of its own.

    True under ``create_graph=True``, when autograd records during the backward, and for a backward
    batched by vmap (``is_grads_batched=True``). Then the reference formulas compute it.
    """
    return torch.is_grad_enabled() or transforms_active()
