"""Checkpoints: the parameters, the training state and the settings of a run at one step.

In the file (checkpoint_file.py) the parameters have the names of the model's ``state_dict``. The
other tensors that a run needs to continue are named "trainer.…":

    trainer.generator   uint8: state of the batch generator
    trainer.pending     float32: losses of the steps since the last log row
    trainer.first.*     momenta (sgd) or mean gradients (adamw) of the parameter after "first."
    trainer.second.*    mean squared gradients (adamw)

The settings contain "level" and "lower" of the vocabulary only if they are not "char" and false,
"dev_loss" only if it was taken at this step, and "waited" only if it is not 0.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpkern.lm.arguments import as_device
from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel, parameter_shapes
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.saved.best import Best
from mlpkern.lm.saved.checkpoint_file import named, read_settings, read_tensors, write_tensors
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.words.data import Split
from mlpkern.lm.words.vocab import Vocab
from mlpkern.lm.words.word_file import shareable
from mlpkern.mlp.optimizer_state import OptimizerState

_TRAINER = "trainer."
_COUNTERS = ("step", "stopped")  # of an optimizer; a checkpoint has its own
_MOMENTS = (_TRAINER + "first.", _TRAINER + "second.")


@dataclass(frozen=True)
class Checkpoint:
    """A run at one step.

    Attributes:
        parameters: the model's ``state_dict``
        generator: state of the batch generator
        pending: losses since the last log row (less than ``config.log_interval`` of them)
        moments: the tensors of the optimizer, by the names of `OptimizerState.state_dict`
        seconds: training time so far
        data: where the words came from and their digest, as the command line recorded it
        dev_loss: the dev loss of these parameters, in the file of the best; None: not taken
        waited: dev losses since the lowest (`Best`)
        verified: whether it was read from a file whose digest was checked
        path: the file that it was read from
    """

    config: TrainConfig
    vocab: Vocab
    step: int
    parameters: dict[str, Tensor]
    generator: Tensor
    pending: Tensor = field(default_factory=partial(torch.empty, 0, device="cpu"))
    moments: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    engine: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    dev_loss: float | None = None
    waited: int = 0
    verified: bool = False
    path: Path | None = None

    @classmethod
    def of(cls, state: TrainState, **rest: Any) -> Checkpoint:
        """A copy of ``state``, which later steps do not change; ``rest``: all other fields."""
        moments = state.optimizer.state_dict()
        return cls(
            config=state.config,
            step=state.step,
            parameters={name: p.clone() for name, p in state.model.state_dict().items()},
            generator=state.generator.get_state(),
            moments={name: moment for name, moment in moments.items() if name not in _COUNTERS},
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

    def make_state(
        self, train: Split, config: TrainConfig | None = None, kernels: str = "fused"
    ) -> TrainState:
        """The state from which a training on ``train`` continues, on its device.

        ``config``: replaces the checkpoint's.
        """
        model = self.make_model(kernels).to(train.targets.device)
        state = TrainState.start(model, train, config or self.config)
        state.generator.set_state(self.generator)
        self.restore(state.optimizer)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by their names in a file, on the CPU."""
        own = {"generator": self.generator, "pending": self.pending, **self.moments}
        every = {**self.parameters, **{_TRAINER + name: tensor for name, tensor in own.items()}}
        return {name: tensor.detach().cpu() for name, tensor in every.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], **rest: Any) -> Checkpoint:
        """The checkpoint with these `tensors`; ``rest``: all other fields."""
        kept = {n: t for n, t in tensors.items() if n.startswith(_MOMENTS)}
        own = {_TRAINER + "generator", _TRAINER + "pending", *kept}
        return cls(
            parameters={name: tensor for name, tensor in tensors.items() if name not in own},
            generator=tensors[_TRAINER + "generator"],
            pending=tensors[_TRAINER + "pending"],
            moments={name.removeprefix(_TRAINER): tensor for name, tensor in kept.items()},
            **rest,
        )

    def restore(self, optimizer: OptimizerState) -> None:
        """Copies step and moments into ``optimizer``, made for a run with ``config``."""
        step = torch.tensor(self.step, dtype=torch.int64, device="cpu")
        try:
            optimizer.load_state_dict({**optimizer.state_dict(), "step": step, **self.moments})
        except ValueError as error:
            raise CheckpointError(f"the optimizer cannot continue: {error}") from None


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, flushed: bool = True) -> None:
    """Writes ``checkpoint`` to ``path``, atomically; ``flushed``: see `replacing`."""
    vocab = checkpoint.vocab
    settings: dict[str, Any] = {
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "engine": checkpoint.engine,
        "config": checkpoint.config.to_json(),
        "vocab": list(vocab.symbols),
        "data": shareable(checkpoint.data),
    }
    where_not_usual = {
        "level": vocab.level if vocab.level != "char" else None,
        "lower": vocab.lower or None,
        "dev_loss": checkpoint.dev_loss,
        "waited": checkpoint.waited or None,
    }
    settings |= {name: value for name, value in where_not_usual.items() if value is not None}
    write_tensors(Path(path), settings, checkpoint.tensors(), flushed=flushed)


