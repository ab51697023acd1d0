"""Where the chunks of a training end: at dev losses and checkpoints, and soon enough that Ctrl-C
and the progress bar do not wait. Where they end never changes the numbers of a run."""

from __future__ import annotations

from mlpkern.lm.model.config import TrainConfig

CHUNK_SECONDS = 0.15  # the longest a chunk should take
# Log rows do not end a chunk, they are made of its losses: so a chunk is long enough that what
# happens between chunks does not show even when a step takes 15 µs.
FIRST_CHUNK, LONGEST_CHUNK = 1, 20_000


def is_due(step: int, every: int) -> bool:
    """Whether ``step`` is one of every ``every``; 0: never."""
    return every > 0 and step % every == 0


def is_evaluated(config: TrainConfig, step: int) -> bool:
    """Whether the dev loss is taken after so many steps."""
    return step == config.steps or is_due(step, config.eval_interval)


def steps_to_boundary(config: TrainConfig, step: int) -> int:
    """Steps from ``step`` to the next dev loss, checkpoint or the end."""
    every = (config.eval_interval, config.checkpoint_interval)
    return min([config.steps - step, *(e - step % e for e in every if e)])


def next_length(steps: int, elapsed: float, longest: int) -> int:
    """The length of a chunk that should take `CHUNK_SECONDS`, after one of ``steps`` steps took
    ``elapsed``; at most four times the ``longest`` that was allowed before."""
    wanted = int(steps * CHUNK_SECONDS / max(elapsed, 1e-9))
    return max(1, min(wanted, 4 * longest, LONGEST_CHUNK))
