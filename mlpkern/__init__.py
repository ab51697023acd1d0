"""Fused embedding, linear + tanh and cross-entropy for PyTorch, on any machine."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpkern import lm
    from mlpkern.fusing import fuse, unfuse

_complete = "torch" in sys.modules  # else at the first use of a name, see __getattr__
if TYPE_CHECKING or _complete:
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
    from mlpkern.mlp.optimizer_state import OptimizerState
    from mlpkern.mlp.params import MLPParams
    from mlpkern.ops.evaluate import Evaluation
    from mlpkern.registry import Backend, backends, check_errors

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
    """Free the memory that is kept for reuse.

    The compiled CPU kernels keep outputs and scratch, which go back to the system. On a GPU
    ``train_steps`` of large models keeps CUDA graphs with their arrays, which go back to torch.
    """
    from mlpkern import registry

    if registry.status("cpu").available:
        from mlpkern._C import empty_cache

        empty_cache()
    if graphed := sys.modules.get("mlpkern.cuda.graphed_train_steps"):  # else nothing is kept
        graphed.empty_cache()


def __getattr__(name: str) -> Any:
    """What is imported at its first use: `mlpkern.lm` and `fuse`, which most programs do not need,
    and, where torch is not imported yet, all that needs it. So ``mlpkern --help`` starts at once.
    """
    if name == "lm":
        return importlib.import_module("mlpkern.lm")
    if name in ("fuse", "unfuse"):
        from mlpkern import fusing

        return globals().setdefault(name, getattr(fusing, name))
    if name in __all__ and not _complete:
        import torch  # noqa: F401

        importlib.reload(sys.modules["mlpkern"])  # executes this file again, with torch
        return globals()[name]
    raise AttributeError(f"module 'mlpkern' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
