"""Records of a run for readers: config.json at its start, summary.json at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mlpkern.lm.atomic_write import write_json
from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.checkpoint_file import versions
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.words.word_file import shareable


def write_config(
    run: RunFolder, config: TrainConfig, *, data: dict[str, Any], engine: str, kernels: str,
    device: torch.device, **more: Any,
) -> None:  # fmt: skip
    """Replaces config.json: settings, words, engine, device and versions, and ``more``."""
    values = {
        "config": config.to_json(),
        "data": shareable(data),
        "engine": engine,
        "kernels": kernels,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    write_json(run.config, values | more)


def write_summary(
    run: RunFolder, *, steps: int, seconds: float, engine: str,
    train: dict[str, Any] | None, dev: dict[str, Any], **more: Any,
) -> None:  # fmt: skip
    """Replaces summary.json; ``train`` and ``dev``: the metrics over the splits, ``rows`` of them;
    ``train`` may be None, or of a sample, and then has ``of``, the rows of the split."""
    values = {"steps": steps, "seconds": seconds, "engine": engine, "train": train, "dev": dev}
    write_json(run.summary, values | more)


def read_record(path: Path) -> dict[str, Any]:
    """The content of a config.json; CheckpointError if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError
    except (OSError, ValueError, TypeError):
        raise CheckpointError(f"{path}: damaged or no record of a run") from None
    return values


def read_losses(run: RunFolder, step: int) -> tuple[float | None, float | None]:
    """The train and dev loss of a run that ended at ``step``, else (None, None); the train loss is
    None too where it was not evaluated."""
    if not run.summary.exists():
        return None, None
    try:
        values = json.loads(run.summary.read_text(encoding="utf-8"))
        if int(values["steps"]) != step:  # the summary of an earlier end
            return None, None
        train, dev = values["train"], values["dev"]
        return None if train is None else float(train["loss"]), float(dev["loss"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{run.summary}: damaged or no summary of a run") from None
