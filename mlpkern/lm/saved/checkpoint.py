"""Checkpoints: one safetensors file with the parameters, the state of the run and its settings.

The tensors carry the names of the model's ``state_dict``; what else a run needs to continue lies
beside them under "trainer.":

    trainer.generator   uint8: state of the batch generator
    trainer.pending     float32: losses of the steps since the last log row
    trainer.first.*     momenta (sgd) or mean gradients (adamw) of the parameter after "first."
    trainer.second.*    mean squared gradients (adamw)

Format 2 added the last two; a file of format 1 is one of plain SGD, which has neither. The header
names "level" and "lower" of the vocabulary where they are not "char" and false, "dev_loss" where it
was taken at this step, and "waited" where it is not 0.

The settings are JSON in the file's own header (key "mlpkern"), so one rename replaces everything at
once and no crash can leave parameters of one step with the state of another.

Beside them lies the SHA-256 of the settings and of every tensor (key "mlpkern.sha256"), checked at
every load: a flipped bit of a weight is an error like any other damage. The settings say that there
is one, "digest": "sha256"; files of earlier versions have none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mlpkern.lm.atomic_write import replacing
from mlpkern.lm.errors import CheckpointError, LMError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel, parameter_shapes
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.saved.best import Best
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.words.data import Vocab
from mlpkern.mlp.optimizer_state import OptimizerState

__all__ = [
    "Checkpoint",
    "check_vocab",
    "load_checkpoint",
    "load_model",
    "moments_by_name",
    "read_best",
    "save_checkpoint",
    "versions",
]

FORMAT = 2
READABLE = (1, 2)
_KEY = "mlpkern"
_DIGEST_KEY = "mlpkern.sha256"
_TRAINER = "trainer."
_MOMENTS = (_TRAINER + "first.", _TRAINER + "second.")


@dataclass(frozen=True)
class Checkpoint:
    """A run at one step.

    parameters  the model's ``state_dict``
    generator   state of the batch generator
    pending     losses since the last log row (less than ``config.log_every`` of them)
    moments     the tensors of the optimizer, by the names of `OptimizerState.state_dict`
    seconds     training time so far
    data        where the words came from and their digest, as the command line recorded it
    dev_loss    of these parameters, in the file of the best; None: not taken
    waited      dev losses since the lowest (`Best`)
    verified    whether it was read from a file whose digest proved right
    """

    config: TrainConfig
    vocab: Vocab
    step: int
    parameters: dict[str, Tensor]
    generator: Tensor
    pending: Tensor
    moments: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    engine: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    dev_loss: float | None = None
    waited: int = 0
    verified: bool = False

    @classmethod
    def of(cls, state: TrainState, **rest: Any) -> Checkpoint:
        """The checkpoint of ``state`` at this moment, which later steps do not change.

        ``rest``: the fields that a state does not have.
        """
        return cls(
            config=state.config,
            step=state.step,
            parameters={name: p.clone() for name, p in state.model.state_dict().items()},
            generator=state.generator.get_state(),
            moments=moments_by_name(state.optimizer),
            **rest,
        )

    def make_model(self, kernels: str = "fused") -> MLPLanguageModel:
        """A new model on the CPU with these parameters."""
        config = self.config
        model = MLPLanguageModel(
            len(self.vocab), config.block_size, config.embedding_dim, config.hidden, kernels=kernels
        )
        model.load_state_dict(self.parameters)
        return model

    def restore(self, optimizer: OptimizerState) -> None:
        """Copies the saved momenta into ``optimizer``, which is that of a run with ``config``."""
        try:
            optimizer.load_state_dict({**optimizer.state_dict(), **self.moments})
        except ValueError as error:
            raise CheckpointError(f"the optimizer cannot continue: {error}") from None


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, flushed: bool = True) -> None:
    """Writes ``checkpoint`` to ``path``, atomically; ``flushed``: see `replacing`."""
    tensors = {name: tensor.detach().cpu() for name, tensor in checkpoint.parameters.items()}
    tensors[_TRAINER + "generator"] = checkpoint.generator
    tensors[_TRAINER + "pending"] = checkpoint.pending.cpu()
    tensors |= {_TRAINER + name: tensor.cpu() for name, tensor in checkpoint.moments.items()}
    header = {
        "format": FORMAT,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "engine": checkpoint.engine,
        "config": checkpoint.config.to_json(),
        "vocab": list(checkpoint.vocab.symbols),
        "data": checkpoint.data,
        "versions": versions(),
        "digest": "sha256",
    }
    if checkpoint.vocab.level != "char":
        header["level"] = checkpoint.vocab.level
    if checkpoint.vocab.lower:
        header["lower"] = True
    if checkpoint.dev_loss is not None:
        header["dev_loss"] = checkpoint.dev_loss
    if checkpoint.waited:
        header["waited"] = checkpoint.waited
    settings = json.dumps(header)
    metadata = {"format": "pt", _KEY: settings, _DIGEST_KEY: _digest(settings, tensors)}
    with replacing(path, flushed=flushed) as temporary:
        try:
            safetensors.torch.save_file(tensors, temporary, metadata)  # makes no copy of them
        except safetensors.SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code)) from None


def load_checkpoint(path: str | Path, *, checkpoint: str | None = "last") -> Checkpoint:
    """The checkpoint in the file ``path`` or in the run folder ``path``.

    Args:
        checkpoint: which of a run folder: "last", from which a run goes on, "best", the one with
            the lowest dev loss, or None: the best where there is one.

    CheckpointError, in one line, for a file that is missing, damaged, of another program or
    version, or whose tensors do not fit its settings. A file of an earlier version has no digest to
    tell damage by: RuntimeWarning.
    """
    path = RunFolder.checkpoint_file(path, checkpoint)
    with _opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        header = json.loads(metadata[_KEY])
        if header["format"] not in READABLE:
            raise CheckpointError(
                f"{path}: checkpoint format {header['format']}, this version reads "
                f"{' and '.join(map(str, READABLE))}"
            )
        verified = "digest" in header or _DIGEST_KEY in metadata
        if verified and metadata.get(_DIGEST_KEY) != _digest(metadata[_KEY], tensors):
            raise CheckpointError(
                f"{path}: damaged: its content does not have the SHA-256 it names"
            )
        generator = tensors.pop(_TRAINER + "generator")
        pending = tensors.pop(_TRAINER + "pending")
        kept = [name for name in tensors if name.startswith(_MOMENTS)]
        moments = {name.removeprefix(_TRAINER): tensors.pop(name) for name in kept}
        found = Checkpoint(
            config=TrainConfig.from_json(header["config"]),
            vocab=Vocab(
                tuple(header["vocab"]),
                str(header.get("level", "char")),
                bool(header.get("lower", False)),
            ),
            step=int(header["step"]),
            parameters=tensors,
            generator=generator,
            pending=pending,
            moments=moments,
            seconds=float(header["seconds"]),
            engine=str(header["engine"]),
            data=dict(header["data"]),
            dev_loss=None if (dev := header.get("dev_loss")) is None else float(dev),
            waited=int(header.get("waited", 0)),
            verified=verified,
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: not a checkpoint of mlpkern: no {error}") from None
    except CheckpointError:
        raise
    except (LMError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of mlpkern: {error}") from None
    _check_shapes(path, found)
    if not found.verified:
        warnings.warn(
            f"{path}: of an earlier version, without a digest; damage to its numbers would not be "
            "noticed",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def read_best(path: Path) -> Best:
    """The step and the dev loss of the checkpoint file ``path``, from its header alone."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
    try:
        header = json.loads(metadata[_KEY])
        return Best(int(header["step"]), float(header.get("dev_loss", math.inf)))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of mlpkern: {error}") from None


