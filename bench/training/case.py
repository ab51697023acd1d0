"""The cases of a training step: sizes, optimizer, data, start and floors.

A case trains M models on one core each or on all; the unit of its times is one step of one model.
Each model has a seed of its own and draws its minibatches from a generator of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from bench.core.case import Case, Cost

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm import Dataset, MLPLanguageModel, Split, TrainConfig, TrainState

SEED = 1
LR = {"sgd": 0.1, "adamw": 1e-3}
WEIGHT_DECAY = 0.01  # of AdamW, on embedding and weights; torch's default
BETAS, EPS = (0.9, 0.999), 1e-8
SYNTHETIC_ROWS = 50_000


@dataclass(frozen=True)
class TrainingCase(Case):
    """Sizes V, T, D, H, N and M of a training, and how many steps are taken at a time."""

    optimizer: str = "sgd"
    stock_steps: int = 100  # of a call of the loops, which may draw their minibatches at once
    run_steps: int = 1000  # of a call of train_steps
    checked_steps: int = 10
    one_core: bool = False  # whether train_steps keeps a model on one core (its steps are small)
    frozen_embedding: bool = False  # not trained; no gradient of it is computed

    def cores(self, threads: int) -> int:
        """How many cores train_steps works on."""
        return min(threads, self.sizes["M"]) if self.one_core else threads

    @property
    def rate(self) -> float:
        return LR[self.optimizer]

    @property
    def constant_rate(self) -> bool:
        """Whether every model takes every step at `rate`."""
        return type(self).rates is TrainingCase.rates

    @property
    def length(self) -> int:
        """Steps after which a model begins again from its start; 0 for never."""
        return 0

    @property
    def checked(self) -> TrainingCase:
        """The case whose first steps are checked."""
        return self

    def compared(self, results: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """What is checked of the losses and parameters after the checked steps."""
        return results

    def rates(self, m: int, first: int, steps: int) -> list[float]:
        """The learning rates of model m in the steps first, first + 1, …"""
        return [self.rate] * steps


Many = TypeVar("Many", bound=TrainingCase)


def training_case(
    quick: bool = False,
    *,
    V: int = 27,
    T: int = 3,
    D: int = 10,
    H: int = 200,
    N: int = 32,
    M: int = 1,
    **fields: Any,
) -> TrainingCase:
    """A case of these sizes; its name says what differs from one model under SGD."""
    sizes = {"V": V, "T": T, "D": D, "H": H, "N": N, "M": M}
    shape = shape_of(sizes) + (" AdamW" if fields.get("optimizer") == "adamw" else "")
    shape += f", {M} models" if M > 1 else ""
    shape += ", frozen embedding" if fields.get("frozen_embedding") else ""
    return TrainingCase("training_step", shape, "float32", sizes, quick, **fields)


def many_models_case(
    kind: type[Many], op: str, models: int, noun: str, sizes: Mapping[str, int], **steps: int
) -> Many:
    """The case ``op`` of M models of these sizes; ``noun``: what its name calls them."""
    shape = f"{shape_of(sizes)}, {models} {noun}"
    return kind(op, shape, "float32", {**sizes, "M": models}, one_core=True, **steps)


def shape_of(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{letter}={sizes[letter]}" for letter in "VTDHN")


LECTURE = training_case(True, one_core=True)
TWO_MODELS = training_case(True, M=2, one_core=True)
CASES = (
    LECTURE,
    TWO_MODELS,
    training_case(one_core=True, frozen_embedding=True),
    training_case(T=8, D=24, H=256, N=256, optimizer="adamw", stock_steps=10, run_steps=50),
    training_case(N=4096, stock_steps=5, run_steps=20),
    training_case(V=1000, D=30, H=1024, N=4096, stock_steps=1, run_steps=2, checked_steps=3),
    training_case(V=50_000, D=64, H=2048, N=256, stock_steps=1, run_steps=1, checked_steps=1,
                  slow=True),
)  # fmt: skip


def cost(case: TrainingCase) -> Cost:
    """Of one step of one model: six flops per weight of the two products and row (the dense count),
    four where the gradient of what the product reads is not needed; parameters and the
    moments of AdamW are read once and, unless frozen, written once."""
    rows, classes, hidden = case.sizes["N"], case.sizes["V"], case.sizes["H"]
    width = case.sizes["T"] * case.sizes["D"]
    products = width * hidden + hidden * classes
    parameters = 4 * (classes * case.sizes["D"] + products + hidden + classes)
    state = parameters * (3 if case.optimizer == "adamw" else 1)
    frozen = classes * case.sizes["D"] if case.frozen_embedding else 0
    unneeded = 2 * rows * width * hidden if case.frozen_embedding else 0
    rows_bytes = rows * (case.sizes["T"] + 1) * 8
    activations = 8 * rows * (width + hidden + classes)
    return Cost(
        bytes=2 * state - 4 * frozen + rows_bytes,
        flops=6 * rows * products - unneeded,
        footprint=case.sizes["M"] * (state + parameters + rows_bytes + activations),
        largest_output=4 * rows * max(hidden, classes),
    )


@cache
def names_dataset(context: int) -> Dataset:
    """The embedded names, of 27 symbols."""
    from mlpkern.lm import build_dataset, embedded_names

    names = build_dataset(embedded_names(), block_size=context, source="embedded names")
    if len(names.vocab) != 27:
        raise ValueError(f"the embedded names have {len(names.vocab)} symbols, expected 27")
    return names


@cache
def training_rows(classes: int, context: int) -> Split:
    """The embedded names for their 27 symbols, uniform random ids for other vocabularies."""
    from mlpkern.lm import Split

    if classes == 27:
        return names_dataset(context).splits["train"]
    generator = torch.Generator().manual_seed(SEED)
    dtype = torch.int16 if classes <= 1 << 15 else torch.int32

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(classes, shape, generator=generator, dtype=dtype)

    return Split(ids(SYNTHETIC_ROWS, context), ids(SYNTHETIC_ROWS))


def start(case: TrainingCase, m: int = 0) -> TrainState:
    """Model `m` at step 0: parameters, training rows and the generator of its minibatches."""
    from mlpkern.lm import TrainState

    class CaseState(TrainState):
        """Its learning rates are those of the case."""

        def learning_rates(self, steps: int) -> torch.Tensor:
            return torch.tensor(case.rates(m, self.step, steps), dtype=torch.float64)

    sizes = case.sizes
    model = deepcopy(_first_model(sizes["V"], sizes["T"], sizes["D"], sizes["H"], SEED + m))
    model.embedding.requires_grad_(not case.frozen_embedding)
    return CaseState.start(model, training_rows(sizes["V"], sizes["T"]), config(case, m))


def config(case: TrainingCase, m: int) -> TrainConfig:
    """The configuration of model `m` for the trainer of mlpkern, with its first learning rate."""
    from mlpkern.lm import TrainConfig

    sizes = case.sizes
    return TrainConfig(
        block_size=sizes["T"],
        embedding_dim=sizes["D"],
        hidden=(sizes["H"],),
        batch_size=sizes["N"],
        lr=((0, case.rates(m, 0, 1)[0]),),
        seed=SEED + m,
    )


@lru_cache(maxsize=1)  # drawing a hundred million parameters takes longer than a step
def _first_model(V: int, T: int, D: int, H: int, seed: int) -> MLPLanguageModel:
    from mlpkern.lm import MLPLanguageModel
    from mlpkern.lm.model.config import seed_for

    return MLPLanguageModel(V, T, D, H, seed=seed_for(seed, "init"))


def every_model(case: TrainingCase) -> range:
    return range(case.sizes["M"])
