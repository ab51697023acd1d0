"""``mlpkern find-lr``: a sweep of the learning rate, its curve as a file, two suggestions."""

from __future__ import annotations

import argparse
import dataclasses
import time

from mlpkern.cli.flags import add_device, add_group, add_setting, add_text, add_words
from mlpkern.cli.values import number, path, whole
from mlpkern.lm.model.config import PRESETS

SUMMARY = "sweep the learning rate and suggest one"
EPILOG = """\
examples:
  mlpkern find-lr                                     the embedded names
  mlpkern find-lr names.txt --preset lecture --seeds 8 --out lr.csv --png lr.png

Every seed trains while the learning rate grows from --low to --high, all of them at once. The last
two lines printed are the rate at which the median loss is lowest, and the one at which it falls
fastest, which is more cautious.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda args: bool(args.out or args.png))
    add_words(parser)
    add_text(parser)
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS), help="settings of the model (quick)")
    add("--out", type=path, metavar="CSV", help="write the curve to this file")
    add("--png", type=path, metavar="PNG", help="draw it: median, band over the seeds, suggestions")
    add("--force", action="store_true", help="replace files that are already there")
    add_group(parser, "model")
    sweep = parser.add_argument_group("sweep")
    add = sweep.add_argument
    add("--low", type=number, default=1e-4, metavar="LR", help="first learning rate (0.0001)")
    add("--high", type=number, default=10.0, metavar="LR", help="last learning rate (10)")
    add("--steps", type=whole, default=1_000, metavar="S", dest="sweep_steps", help="steps (1000)")
    add_setting(sweep, "batch_size")
    add("--seeds", type=whole, default=1, metavar="M", help="seeds side by side (1)")
    add_setting(sweep, "seed", help="the first of them (0)")
    add_setting(sweep, "split_seed")
    add_device(parser, kernels=False)


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import check_output
    from mlpkern.cli.session import (
        chosen_config,
        chosen_device,
        chosen_words,
        print_words_and_model,
    )
    from mlpkern.lm.atomic_write import write_bytes
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.many.lr_finder import lr_finder
    from mlpkern.lm.model.mlp import check_models_fit
    from mlpkern.lm.model.state import initial_model
    from mlpkern.lm.plots import finder_plot, png, require_matplotlib

    device = chosen_device(args)
    out = check_output(args.out, force=args.force) if args.out else None
    picture = check_output(args.png, force=args.force, flag="--png") if args.png else None
    if picture:
        require_matplotlib()
    if args.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {args.seeds}")
    config = chosen_config(args)
    _, dataset, data = chosen_words(args, config)
    dataset, symbols = dataset.to(device), len(dataset.vocab)
    check_models_fit(args.seeds, symbols, config.block_size, config.embedding_dim, config.hidden)
    seeds = range(config.seed, config.seed + args.seeds)
    models = [
        initial_model(dataclasses.replace(config, seed=seed), symbols).to(device) for seed in seeds
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
        write_bytes(picture, png(finder_plot(curve)))
        print(f"saved in {picture}")
    if curve.steepest is None or curve.valley is None:
        raise ConfigError(
            f"the loss never falls between --low {args.low:g} and --high {args.high:g}"
        )
    print(f"valley           {curve.valley:.3g}")
    print(f"steepest descent {curve.steepest:.3g}")
    return 0
