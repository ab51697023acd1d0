"""The makemore MLP language model on the fused ops: data, model, trainer, checkpoints, sampling.

The parts from the lowest to the highest; each imports only those before it:

    errors, memory, atomic_write  <  plan_file, arguments  <  words  <  model  <  saved  <  training
        <  many  <  analysis  <  plots  <  search

words: text to windows of ids; model: settings, schedule, network; saved: a run's folder on disk;
training: engines and the trainer; many: models trained side by side; search: hyper-parameters.

>>> from mlpkern import lm
>>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
>>> trainer = lm.Trainer.start(lm.PRESETS["quick"], dataset)
>>> trainer.train()
>>> names = lm.sample(trainer.state.model, dataset.vocab, 3)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpkern.lm.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """A public name. The command line imports single modules, so nothing is imported here."""
    if name == "__all__" or not name.startswith("_"):
        public = importlib.import_module("mlpkern.lm.public")
        if name in ("__all__", *public.__all__):
            return getattr(public, name)
    raise AttributeError(f"module 'mlpkern.lm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
