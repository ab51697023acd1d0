"""The same sweep, trained by a population and by plain torch: trials a minute of each.

    python bench/sweep.py [--file names.txt]     # a minute on two cores

Optuna proposes one batch of trials in the default search space of `mlpkern sweep`, with its rungs
and a fraction of its steps. Both train these same trials through the same rungs, in turns: the
population of `mlpkern.lm`, and the engine `stock`, one trial after the other, with torch's own
AdamW and ``F.dropout`` (the generator of `mlpkern` is written for kernels; in plain torch it would
be the slowest part), with one thread and with all. What is not training is counted for neither:
proposals, the making of the windows, files.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from mlpkern.lm import Dataset, Metrics, SweepPlan, TrainConfig, TrainState

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/sweep.py", description="Trials a minute of a sweep, ours and stock."
    )
    parser.add_argument("--file", help="words, one a line (the embedded names)")
    parser.add_argument("--trials", type=int, default=16, help="of the batch (16)")
    parser.add_argument("--steps", type=int, default=400, help="of a whole trial (400)")
    parser.add_argument("--batch-size", type=int, default=256, help="rows of a step (256)")
    parser.add_argument("--repeat", type=int, default=3, help="times each is timed (3)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    return parser.parse_args(argv)


class StockTrainees:
    """What `mlpkern.lm.sweep` asks of a population, by the engine `stock`, a trial at a time."""

    def __init__(self, configs: Sequence[TrainConfig], dataset: Dataset) -> None:
        from mlpkern.lm import Dataset, StockEngine, Trainer

        self.states, self._dev = {}, {}
        for i, config in enumerate(configs):
            splits = dataset.splits_for(config.block_size)
            own = Dataset(dataset.vocab, splits, dataset.words, dataset.digest)
            self.states[i] = Trainer.start(config, own, StockEngine()).state
            self._dev[i] = splits["dev"]

    def advance(self, share: float) -> None:
        for state in self.states.values():
            steps = round(share * state.config.steps) - state.step
            train_stock(state, state.learning_rates(steps))

    def dev(self, cooldown: int = 0) -> dict[int, Metrics]:
        from mlpkern.lm import evaluate

        found = {}
        for i, state in self.states.items():
            if cooldown:
                copied = replace(state, model=copy.deepcopy(state.model))
                copied.optimizer = state.optimizer.clone()
                fall = 1 - torch.arange(1, cooldown + 1, dtype=torch.float64) / (cooldown + 1)
                train_stock(copied, state.learning_rates(1) * fall)
                state = copied
            found[i] = evaluate(state.model, self._dev[i])
        return found

    def keep(self, members: Collection[int]) -> None:
        self.states = {i: self.states[i] for i in members}


def train_stock(state: TrainState, rates: Tensor) -> None:
    """Steps at these learning rates (S,), as a user of plain torch writes them."""
    from mlpkern.lm.training.stock import stock_steps
    from mlpkern.lm.words.data import Split

    config = state.config

    def masked(layer: int, x: Tensor) -> Tensor:
        p = config.hidden_dropout if layer else config.input_dropout
        return F.dropout(x, p) if p else x

    train = Split(state.train.inputs.long(), state.train.targets.long())
    stock_steps(state, train, rates.tolist(), lambda _step: masked)


def seconds_of(
    make: Callable, configs: Sequence[TrainConfig], dataset: Dataset, plan: SweepPlan
) -> tuple[float, float]:
    """Wall and CPU time of the rungs of one batch, models and windows made before."""
    models = make(configs, dataset)
    began, used = time.perf_counter(), time.process_time()
    for share in (*plan.rungs, 1.0):
        models.advance(share)
        cooldown = round(plan.cooldown * share * configs[0].steps) if share < 1 else 0
        dev = models.dev(cooldown)
        if share < 1:
            ranked = sorted(dev, key=lambda i: dev[i].loss)
            models.keep(ranked[: math.ceil(len(ranked) / plan.keep)])
    return time.perf_counter() - began, time.process_time() - used


def main(argv: Sequence[str] | None = None) -> int:
    args = parsed(argv)
    from mlpkern.lm import Population, SweepPlan, build_dataset, embedded_names, read_words
    from mlpkern.lm.search.study import ask_batch, open_study

    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    words = read_words(args.file) if args.file else embedded_names()
    default = SweepPlan()
    sizes = {"steps": args.steps, "warmup": args.steps // 40, "batch_size": args.batch_size}
    base = replace(default.base, **sizes)
    plan = replace(default, base=base, batch=args.trials)
    dataset = build_dataset(words, block_size=8)
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(Path(folder) / "study.journal", plan, dataset.digest)
        trials = ask_batch(study, plan, args.trials)
        configs = [plan.space.config(plan.base, trial.params) for trial in trials]
    shapes = sorted({(c.block_size, c.embedding_dim, c.hidden[0]) for c in configs})
    print(f"{args.trials} trials of {args.steps} steps, N={plan.base.batch_size}; (T, D, H): "
          f"{', '.join(map(str, shapes))}")  # fmt: skip
    ours = f"population, {threads} thread{'s' * (threads > 1)}"
    stock = "stock, {} thread{}"
    cases = {ours: (Population, threads), stock.format(1, ""): (StockTrainees, 1)}
    if threads > 1:
        cases[stock.format(threads, "s")] = (StockTrainees, threads)
    for make, _ in cases.values():  # warm caches, libraries and thread pools
        seconds_of(make, [replace(c, steps=20, warmup=0) for c in configs], dataset, plan)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(args.repeat):
        for name, (make, count) in cases.items():
            torch.set_num_threads(count)
            times[name].append(seconds_of(make, configs, dataset, plan))
    torch.set_num_threads(threads)
    medians = {name: statistics.median(wall for wall, _ in t) for name, t in times.items()}
    for name, several in times.items():
        pace = 60 * args.trials / medians[name]
        spread = ", ".join(f"{wall:.3f}" for wall, _ in sorted(several))
        used = statistics.median(cpu for _, cpu in several)
        print(
            f"{name:<24} {medians[name]:8.3f} s a batch ({spread}), {used:.3f} s of CPU time"
            f"  {pace:7.1f} trials a minute"
        )
    best = min(seconds for name, seconds in medians.items() if name != ours)
    print(f"the population trains {best / medians[ours]:.2f} times as many as the faster stock")
    return 0


if __name__ == "__main__":
    sys.exit(main())
