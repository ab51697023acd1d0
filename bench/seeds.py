"""Do two ways of training end at the same dev losses? Many seeds of each, and tests.

    python bench/seeds.py --file names.txt --seeds 20 --steps 20000
    python bench/seeds.py --file names.txt --seeds 44 --device cuda

On a CPU the engine `run`, which trains all seeds in one population, is compared with `stock`, one
after the other; on a GPU the population in float32 and by TF32 with that of the CPU. A seed starts
both from the same parameters and gives both the same batches, so their losses are compared twice:
as two samples (the Kolmogorov-Smirnov distance and the difference of the means, each against random
relabelings), and pair by pair (the mean difference of a seed, against random signs). A p-value far
below 0.05 says that they differ.

Exit status: 0 when no p-value is below --alpha, else 1; 2 for a wrong command line.
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

import torch
from torch import Tensor

from bench.core.case import Unavailable
from bench.core.timer import seconds_of
from bench.cuda.gpu import Gpu

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm import Dataset, TrainConfig

RELABELINGS = 20_000
DevLosses = Callable[["list[TrainConfig]", "Dataset"], Tensor]


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


def dev_losses_of_run(configs: list[TrainConfig], dataset: Dataset) -> Tensor:
    """(seeds,) float64: every training in one population."""
    from mlpkern.lm import population

    return torch.tensor([trained.dev.loss for trained in population(configs, dataset)]).double()


def dev_losses_of_stock(configs: list[TrainConfig], dataset: Dataset) -> Tensor:
    """(seeds,) float64: one training after the other, evaluated by plain torch."""
    from mlpkern.lm import StockEngine, Trainer, evaluate

    losses = []
    for config in configs:
        trainer = Trainer.start(config, dataset, StockEngine())
        trainer.train()
        losses.append(evaluate(trainer.state.model, dataset.splits["dev"]).loss)
        print(f"stock   seed {config.seed}: dev {losses[-1]:.4f}", flush=True)
    return torch.tensor(losses).double()


def dev_losses_on_gpu(precision: str, configs: list[TrainConfig], dataset: Dataset) -> Tensor:
    """(seeds,) float64: every training in one population on the backend cuda."""
    from bench.cuda.providers import OURS, with_cuda_backend

    with with_cuda_backend(OURS, precision):
        return dev_losses_of_run(configs, dataset.to(Gpu.device))


def sides(device: str) -> tuple[dict[str, DevLosses], tuple[str, DevLosses]]:
    """What is compared, by name, and with what."""
    if device == "cpu":
        return {"run": dev_losses_of_run}, ("stock", dev_losses_of_stock)
    gpu = {name: partial(dev_losses_on_gpu, name) for name in ("float32", "tf32")}
    return gpu, ("cpu", dev_losses_of_run)


def ks_distance(a: Tensor, b: Tensor) -> Tensor:
    """The largest distance of the empirical distribution functions of ``a`` and ``b`` (..., n)."""
    both = torch.cat([a, b], -1)
    below = [(part[..., None, :] <= both[..., None]).double().mean(-1) for part in (a, b)]
    return (below[0] - below[1]).abs().amax(-1)


def p_two_samples(a: Tensor, b: Tensor) -> tuple[float, float]:
    """The p-values of the Kolmogorov-Smirnov distance and of the difference of means.

    Each is the share of random relabelings of the pooled sample, the given one among them, whose
    value is at least as large.
    """
    generator = torch.Generator().manual_seed(0)
    both = torch.cat([a, b])
    order = torch.rand(RELABELINGS, len(both), generator=generator).argsort(1)
    left, right = both[order].split([len(a), len(b)], 1)
    ks = torch.cat(
        [ks_distance(x, y) for x, y in zip(left.split(500), right.split(500), strict=True)]
    )
    means = (left.mean(1) - right.mean(1)).abs()
    return _share(ks, ks_distance(a, b)), _share(means, (a.mean() - b.mean()).abs())


def p_pairs(a: Tensor, b: Tensor) -> float:
    """The p-value of the mean of ``a - b`` against random signs of the differences."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (RELABELINGS, len(a)), generator=generator).double() * 2 - 1
    return _share((signs * (a - b)).mean(1).abs(), (a - b).mean().abs())


def _share(drawn: Tensor, given: Tensor) -> float:
    return (int((drawn >= given * (1 - 1e-12)).sum()) + 1) / (len(drawn) + 1)


def describe(name: str, losses: Tensor) -> str:
    shown = " ".join(f"{value:.4f}" for value in losses.sort().values.tolist())
    return f"{name:<7} mean {losses.mean():.4f}, std {losses.std():.4f}: {shown}"


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    from mlpkern.lm import PRESETS, build_dataset, choose_engine, embedded_names, read_words

    if args.seeds < 2:
        print("--seeds must be at least 2", file=sys.stderr)
        return 2
    if args.device == "cuda":
        try:
            Gpu()
        except Unavailable as error:
            print(f"--device cuda: {error}", file=sys.stderr)
            return 2
    torch.set_num_threads(args.threads)
    words = read_words(args.file) if args.file else embedded_names()
    base = replace(
        PRESETS["lecture"],
        init=args.init,
        steps=args.steps,
        lr=((0, 0.1), (max(1, args.steps // 2), 0.01)),
        eval_every=0,
        checkpoint_every=0,
    )
    configs = [replace(base, seed=seed) for seed in range(args.seeds)]
    dataset = build_dataset(words, block_size=base.block_size)
    print(f"{args.seeds} seeds, {args.steps} steps, {args.init} init, {args.threads} threads")
    if args.device == "cpu":
        print(f"run     {choose_engine('run', torch.device('cpu'))[1]}")
    compared, (yardstick, train) = sides(args.device)
    found: dict[str, Tensor] = {}
    for name, work in {**compared, yardstick: train}.items():
        losses: list[Tensor] = []
        call = partial(_collect, losses, work, configs, dataset)
        print(f"{name:<7} {seconds_of(call, 1):.1f} s", flush=True)
        found[name] = losses[0]
    for name, losses_of in found.items():
        print(describe(name, losses_of))
    smallest = min(_compare(name, found[name], yardstick, found[yardstick]) for name in compared)
    return int(smallest < args.alpha)


def _collect(
    losses: list[Tensor], work: DevLosses, configs: list[TrainConfig], dataset: Dataset
) -> None:
    losses.append(work(configs, dataset))


def _compare(name: str, one: Tensor, yardstick: str, other: Tensor) -> float:
    """Prints the tests of two samples; the smallest p-value."""
    ks, means = p_two_samples(one, other)
    pairs = p_pairs(one, other)
    difference = one - other
    error = difference.std() / len(one) ** 0.5
    print(f"{name} against {yardstick}:")
    print(f"Kolmogorov-Smirnov distance {ks_distance(one, other):.3f}, p = {ks:.3f}")
    print(f"difference of the means {one.mean() - other.mean():+.5f}, p = {means:.3f}")
    print(f"mean of the pairs {difference.mean():+.5f} ± {error:.5f}, p = {pairs:.3f}")
    return min(ks, means, pairs)


if __name__ == "__main__":
    raise SystemExit(main())
