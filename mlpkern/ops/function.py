"""The base class of the autograd Functions of the ops."""

from __future__ import annotations

from typing import Any

import torch
from torch import is_grad_enabled
from torch._C import _are_functorch_transforms_active as transforms_active
from torch._C._functorch import is_legacy_batchedtensor as is_legacy_batched


class OpFunction(torch.autograd.Function):
    """A torch.autograd.Function whose ``apply`` costs 2 us less than torch's.

    torch's ``Function.apply`` is a Python method around the C++ one: each call compares
    ``setup_context``, builds closures and searches the arguments for dead functorch wrappers. None
    of that matters to an op on plain tensors, so ``direct`` is the C++ method itself, bound once
    per class. Under a transform of torch.func the op runs as ``composed``, its plain torch
    function, with which every transform composes; no op needs rules of its own for them.
    """

    direct: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.direct = super(torch.autograd.Function, cls).apply  # type: ignore[misc]

    @staticmethod
    def composed(*args: Any) -> Any:
        """The same function of the same arguments in plain torch, from ``mlpkern.reference``."""
        raise NotImplementedError

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The op on its positional arguments, which are not checked here: see the functional.

        A backend reads memory, where the lazily negated tensor ``x._neg_view()`` still has the
        values of x; so such a tensor is written out first.
        """
        if transforms_active():
            return cls.composed(*args)
        return cls.direct(*(a.resolve_neg() if isinstance(a, torch.Tensor) else a for a in args))


def plain_torch_needed(grad_output: torch.Tensor) -> bool:
    """Whether a backward must use the reference formulas, which consist of torch ops.

    True under ``create_graph=True``, when autograd records the backward to differentiate it again,
    and for a backward batched by vmap: by torch.func, or by ``is_grads_batched=True`` of
    ``torch.autograd.grad``, which still has a vmap of its own.
    """
    return is_grad_enabled() or transforms_active() or is_legacy_batched(grad_output)
