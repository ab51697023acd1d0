"""``mlpkern train --overfit-batch``: the sanity check as printed lines; nothing is written."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from mlpkern.cli.session import (
    given_settings,
    print_words_and_model,
    set_threads,
    torch_device,
    words_of_arguments,
)
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import DEFAULT_PRESET, PRESETS
from mlpkern.lm.saved.run_words import make_dataset
from mlpkern.lm.training.engines import choose_engine
from mlpkern.lm.training.overfit import overfit_batch
from mlpkern.lm.training.trainer import Trainer

__all__ = ["overfit_command"]

STEPS = 1_000  # unless --steps says otherwise


def overfit_command(args: argparse.Namespace) -> int:
    """Trains on one batch, prints the loss beside its floor."""
    for flag in ("resume", "out", "force", "tensorboard"):
        if getattr(args, flag):
            raise ConfigError(f"--{flag} does not go with --overfit-batch, which writes nothing")
    device = torch_device(args.device)
    set_threads(args.threads)
    preset = dataclasses.replace(PRESETS[args.preset or DEFAULT_PRESET], steps=STEPS)
    config = dataclasses.replace(preset, **given_settings(args))
    words, data = words_of_arguments(args)
    dataset = make_dataset(words, config, data)
    engine, why = choose_engine(args.engine or "auto", device, config)
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
