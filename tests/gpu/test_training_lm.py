"""The language model on a GPU: engine `run`, populations, the learning-rate finder."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
import torch
from support.cuda import assert_same_bits, needs_gpu
from support.lm.words import make_words

import mlpkern
from mlpkern import MLPParams
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.words.data import build_dataset

pytestmark = [needs_gpu, pytest.mark.usefixtures("cuda_backend")]

CONFIG = TrainConfig(embedding_dim=4, hidden=(24,), batch_size=8, steps=120)


def dataset():
    return build_dataset(make_words(), block_size=3)


def test_auto_takes_one_call_a_chunk_and_follows_the_cpu():
    from mlpkern.lm.training.engines import RunEngine, choose_engine
    from mlpkern.lm.training.trainer import Trainer

    losses = []
    for device in ("cuda", "cpu"):
        with mlpkern.use_backend("cuda" if device == "cuda" else "reference"):
            engine, _ = choose_engine("auto", torch.device(device))
            assert isinstance(engine, RunEngine) or device == "cpu"
            trainer = Trainer.start(CONFIG, dataset(), RunEngine(), device=device)
            trainer.train()
            losses.append(torch.cat([p.detach().flatten().cpu() for p in
                                     trainer.state.model.parameters()]))  # fmt: skip
    torch.testing.assert_close(*losses, rtol=1e-2, atol=1e-3)


def test_a_population_has_the_bits_of_single_trainings():
    from mlpkern.lm import population
    from mlpkern.lm.training.engines import RunEngine
    from mlpkern.lm.training.trainer import Trainer

    data = dataset().to("cuda")
    configs = [replace(CONFIG, seed=seed, lr=((0, 0.02 * (seed + 1)),)) for seed in range(5)]
    for config, result in zip(configs, population(configs, data), strict=True):
        trainer = Trainer.start(config, data, RunEngine(), device="cuda")
        losses = trainer.engine.run_chunk(trainer.state, config.steps)
        assert torch.equal(result.losses, losses.cpu())
        own = MLPParams.from_module(trainer.state.model)
        assert_same_bits(MLPParams.from_module(result.model), own)


def test_the_sweep_of_the_learning_rate_follows_the_cpu():
    from mlpkern.lm import lr_finder
    from mlpkern.lm.model.mlp import MLPLanguageModel

    data = dataset()
    model = MLPLanguageModel(len(data.vocab), 3, 4, (24,), seed=1)
    found = lr_finder(
        model.to("cuda"), data.splits["train"].to("cuda"), steps=100, high=1.0, seeds=range(32)
    )
    with mlpkern.use_backend("reference"):
        expected = lr_finder(
            model.to("cpu"), data.splits["train"], steps=100, high=1.0, seeds=range(3)
        )
    torch.testing.assert_close(found.losses[:3], expected.losses, rtol=1e-3, atol=1e-3)


def test_chunks_end_within_a_second():
    from mlpkern.lm import population
    from mlpkern.lm.many import group as population_group

    ends = [time.perf_counter()]

    class Progress:
        def advance(self, steps: int) -> None:
            ends.append(time.perf_counter())

        def row(self, row: object) -> None: ...

        def close(self) -> None: ...

    data = dataset().to("cuda")
    population([replace(CONFIG, steps=10, seed=s) for s in range(8)], data)  # loads libraries
    ends[0] = time.perf_counter()
    steps = 40_000
    population([replace(CONFIG, steps=steps, seed=s) for s in range(8)], data, progress=Progress())
    longest = max(b - a for a, b in itertools.pairwise(ends))
    assert longest < 2 * population_group.CHUNK_SECONDS <= 1
