"""A population to keep in a folder, and the comparison of two."""

from __future__ import annotations

import csv
from dataclasses import replace

import torch
from support.lm.population import ADAMW, BASE
from support.lm.training import same_bits
from support.lm.words import make_words

from mlpkern import lm

STEPS = 3_000
FEW = lm.build_dataset(make_words(80), block_size=3)  # that a model overfits, so patience ends it
LONG = replace(BASE, hidden=(32,), batch_size=16, steps=STEPS, lr=((0, 0.3),), eval_every=100)
CONFIGS = [
    replace(LONG, patience=3),
    replace(LONG, seed=1),
    replace(LONG, seed=2, hidden=(9, 5)),
    replace(ADAMW, steps=STEPS, seed=3, hidden_dropout=0.1, eval_every=70),
    replace(LONG, seed=4, momentum=0.5, lr=((0, 0.1),)),
]
OPTIONS = {"keep_best": True, "max_points": 37}


def agree(some, others):
    """That the models of both are the same, to the bit."""
    for one, other in zip(some, others, strict=True):
        assert one.config == other.config
        assert (one.dev, one.stopped, one.diverged) == (other.dev, other.stopped, other.diverged)
        assert (one.best.step, one.best.dev) == (other.best.step, other.best.dev)
        assert torch.equal(one.losses, other.losses)
        for a, b in ((one.state, other.state), (one.best.state, other.best.state)):
            assert a.step == b.step
            assert same_bits(a.model.state_dict(), b.model.state_dict())
            assert same_bits(a.optimizer.state_dict(), b.optimizer.state_dict())
            assert torch.equal(a.generator.get_state(), b.generator.get_state())


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))