def load_checkpoint(path: str | Path, *, checkpoint: str | None = "last") -> Checkpoint:
    """The checkpoint in the file ``path`` or in the run folder ``path``.

    Args:
        checkpoint: which one of a run folder: "last", from which a run continues; "best", with the
            lowest dev loss; None: the best if there is one, else the last.

    CheckpointError for a file that is missing, damaged, of another program or version, or whose
    tensors do not fit its settings. RuntimeWarning for a file of an earlier version, which has no
    digest by which damage would be found.
    """
    path = RunFolder.checkpoint_file(path, checkpoint)
    header, tensors, verified = read_tensors(path)
    with named(path):
        level, lower = str(header.get("level", "char")), bool(header.get("lower", False))
        dev_loss = header.get("dev_loss")
        found = Checkpoint.from_tensors(
            tensors,
            config=TrainConfig.from_json(header["config"]),
            vocab=Vocab(tuple(header["vocab"]), level, lower),
            step=int(header["step"]),
            seconds=float(header["seconds"]),
            engine=str(header["engine"]),
            data=dict(header["data"]),
            dev_loss=None if dev_loss is None else float(dev_loss),
            waited=int(header.get("waited", 0)),
            verified=verified,
            path=path,
        )
    _check_shapes(path, found)
    if not found.verified:
        warnings.warn(
            f"{path}: of an earlier version, without a digest; damage would not be noticed",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def read_best(path: Path) -> Best:
    """The step and the dev loss of the checkpoint file ``path``, from its header alone."""
    header = read_settings(path)
    with named(path):
        return Best(int(header["step"]), float(header.get("dev_loss", math.inf)))


def load_model(
    path: str | Path,
    *,
    kernels: str = "fused",
    device: torch.device | str = "cpu",
    checkpoint: str | None = None,
) -> tuple[MLPLanguageModel, Vocab]:
    """The model of a run, ready to evaluate or sample, and its vocabulary.

    ``path``: a checkpoint file, or a run folder; there ``checkpoint`` chooses the "best" (lowest
    dev loss) or the "last", None: the best if there is one.
    """
    device = as_device(device)
    found = load_checkpoint(path, checkpoint=checkpoint)
    return found.make_model(kernels).to(device).eval(), found.vocab


def check_vocab(trained: Vocab, given: Vocab) -> None:
    """CheckpointError unless a model with vocabulary ``trained`` can read ids of ``given``."""
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


def _check_shapes(path: Path, checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    shapes = parameter_shapes(
        len(checkpoint.vocab), config.block_size, config.embedding_dim, config.hidden
    )
    found = {**checkpoint.parameters, **checkpoint.moments}
    of_moments = {n.replace("embedding.weight", "embedding"): s for n, s in shapes.items()}
    groups = ["first"] if config.optimizer == "adamw" or config.momentum else []
    groups += ["second"] if config.optimizer == "adamw" else []
    for group in groups:
        shapes |= {f"{group}.{name}": shape for name, shape in of_moments.items()}
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
