"""``mlpkern train --overfit-batch``: the sanity check as printed lines; nothing is written."""

from __future__ import annotations

import argparse
import sys

from mlpkern.cli.session import chosen_config, chosen_device, chosen_words, print_words_and_model
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.training.engines import choose_engine
from mlpkern.lm.training.overfit import overfit_batch
from mlpkern.lm.training.trainer import Trainer

STEPS = 1_000  # unless --steps says otherwise


def run_overfit(args: argparse.Namespace) -> int:
    """Trains on one batch, prints the loss beside its floor."""
    for flag in ("resume", "out", "force", "tensorboard"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag} does not go with --overfit-batch, which writes nothing")
    device = chosen_device(args)
    config = chosen_config(args, steps=STEPS)
    _, dataset, data = chosen_words(args, config)
    engine, why = choose_engine(args.engine or "auto", device)
    model = Trainer.start(config, dataset, engine, device=device).state.model
    print_words_and_model(config, model, dataset, data)
    print(f"engine  {engine.name} on {device}: {why}")
    width = len(str(config.steps))

    def report(step: int, loss: float) -> None:
        print(f"step {step:>{width}}/{config.steps}  loss {loss:.4f}", flush=True)

    result = overfit_batch(config, dataset, engine, device=device, report=report)
    rows = len(result.batch)
    print(f"batch   the same {rows} rows in every step: {result.contexts} different contexts")
    print(
        f"floor   {result.floor:.4f}, not 0: {result.ambiguous} of the contexts occur with "
        "different targets, and no model can be sure of all of them"
        if result.ambiguous
        else "floor   0: every context of this batch has one target only"
    )
    print(f"loss    {result.loss:.4f}, {result.loss - result.floor:.4f} above the floor")
    if result.diverged:
        print(f"mlpkern train: error: {result.diverged}", file=sys.stderr)
    return 1 if result.diverged else 0
