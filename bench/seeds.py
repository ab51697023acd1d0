"""Do two ways of training end at the same dev losses? Many seeds of each, and tests.

    python bench/seeds.py --file names.txt --seeds 20 --steps 20000
    python bench/seeds.py --file names.txt --seeds 44 --device cuda

On a CPU the engine `run`, which trains all seeds in one population, is compared with `stock`, one
after the other; on a GPU the population in float32 and by TF32 with that of the CPU. A seed starts
both from the same parameters and gives both the same minibatches, so their losses are compared
twice: as two samples (the Kolmogorov-Smirnov test, and the difference of the means against random
relabelings) and pair by pair (the mean difference against random signs). A p-value far below 0.05
says that they differ.

Needs SciPy. Exit status: 0 when no p-value is below --alpha, else 1; 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.timer import timed
from bench.cuda.gpu import Gpu, find_gpu

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm import Dataset, TrainConfig

RELABELINGS = 20_000
Losses = NDArray[np.float64]
DevLosses = Callable[["list[TrainConfig]", "Dataset"], "list[float]"]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/seeds.py", description="Compares the dev losses of two engines over many seeds."
    )
    add = parser.add_argument
    add("--file", help="words, one a line (default: the embedded names)")
    add("--seeds", type=int, default=20, help="seeds of each engine (20)")
    add("--steps", type=int, default=20_000, help="steps of each training (20000)")
    add("--init", choices=("lecture", "scaled"), default="lecture", help="(lecture)")
    add("--threads", type=int, default=1, help="CPU threads (1)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="what is compared (cpu)")
    add("--alpha", type=float, default=0.01, help="a p-value below it is a failure (0.01)")
    return parser.parse_args(arguments)


def dev_losses_of_run(configs: list[TrainConfig], dataset: Dataset) -> list[float]:
    """Every training in one population."""
    from mlpkern.lm import population

    return [trained.dev.loss for trained in population(configs, dataset)]


def dev_losses_of_stock(configs: list[TrainConfig], dataset: Dataset) -> list[float]:
    """One training after the other, evaluated by plain torch."""
    from mlpkern.lm import StockEngine, Trainer, evaluate

    losses = []
    for config in configs:
        trainer = Trainer.start(config, dataset, StockEngine())
        trainer.train()
        losses.append(evaluate(trainer.state.model, dataset.splits["dev"]).loss)
        print(f"stock   seed {config.seed}: dev {losses[-1]:.4f}", flush=True)
    return losses


def dev_losses_on_gpu(precision: str, configs: list[TrainConfig], dataset: Dataset) -> list[float]:
    """Every training in one population on the backend cuda."""
    from bench.cuda.providers import OURS, with_cuda_backend

    with with_cuda_backend(OURS, precision):
        return dev_losses_of_run(configs, dataset.to(Gpu.device))


def sides(device: str) -> tuple[dict[str, DevLosses], tuple[str, DevLosses]]:
    """What is compared, by name, and with what."""
    if device == "cpu":
        return {"run": dev_losses_of_run}, ("stock", dev_losses_of_stock)
    gpu = {name: partial(dev_losses_on_gpu, name) for name in ("float32", "tf32")}
    return gpu, ("cpu", dev_losses_of_run)


def p_means(a: Losses, b: Losses, *, pairs: bool) -> float:
    """The p-value of the difference of the means against random relabelings of both samples.

    With `pairs` each pair is relabeled by itself: random signs of the differences.
    """
    from scipy import stats

    return float(
        stats.permutation_test(
            (a, b),
            lambda x, y, axis: np.abs(x.mean(axis) - y.mean(axis)),
            permutation_type="samples" if pairs else "independent",
            vectorized=True,
            n_resamples=RELABELINGS,
            batch=1000,
            alternative="greater",
            rng=np.random.default_rng(0),
        ).pvalue
    )


def describe(name: str, losses: Losses) -> str:
    shown = " ".join(f"{value:.4f}" for value in np.sort(losses))
    return f"{name:<7} mean {losses.mean():.4f}, std {losses.std(ddof=1):.4f}: {shown}"


def compare(name: str, a: Losses, other: str, b: Losses) -> float:
    """Prints the tests of two samples; the smallest p-value."""
    from scipy import stats

    ks = stats.ks_2samp(a, b)
    means, pairs = p_means(a, b, pairs=False), p_means(a, b, pairs=True)
    difference = a - b
    print(f"{name} against {other}:")
    print(f"Kolmogorov-Smirnov distance {ks.statistic:.3f}, p = {ks.pvalue:.3f}")
    print(f"difference of the means {difference.mean():+.5f}, p = {means:.3f}")
    error = stats.sem(difference)
    print(f"mean of the pairs {difference.mean():+.5f} ± {error:.5f}, p = {pairs:.3f}")
    return min(float(ks.pvalue), means, pairs)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    from mlpkern.lm import PRESETS, build_dataset, choose_engine, embedded_names, read_words

    if args.seeds < 2:
        print("--seeds must be at least 2", file=sys.stderr)
        return 2
    if args.device == "cuda":
        find_gpu("bench/seeds.py: --device cuda")
    torch.set_num_threads(args.threads)
    words = read_words(args.file) if args.file else embedded_names()
    base = replace(
        PRESETS["lecture"],
        init=args.init,
        steps=args.steps,
        lr=((0, 0.1), (0.5, 0.01)),
        eval_every=0,
        checkpoint_every=0,
    )
    configs = [replace(base, seed=seed) for seed in range(args.seeds)]
    dataset = build_dataset(words, block_size=base.block_size)
    print(f"{args.seeds} seeds, {args.steps} steps, {args.init} init, {args.threads} threads")
    if args.device == "cpu":
        print(f"run     {choose_engine('run', torch.device('cpu'))[1]}")
    compared, (other, train) = sides(args.device)
    found: dict[str, Losses] = {}
    for name, work in {**compared, other: train}.items():
        seconds, losses = timed(partial(work, configs, dataset))
        print(f"{name:<7} {seconds:.1f} s", flush=True)
        found[name] = np.array(losses)
    for name, losses_of in found.items():
        print(describe(name, losses_of))
    smallest = min(compare(name, found[name], other, found[other]) for name in compared)
    return int(smallest < args.alpha)


if __name__ == "__main__":
    raise SystemExit(main())
