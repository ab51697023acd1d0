"""The torch.library namespace ``mlpkern``: the ops as torch.compile and other tracers see them.

Each op module defines its ops here with a schema, an implementation that calls the selected
backend, and a fake that gives the shape of the result. ``torch.library.custom_op`` would write the
same in fewer lines, but costs 85 us a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("mlpkern", "DEF")


def define(
    name: str, arguments: str, returns: str, run: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    """Register ``mlpkern::name``; ``run`` gets real tensors of any device, ``fake`` shapes only.

    ``arguments`` must have no defaults: the dispatcher leaves out an argument that equals its
    default, and then ``ctx.needs_input_grad`` of the backward is too short.
    """
    LIBRARY.define(f"{name}({arguments}) -> {returns}", tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"mlpkern::{name}", fake, lib=LIBRARY)


def define_autograd(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., None]
) -> None:
    """Make ``mlpkern::name`` differentiable."""
    torch.library.register_autograd(
        f"mlpkern::{name}", backward, setup_context=setup_context, lib=LIBRARY
    )
