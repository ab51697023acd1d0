"""Configurations of several shapes, and a training of one alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from support.lm.words import make_words

from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

WORDS = make_words()
DATASET = build_dataset(WORDS, block_size=3)
BASE = TrainConfig(
    embedding_dim=4, hidden=(16,), batch_size=8, steps=150, lr=((0, 0.1), (100, 0.02))
)
ADAMW = replace(BASE, optimizer="adamw", lr=((0, 0.01),), schedule="cosine")
# shapes alternate, so that groups must be put back into this order
MIXED = [
    BASE,
    replace(BASE, hidden=(9, 5)),
    replace(BASE, seed=1),
    replace(BASE, batch_size=3, seed=2),
    replace(BASE, seed=2, lr=((0, 0.3), (50, 0.001)), init="lecture"),
    replace(BASE, steps=70),
    replace(BASE, block_size=2, seed=4),
    replace(BASE, hidden=(9, 5), seed=5),
    replace(BASE, seed=5, input_dropout=0.2),
    replace(ADAMW, seed=6, weight_decay=0.1),
    replace(ADAMW, seed=7, hidden_dropout=0.3, lr=((0, 0.02),), warmup=9),
    replace(BASE, seed=8, weight_decay=0.01),
    replace(BASE, seed=8, momentum=0.5, max_grad_norm=0.3, label_smoothing=0.1),
]


def alone(config):
    """(model, losses, metrics on dev) of one training with the engine `run`."""
    dataset = build_dataset(WORDS, block_size=config.block_size)
    trainer = Trainer.start(config, dataset, RunEngine())
    losses = trainer.engine.run_chunk(trainer.state, config.steps)
    model = trainer.state.model
    return model, losses, evaluate(model, dataset.splits["dev"])


def same_bits(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
