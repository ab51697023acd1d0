"""The cases of a training step: sizes, optimizer, data, start and floors, the same for everyone.

A case trains M models on one core each or on all; the unit of its times is one step of one model.
Models start from seeds of their own and draw their batches from generators of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from bench.case import Case, Cost

if TYPE_CHECKING:  # mlpkern.lm is imported where it is used
    from mlpkern.lm.data import Split
    from mlpkern.lm.state import TrainState

SEED = 1
LR = {"sgd": 0.1, "adamw": 1e-3}
WEIGHT_DECAY = 0.01  # of AdamW, on embedding and weights; torch's default
BETAS, EPS = (0.9, 0.999), 1e-8
SYNTHETIC_ROWS = 50_000


@dataclass(frozen=True)
class TrainingCase(Case):
    """Sizes V, T, D, H, N and M of a training, and how many steps are taken at a time."""

    optimizer: str = "sgd"
    stock_steps: int = 100  # that a call of the loops makes, and how many batches it draws at once
    run_steps: int = 1000  # the same of train_steps
    checked_steps: int = 10
    one_core: bool = False  # whether train_steps keeps a model on one core (its steps are small)

    def cores(self, threads: int) -> int:
        """How many cores train_steps works on."""
        return min(threads, self.sizes["M"]) if self.one_core else threads

    @property
    def rate(self) -> float:
        return LR[self.optimizer]


def training_case(
    quick: bool = False,
    *,
    V: int = 27,
    T: int = 3,
    D: int = 10,
    H: int = 200,
    N: int = 32,
    M: int = 1,
    optimizer: str = "sgd",
    stock_steps: int = 100,
    run_steps: int = 1000,
    checked_steps: int = 10,
    one_core: bool = False,
) -> TrainingCase:
    """A case of these sizes; its name says what differs from one model under SGD."""
    shape = f"V={V} T={T} D={D} H={H} N={N}"
    shape += " AdamW" if optimizer == "adamw" else ""
    shape += f", {M} models" if M > 1 else ""
    sizes = {"V": V, "T": T, "D": D, "H": H, "N": N, "M": M}
    return TrainingCase(
        "training_step",
        shape,
        "float32",
        sizes,
        quick,
        optimizer=optimizer,
        stock_steps=stock_steps,
        run_steps=run_steps,
        checked_steps=checked_steps,
        one_core=one_core,
    )


LECTURE = training_case(True, one_core=True)
TWO_MODELS = training_case(True, M=2, one_core=True)
CASES = (
    LECTURE,
    TWO_MODELS,
    training_case(T=8, D=24, H=256, N=256, optimizer="adamw", stock_steps=10, run_steps=50),
    training_case(N=4096, stock_steps=5, run_steps=20),
    training_case(V=1000, D=30, H=1024, N=4096, stock_steps=1, run_steps=2, checked_steps=3),
)


def cost(case: TrainingCase) -> Cost:
    """Of one step of one model: six flops per weight of the two products and row (the dense count);
    parameters, and what AdamW keeps of them, read and written once."""
    rows, classes, hidden = case.sizes["N"], case.sizes["V"], case.sizes["H"]
    width = case.sizes["T"] * case.sizes["D"]
    products = width * hidden + hidden * classes
    parameters = 4 * (classes * case.sizes["D"] + products + hidden + classes)
    state = parameters * (3 if case.optimizer == "adamw" else 1)
    rows_bytes = rows * (case.sizes["T"] + 1) * 8
    activations = 8 * rows * (width + hidden + classes)
    return Cost(
        bytes=2 * state + rows_bytes,
        flops=6 * rows * products,
        footprint=case.sizes["M"] * (state + parameters + rows_bytes + activations),
        largest_output=4 * rows * max(hidden, classes),
    )


@cache
def training_rows(classes: int, context: int) -> Split:
    """The embedded names for their 27 symbols, uniform random ids for other vocabularies."""
    from mlpkern.lm.data import Split, build_dataset, embedded_names

    if classes == 27:
        names = build_dataset(embedded_names(), block_size=context, source="embedded names")
        if len(names.vocab) != classes:
            raise ValueError(f"the embedded names have {len(names.vocab)} symbols, expected 27")
        return names.splits["train"]
    generator = torch.Generator().manual_seed(SEED)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(classes, shape, generator=generator, dtype=torch.int16)

    return Split(ids(SYNTHETIC_ROWS, context), ids(SYNTHETIC_ROWS))


def start(case: TrainingCase, m: int = 0) -> TrainState:
    """Model `m` at step 0: parameters, training rows and the generator of the batches."""
    from mlpkern.lm.config import TrainConfig, seed_for
    from mlpkern.lm.model import MLPLanguageModel
    from mlpkern.lm.state import TrainState

    sizes = case.sizes
    config = TrainConfig(
        block_size=sizes["T"],
        embedding_dim=sizes["D"],
        hidden=(sizes["H"],),
        batch_size=sizes["N"],
        lr=((0, case.rate),),
        seed=SEED + m,
    )
    model = MLPLanguageModel(
        sizes["V"], sizes["T"], sizes["D"], sizes["H"], seed=seed_for(SEED + m, "init")
    )
    return TrainState.start(model, training_rows(sizes["V"], sizes["T"]), config)


def every_model(case: TrainingCase) -> range:
    return range(case.sizes["M"])
