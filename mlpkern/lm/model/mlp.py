"""The language model of Bengio et al. (2003) as the makemore lecture builds it.

    x      = embedding of the T ids of the context, side by side    (N, T*D)
    h      = tanh(x W1' + b1), then more hidden layers if any        (N, H)
    logits = h W2' + b2                                              (N, V)
    loss   = mean over rows of  log(sum_v exp(logits_v)) - logits_target

Sizes: N rows, T context length, D embedding width, H hidden width, V vocabulary.

Source: Bengio, Ducharme, Vincent, Jauvin, "A neural probabilistic language model", JMLR 3 (2003),
equations 1-2 without the direct connections; Karpathy, "Building makemore part 2: MLP".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mlpkern
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.memory import check_fits
from mlpkern.lm.model.config import INITS
from mlpkern.lm.model.setting import check_seed

KERNELS = ("fused", "stock")


def parameter_shapes(
    vocab_size: int, block_size: int, embedding_dim: int, hidden: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a model's parameters, in the order of its ``state_dict``."""
    widths = [block_size * embedding_dim, *hidden]
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab_size, embedding_dim)}
    for i, (fan_in, width) in enumerate(pairwise(widths)):
        shapes |= {f"hidden.{i}.weight": (width, fan_in), f"hidden.{i}.bias": (width,)}
    return shapes | {"output.weight": (vocab_size, widths[-1]), "output.bias": (vocab_size,)}


def check_models_fit(
    models: int, vocab_size: int, block_size: int, embedding_dim: int, hidden: Sequence[int]
) -> None:
    """ConfigError unless the parameters of so many models fit into memory."""
    shapes = parameter_shapes(vocab_size, block_size, embedding_dim, hidden)
    count = sum(map(math.prod, shapes.values()))
    what = "a model" if models == 1 else f"{models} models"
    sizes = f"T={block_size}, D={embedding_dim}, H={'+'.join(map(str, hidden))}"
    check_fits(f"{what} of {count} parameters ({sizes})", 4 * count * models)


class MLPLanguageModel(nn.Module):
    """Next-symbol logits from the ids of the T symbols before.

    Args:
        vocab_size: V, at least 1.
        block_size: T, at least 1.
        embedding_dim: D, at least 1.
        hidden: H, or the width of each hidden layer in order.
        kernels: "fused" computes with the ops of `mlpkern`, "stock" with the plain torch
            expressions of the lecture. Parameters, their names and ``state_dict`` are the same, and
            the attribute may be changed at any time.
        init: "scaled" keeps the tanh units out of saturation and the first logits near 0: embedding
            N(0, 1), hidden weights N(0, (5/3)^2 / fan_in), output weights N(0, 0.01 / fan_in),
            biases 0. "lecture" is part 2 of the lecture to the letter: every parameter N(0, 1).
        seed: of the initial parameters; the global generator is not touched.

    Parameters: ``embedding.weight`` (V, D); ``hidden.0.weight`` (H, T*D), ``hidden.0.bias`` (H,),
    …; ``output.weight`` (V, H), ``output.bias`` (V,). All float32.
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        embedding_dim: int,
        hidden: int | Sequence[int],
        *,
        kernels: str = "fused",
        init: str = "scaled",
        seed: int = 0,
    ) -> None:
        super().__init__()
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        for name, sizes in {
            "vocab_size": [vocab_size],
            "block_size": [block_size],
            "embedding_dim": [embedding_dim],
            "hidden": widths,
        }.items():
            if not sizes or min(sizes) < 1:
                raise ConfigError(f"MLPLanguageModel: {name} must be at least 1, got {sizes}")
        check_models_fit(1, vocab_size, block_size, embedding_dim, widths)
        self.block_size = block_size
        self.kernels = kernels
        fan_in = [block_size * embedding_dim, *widths]
        where: Any = {"dtype": torch.float32, "device": "cpu"}  # not torch's defaults
        with torch.random.fork_rng(devices=[]):  # the layers' own initial values are not used
            self.embedding = nn.Embedding(vocab_size, embedding_dim, **where)
            self.hidden = nn.ModuleList(nn.Linear(a, b, **where) for a, b in pairwise(fan_in))
            self.output = nn.Linear(fan_in[-1], vocab_size, **where)
        self.reset_parameters(init=init, seed=seed)

    @property
    def kernels(self) -> str:
        """ "fused" or "stock": which expressions `forward` and `loss` use."""
        return self._kernels

    @kernels.setter
    def kernels(self, value: str) -> None:
        if value not in KERNELS:
            raise ConfigError(f"kernels must be one of {', '.join(KERNELS)}, got {value!r}")
        self._kernels = value

    @property
    def vocab_size(self) -> int:
        """V, the number of logits."""
        return self.output.out_features

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.output.weight.device

    def hidden_parameters(self) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of each hidden layer."""
        return [(layer.weight, layer.bias) for layer in cast(Iterable[nn.Linear], self.hidden)]

    @torch.no_grad()
    def reset_parameters(self, *, init: str, seed: int) -> None:
        """Draws new values of all parameters, in the order embedding, hidden layers, output."""
        if init not in INITS:
            raise ConfigError(f"init must be one of {', '.join(INITS)}, got {init!r}")
        check_seed("seed", seed)
        generator = torch.Generator().manual_seed(seed)

        def normal_(parameter: Tensor, std: float) -> None:
            # drawn on the CPU, so that a seed gives the same model on every device
            drawn = torch.randn(
                parameter.shape, generator=generator, dtype=torch.float32, device="cpu"
            )
            parameter.copy_(drawn.mul_(std))

        normal_(self.embedding.weight, 1.0)
        lecture = init == "lecture"
        output = (self.output.weight, self.output.bias)
        for weight, bias in [*self.hidden_parameters(), output]:
            gain = 0.1 if weight is self.output.weight else 5 / 3
            normal_(weight, 1.0 if lecture else gain / weight.shape[1] ** 0.5)
            normal_(bias, 1.0 if lecture else 0.0)

    def forward(self, ids: Tensor) -> Tensor:
        """The logits (..., V) for the contexts ``ids`` (..., T) of any integer dtype."""
        if ids.shape[-1:] != (self.block_size,):
            raise ValueError(
                f"MLPLanguageModel: ids must be (..., {self.block_size}), got {tuple(ids.shape)}"
            )
        if self.kernels == "fused":
            x = mlpkern.embedding_gather(ids, self.embedding.weight)  # (..., T*D)
            for weight, bias in self.hidden_parameters():
                x = mlpkern.linear_tanh(x, weight, bias)  # (..., H)
        else:
            x = F.embedding(_int64(ids), self.embedding.weight).flatten(-2)
            for weight, bias in self.hidden_parameters():
                x = torch.tanh(F.linear(x, weight, bias))
        return F.linear(x, self.output.weight, self.output.bias)

    def loss(self, ids: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        """The cross-entropy of the rows ``ids`` (N, T) against ``targets`` (N,), in nats."""
        return self.loss_of_logits(self(ids), targets, reduction=reduction)

    def loss_of_logits(self, logits: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        """The same loss as `loss`, from logits (N, V) already computed."""
        if self.kernels == "fused":
            return mlpkern.cross_entropy(logits, targets, reduction=reduction)
        return F.cross_entropy(logits, _int64(targets), reduction=reduction)

    def extra_repr(self) -> str:
        return f"block_size={self.block_size}, kernels={self.kernels!r}"


def _int64(ids: Tensor) -> Tensor:
    """Stock torch takes no small integers as targets, and only int32 and int64 as ids."""
    return ids if ids.dtype == torch.int64 else ids.long()
