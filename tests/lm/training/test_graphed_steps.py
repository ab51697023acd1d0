"""The graph of the engine ``ops`` serves a chunk only where it reads what the chunk is about."""

from __future__ import annotations

import pytest
import torch
from support.lm.words import make_words

import mlpkern
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.training.engines import OpsEngine
from mlpkern.lm.training.ops import GraphedSteps
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

CONFIG = TrainConfig(embedding_dim=4, hidden=(9,), batch_size=8, steps=10)


@pytest.fixture
def steps() -> GraphedSteps:
    state = Trainer.start(CONFIG, build_dataset(make_words(), block_size=3), OpsEngine()).state
    return GraphedSteps(state.model, state.train, CONFIG.batch_size, capacity=5)


def serves(steps: GraphedSteps) -> bool:
    return steps.serves(steps.model, steps.train, CONFIG.batch_size)


def test_parameters_that_lie_elsewhere_are_not_trained_where_they_were(steps):
    assert serves(steps)
    with torch.no_grad():
        steps.model.embedding.weight.zero_()  # in place
    assert serves(steps)
    weight = steps.model.output.weight
    weight.data = weight.data.clone()
    assert not serves(steps)


def test_what_is_frozen_later_is_not_trained(steps):
    steps.model.embedding.weight.requires_grad_(False)
    assert not serves(steps)


def test_a_backend_or_precision_chosen_later_is_obeyed(steps):
    with mlpkern.use_backend("reference"):
        assert not serves(steps)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert not serves(steps)
    finally:
        torch.set_float32_matmul_precision(before)
    assert serves(steps)
