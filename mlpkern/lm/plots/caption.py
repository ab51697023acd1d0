"""The line of a picture that says of which run it is."""

from __future__ import annotations

from mlpkern.lm.saved.checkpoint import Checkpoint
from mlpkern.lm.saved.records import read_losses
from mlpkern.lm.saved.run_folder import RunFolder

LONGEST = 30  # letters of a name that are shown


def run_caption(folder: RunFolder, checkpoint: Checkpoint, dev_loss: float | None = None) -> str:
    """Name of the folder, sizes, step and dev loss: "first: T=3 D=10 H=200 V=27, step 20000, dev
    2.1586".

    Args:
        dev_loss: the dev loss of ``checkpoint``; None: as saved, left out if it is not.
    """
    if dev_loss is None:
        dev_loss = checkpoint.dev_loss
    if dev_loss is None:
        _, dev_loss = read_losses(folder, checkpoint.step)
    config, name = checkpoint.config, folder.path.resolve().name
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    sizes = {
        "T": config.block_size, "D": config.embedding_dim, "H": "+".join(map(str, config.hidden)),
        "V": len(checkpoint.vocab),
    }  # fmt: skip
    step = f"step {checkpoint.step:,}"
    if checkpoint.step != config.steps:
        step += f" of {config.steps:,}"
    parts = [" ".join(f"{letter}={size}" for letter, size in sizes.items()), step]
    if dev_loss is not None:
        parts.append(f"dev {dev_loss:.4f}")
    return f"{name}: {', '.join(parts)}"