def load_model(
    path: str | Path,
    *,
    kernels: str = "fused",
    device: torch.device | str = "cpu",
    checkpoint: str | None = None,
) -> tuple[MLPLanguageModel, Vocab]:
    """The model of a run, ready to evaluate or sample, and its vocabulary.

    ``path``: a run folder, of which ``checkpoint`` names the "best" (lowest dev loss) or the
    "last", None: the best where there is one; or a checkpoint file.
    """
    found = load_checkpoint(path, checkpoint=checkpoint)
    return found.make_model(kernels).to(device).eval(), found.vocab


def check_vocab(trained: Vocab, given: Vocab) -> None:
    """Raises CheckpointError unless a model trained on the one can read the other."""
    if (trained.level, trained.lower) != (given.level, given.lower):
        raise CheckpointError(
            f"the text was read at {_reading(given)}, the model is one of {_reading(trained)}"
        )
    if trained != given:
        differing = sorted(set(trained.symbols) ^ set(given.symbols))
        raise CheckpointError(
            f"the words have another vocabulary ({len(given)} symbols) than the model "
            f"({len(trained)}); they differ in {' '.join(differing[:20])}"
        )


def _reading(vocab: Vocab) -> str:
    return f"level {vocab.level}" + (", in lower case" if vocab.lower else "")


def moments_by_name(optimizer: OptimizerState) -> dict[str, Tensor]:
    """The tensors of ``optimizer`` that a checkpoint keeps: all but its counters."""
    named = optimizer.state_dict()
    return {name: named[name] for name in named if name not in ("step", "stopped")}


def versions() -> dict[str, str]:
    """The versions a run should be read with: Python, torch, numpy, safetensors."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
    }


def _digest(settings: str, tensors: dict[str, Tensor]) -> str:
    """The SHA-256 of the settings and, by name, of every tensor with its dtype and shape."""
    digest = hashlib.sha256(settings.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file ``path``; CheckpointError where it cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or no safetensors file: {error}") from None


def _check_shapes(path: Path, checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    shapes = parameter_shapes(
        len(checkpoint.vocab), config.block_size, config.embedding_dim, config.hidden
    )
    parameters = list(shapes)
    found = {**checkpoint.parameters, **checkpoint.moments}
    groups = ["first"] if config.optimizer == "adamw" or config.momentum else []
    groups += ["second"] if config.optimizer == "adamw" else []
    for group in groups:
        named = {n.replace("embedding.weight", "embedding"): shapes[n] for n in parameters}
        shapes |= {f"{group}.{name}": shape for name, shape in named.items()}
    expected = {name: (shape, torch.float32) for name, shape in shapes.items()}
    got = {name: (tuple(p.shape), p.dtype) for name, p in found.items()}
    for name in sorted(set(expected) | set(got)):
        if expected.get(name) != got.get(name):
            raise CheckpointError(
                f"{path}: tensor {name} does not fit the settings: expected "
                f"{_described(expected.get(name))}, got {_described(got.get(name))}"
            )


def _described(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "none" if tensor is None else f"{tensor[0]} {tensor[1]}"
