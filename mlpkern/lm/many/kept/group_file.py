"""The file of a group: its models as they stand, in one safetensors file.

The parameters of model 17 have the names of its ``state_dict`` after "17/", those of its best model
after "17/best/", if that is not the last. The other tensors that it needs to continue:

    17/trainer.*    as in a checkpoint (checkpoint.py)
    17/curve        float64: sums of its loss curve (`LossCurve.sums`)

Numbers stand in the settings of the file (checkpoint_file.py), an entry a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from mlpkern.lm.many.snapshot import KeptBest, Snapshot
from mlpkern.lm.many.trained import BestModel
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.saved.checkpoint import Checkpoint
from mlpkern.lm.saved.checkpoint_file import named, read_tensors, write_tensors
from mlpkern.lm.training.evaluation import Metrics
from mlpkern.lm.words.data import Dataset
from mlpkern.lm.words.vocab import Vocab


def write_group(path: Path, snapshots: Mapping[int, Snapshot], vocab: Vocab) -> None:
    """Replaces the file ``path`` by one of ``snapshots``, by their numbers; atomic."""
    tensors: dict[str, Tensor] = {}
    models = []
    for i, one in snapshots.items():
        tensors |= _tensors(one.state, vocab, f"{i}/")
        tensors[f"{i}/curve"] = one.sums
        best = one.best
        entry = {
            "number": i,
            "step": one.state.step,
            "stopped": one.stopped,
            "every": one.every,
            "seconds": one.seconds,
            "dev": asdict(one.dev) if one.dev else None,
            "diverged": one.diverged,
            "best": {"step": best.step, "dev_loss": best.dev_loss, "waited": best.waited},
            "kept": {"step": best.kept.step, "dev": asdict(best.kept.dev)} if best.kept else None,
        }
        models.append(entry)
        if best.kept:
            tensors |= _tensors(best.kept.state, vocab, f"{i}/best/")
    write_tensors(path, {"models": models}, tensors)


def read_group(path: Path, configs: Sequence[TrainConfig], dataset: Dataset) -> dict[int, Snapshot]:
    """The snapshots in the file ``path``, by their numbers in ``configs``, on the device of
    ``dataset``. CheckpointError for a damaged file."""
    settings, tensors, _ = read_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {}  # by the number of the model, "17" or "17/best"
    for name, tensor in tensors.items():
        number, _, own = name.rpartition("/")
        parts.setdefault(number, {})[own] = tensor
    found = {}
    with named(path):
        train = dataset.splits_for(configs[settings["models"][0]["number"]].block_size)["train"]

        def state_of(part: str, config: TrainConfig, step: int) -> TrainState:
            at = Checkpoint.from_tensors(parts[part], config=config, vocab=dataset.vocab, step=step)
            return at.make_state(train)

        for entry in settings["models"]:
            i, kept, dev = int(entry["number"]), entry["kept"], entry["dev"]
            sums, best = parts[f"{i}"].pop("curve"), KeptBest(**entry["best"])
            if kept:
                state = state_of(f"{i}/best", configs[i], kept["step"])
                best.keep(BestModel(state, Metrics(**kept["dev"])))
            state = state_of(f"{i}", configs[i], entry["step"])
            if entry["stopped"] is not None:
                state.optimizer.stopped.fill_(entry["stopped"])
            found[i] = Snapshot(
                state, best, sums, entry["every"], entry["seconds"],
                Metrics(**dev) if dev else None, entry["diverged"],
            )  # fmt: skip
    return found


def _tensors(state: TrainState, vocab: Vocab, prefix: str) -> dict[str, Tensor]:
    """The tensors of ``state``, named as in a checkpoint after ``prefix``."""
    return {prefix + name: t for name, t in Checkpoint.of(state, vocab=vocab).tensors().items()}
