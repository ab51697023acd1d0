"""The backend ``reference``: all ops in plain torch, on any device."""

from __future__ import annotations

from mlpkern.reference import (
    cross_entropy_backward,
    cross_entropy_forward,
    embedding_gather_backward,
    embedding_gather_forward,
    embedding_linear_tanh_backward,
    embedding_linear_tanh_forward,
    linear_tanh_backward,
    linear_tanh_forward,
)
from mlpkern.reference.evaluate import evaluate
from mlpkern.reference.train_steps import train_steps

#: The functions check nothing; the ops check the arguments before.
CHECKS_ARGUMENTS = False

__all__ = [
    "CHECKS_ARGUMENTS",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "embedding_gather_backward",
    "embedding_gather_forward",
    "embedding_linear_tanh_backward",
    "embedding_linear_tanh_forward",
    "evaluate",
    "linear_tanh_backward",
    "linear_tanh_forward",
    "status",
    "train_steps",
]


def status() -> tuple[bool, str, str]:
    """Always available; see ``mlpkern.registry.Backend``."""
    return True, "", "plain torch, any device"
