"""A short sweep of the language model."""

from __future__ import annotations

from support.lm.training import DATASET

from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.search.plan import SweepPlan
from mlpkern.lm.search.space import SearchSpace
from mlpkern.lm.words.data import Dataset

PLAN = SweepPlan(
    base=TrainConfig(
        block_size=2, embedding_dim=3, hidden=(8,), batch_size=8, steps=40, optimizer="adamw",
        lr=0.01,
    ),
    space=SearchSpace.from_json(
        {
            "hidden": [4, 8],
            "block_size": [2, 3],
            "lr": {"low": 0.001, "high": 0.1, "log": True},
            "input_dropout": {"low": 0.0, "high": 0.5},
        }
    ),
    trials=9, batch=9, shapes=3, rungs=(0.25, 0.5), cooldown=0.0, keep=3.0, minutes=None,
)  # fmt: skip
# Without a test split, so that a sweep that looks at it fails.
NO_TEST = Dataset(
    DATASET.vocab,
    {name: DATASET.splits[name] for name in ("train", "dev")},
    {name: DATASET.words[name] for name in ("train", "dev")},
    DATASET.digest,
)


def states(study):
    """The states of the trials, such as COMPLETE."""
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]
