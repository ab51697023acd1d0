"""Is the learning rate that `mlpkern find-lr` recommends as good as the best of a grid?

    python bench/lr_grid.py --file names.txt                      # presets quick, lecture, best
    python bench/lr_grid.py --text brown.txt --cases word         # a word model, 6,000 lines

Each case is trained whole at seven rates by factors of two around its own, and at the recommended
one; the recommendation sees its own seeds alone. The gap is the mean dev loss at the recommended
rate minus the lowest of the grid, in nats. On one AVX2 core: quick 15 s, lecture 2 minutes, best
and word 5 to 10.

Exit status: 0 when no gap is above 0.02, else 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.core.timer import timed

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm import Dataset, FoundLR, TrainConfig

BOUND = 0.02
FACTORS = [2.0**k for k in range(-3, 4)]
WORD = {
    "block_size": 4, "embedding_dim": 24, "hidden": (100,), "steps": 6_000, "lr": 0.002,
    "schedule": "cosine", "warmup": 200, "optimizer": "adamw", "weight_decay": 0.01,
    "hidden_dropout": 0.2,
}  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/lr_grid.py", description="The rate of find-lr against a grid of rates."
    )
    add = parser.add_argument
    add("--cases", nargs="+", choices=("quick", "lecture", "best", "word"),
        default=["quick", "lecture", "best"], help="(quick lecture best)")  # fmt: skip
    add("--file", help="words, one a line (the embedded names)")
    add("--text", help="of the case word: any text (the names, as a text)")
    add("--lines", type=int, default=6_000, help="of the text (6000)")
    add("--seeds", type=int, default=1, help="trainings at each rate (1)")
    add("--threads", type=int, default=1, help="CPU threads (1)")
    return parser.parse_args(arguments)


def case(name: str, args: argparse.Namespace) -> tuple[TrainConfig, Dataset]:
    """The settings of a case, and its words."""
    from mlpkern.lm import (
        PRESETS,
        TextOptions,
        TrainConfig,
        build_dataset,
        embedded_names,
        read_words,
    )

    if name != "word":
        words = read_words(args.file) if args.file else embedded_names()
        return PRESETS[name], build_dataset(words, block_size=PRESETS[name].block_size)
    text = TextOptions(level="word", min_count=5)
    lines = read_words(args.text, text=text) if args.text else embedded_names(text=text)
    config = TrainConfig(**WORD)
    return config, build_dataset(lines[: args.lines], block_size=config.block_size, text=text)


def dev_losses(configs: Sequence[TrainConfig], dataset: Dataset, seeds: int) -> list[float]:
    """The mean dev loss over the seeds at the end of a run of each of ``configs``."""
    from mlpkern.lm import Population

    losses = torch.zeros(len(configs), dtype=torch.float64)
    for seed in range(seeds):
        runs = Population([replace(config, seed=seed) for config in configs], dataset)
        runs.advance(1.0)
        losses += torch.tensor([metrics.loss for metrics in runs.dev().values()])
    return (losses / seeds).tolist()


def gap(name: str, args: argparse.Namespace) -> float:
    """Prints the grid of a case, and the recommended rate with its gap, which is returned."""
    from mlpkern.lm import find_lr

    config, dataset = case(name, args)
    seconds, found = timed(lambda: find_lr(config, dataset))
    print(f"{name}: {_told(found)}; {seconds:.1f} s", flush=True)
    grid = [config.lr[0][1] * factor for factor in FACTORS]
    configs = [config.with_settings(lr=rate) for rate in (*grid, found.recommended)]
    seconds, (*losses, own) = timed(lambda: dev_losses(configs, dataset, args.seeds))
    for rate, loss in zip(grid, losses, strict=True):
        print(f"    {rate:<9.4g} dev {loss:.4f}")
    best = min(losses)
    print(
        f"    {found.recommended:<9.4g} dev {own:.4f}, recommended: {own - best:+.4f} from the "
        f"best; {args.seeds} seeds, {seconds:.0f} s",
        flush=True,
    )
    return own - best


def _told(found: FoundLR) -> str:
    rounds = ", ".join(f"{one.best:.3g} of {one.steps} steps" for one in found.trials)
    return f"valley {found.curve.valley:.3g}, trials {rounds}"


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    gaps = [gap(name, args) for name in args.cases]
    return int(max(gaps) > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
