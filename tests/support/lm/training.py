"""A short training of the language model, whole or in chunks, and comparisons of two."""

from __future__ import annotations

import pytest
import torch
from support.lm.words import make_words

from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.log import read_log
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.engines import ENGINES
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

CONFIG = TrainConfig(
    embedding_dim=4, hidden=(24,), batch_size=8, steps=600, lr=((0, 0.1), (400, 0.02)),
    log_every=50, eval_every=200, checkpoint_every=150,
)  # fmt: skip
DATASET = build_dataset(make_words(), block_size=3)
ADAMW = {"optimizer": "adamw", "lr": ((0, 0.01),), "schedule": "cosine", "warmup": 20}
OPTIONS = {  # of a step
    "momentum": {"momentum": 0.8, "lr": ((0, 0.05),)},
    "decay": {"weight_decay": 0.01},
    "clipping": {"max_grad_norm": 0.2},
    "smoothing": {"label_smoothing": 0.1},
    "dropout": {"input_dropout": 0.2, "hidden_dropout": 0.3},
    "adamw": {**ADAMW, "weight_decay": 0.05},
    "everything": {
        **ADAMW, "weight_decay": 0.05, "max_grad_norm": 0.5, "label_smoothing": 0.05,
        "input_dropout": 0.1, "hidden_dropout": 0.2, "hidden": (16, 9),
    },
}  # fmt: skip

engine_names = pytest.mark.parametrize("name", list(ENGINES))


def changed(**settings):
    """CONFIG with other settings."""
    return TrainConfig(**{**CONFIG.to_json(), **settings})


def trainer(name="stock", config=CONFIG, dataset=DATASET, **options):
    return Trainer.start(config, dataset, ENGINES[name](), **options)


def losses_of(name, steps, config=CONFIG, cuts=()):
    """The losses of the first ``steps`` steps and the state after them; ``cuts`` end chunks."""
    run = trainer(name, config)
    ends = [*cuts, steps]
    losses = []
    for end in ends:
        losses.append(run.engine.run_chunk(run.state, end - run.state.step))
        assert run.state.step == end
    return torch.cat(losses), run.state


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def finished(path, name="stock", config=CONFIG):
    run = trainer(name, config, run=RunFolder(path))
    run.train()
    return run


def log_without_seconds(path):
    return [(r.step, r.lr, r.train_loss, r.dev_loss) for r in read_log(path)]
