"""The command ``mlpkern find-lr``: a sweep, its curve as a file, its suggestions as lines."""

from __future__ import annotations

import argparse
import dataclasses
import time

from mlpkern.cli.output import check_output
from mlpkern.cli.session import (
    given_settings,
    print_words_and_model,
    set_threads,
    torch_device,
    words_of_arguments,
)
from mlpkern.lm import plots
from mlpkern.lm.atomic_write import write_bytes
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many.lr_finder import lr_finder
from mlpkern.lm.model.config import DEFAULT_PRESET, PRESETS, seed_for
from mlpkern.lm.model.mlp import MLPLanguageModel, check_models_fit
from mlpkern.lm.saved.run_words import make_dataset

__all__ = ["find_lr_command"]


def find_lr_command(args: argparse.Namespace) -> int:
    """``mlpkern find-lr``: a sweep of the learning rate, its curve and two suggestions."""
    device = torch_device(args.device)
    set_threads(args.threads)
    out = check_output(args.out, force=args.force) if args.out else None
    picture = check_output(args.png, force=args.force, flag="--png") if args.png else None
    if picture:
        plots.require_matplotlib()
    if args.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {args.seeds}")
    config = dataclasses.replace(PRESETS[args.preset or DEFAULT_PRESET], **given_settings(args))
    words, data = words_of_arguments(args)
    dataset = make_dataset(words, config, data).to(device)
    seeds = range(config.seed, config.seed + args.seeds)
    sizes = (len(dataset.vocab), config.block_size, config.embedding_dim, config.hidden)
    check_models_fit(args.seeds, *sizes)
    models = [
        MLPLanguageModel(*sizes, init=config.init, seed=seed_for(seed, "init")).to(device)
        for seed in seeds
    ]
    print_words_and_model(config, models[0], dataset, data)
    began = time.perf_counter()
    curve = lr_finder(
        models, dataset.splits["train"], low=args.low, high=args.high, steps=args.sweep_steps,
        batch_size=config.batch_size, seeds=seeds,
    )  # fmt: skip
    print(
        f"sweep   {args.sweep_steps} steps, {args.seeds} seeds, learning rate {args.low:g} to "
        f"{args.high:g}, {time.perf_counter() - began:.2f} s; diverged by then: "
        f"{curve.diverged}"
    )
    if out is not None:
        write_bytes(out, curve.to_csv().encode())
        print(f"saved in {out}")
    if picture is not None:
        write_bytes(picture, plots.png(plots.finder_plot(curve)))
        print(f"saved in {picture}")
    if curve.steepest is None or curve.valley is None:
        raise ConfigError(
            f"the loss never falls between --low {args.low:g} and --high {args.high:g}"
        )
    print(f"valley           {curve.valley:.3g}")
    print(f"steepest descent {curve.steepest:.3g}")
    return 0
