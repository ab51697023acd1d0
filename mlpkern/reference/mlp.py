"""The logits of an MLP in plain torch, from its parameters as a list of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mlpkern.reference.philox import dropout_mask

#: ``dropout(layer, x)`` is x (N, units) times its mask: layer 0 is the embedded input, layer l the
#: output of hidden layer l.
Dropout = Callable[[int, Tensor], Tensor]


def no_dropout(_layer: int, x: Tensor) -> Tensor:
    """``x`` itself."""
    return x


def logits(parameters: Sequence[Tensor], ids: Tensor, dropout: Dropout = no_dropout) -> Tensor:
    """The logits (N, C) of the contexts ``ids`` (N, T), int32 or int64.

    ``parameters``: embedding (V, D), then weight and bias of each hidden layer and of the output.
    """
    embedding, *hidden, weight_out, bias_out = parameters
    x = dropout(0, F.embedding(ids, embedding).flatten(1))  # (N, T*D)
    for layer, (weight, bias) in enumerate(zip(hidden[::2], hidden[1::2], strict=True), 1):
        x = dropout(layer, torch.tanh(F.linear(x, weight, bias)))  # (N, H)
    return F.linear(x, weight_out, bias_out)  # (N, C)


def dropout_of_step(
    probabilities: tuple[float, float], seed: int, step: int, stream: int = 0
) -> Dropout:
    """The dropout of one step, whose masks are those of `dropout_mask`.

    ``probabilities`` of a zero: in the embedded input, in the output of each hidden layer.
    """
    if not any(probabilities):
        return no_dropout

    def masked(layer: int, x: Tensor) -> Tensor:
        if not (p := probabilities[layer > 0]):
            return x
        place = {"seed": seed, "step": step, "layer": layer, "stream": stream}
        return x * dropout_mask(p, *x.shape, **place, dtype=x.dtype, device=x.device)

    return masked
