"""Fused embedding, linear + tanh and cross-entropy for PyTorch, on any machine."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from mlpkern import autograd, functional, nn
from mlpkern.backend_choice import use_backend
from mlpkern.explanation import explain
from mlpkern.functional import (
    cross_entropy,
    embedding_gather,
    embedding_linear_tanh,
    evaluate,
    linear_tanh,
    train_steps,
)
from mlpkern.fusing import fuse, unfuse
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.params import MLPParams
from mlpkern.ops.evaluate import Evaluation
from mlpkern.registry import Backend, backends, check_errors, status

if TYPE_CHECKING:
    from mlpkern import lm

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "Evaluation",
    "MLPParams",
    "OptimizerState",
    "__version__",
    "autograd",
    "backends",
    "check_errors",
    "cross_entropy",
    "embedding_gather",
    "embedding_linear_tanh",
    "empty_cache",
    "evaluate",
    "explain",
    "functional",
    "fuse",
    "linear_tanh",
    "lm",
    "nn",
    "train_steps",
    "unfuse",
    "use_backend",
]


def empty_cache() -> None:
    """Give memory that is kept for reuse back: on a CPU to the system, of CUDA graphs to torch.

    That of outputs and scratch of the compiled CPU kernels, and the graphs that ``train_steps`` of
    large models keeps on a GPU, with their arrays.
    """
    if status("cpu").available:
        from mlpkern._C import empty_cache

        empty_cache()
    if graphed := sys.modules.get("mlpkern.cuda.graphed_train_steps"):  # else nothing is kept
        graphed.empty_cache()


def __getattr__(name: str) -> Any:
    """``mlpkern.lm``, imported at its first use, so that the ops alone do not pay for it."""
    if name == "lm":
        return importlib.import_module("mlpkern.lm")
    raise AttributeError(f"module 'mlpkern' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
