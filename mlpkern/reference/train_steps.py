"""``train_steps`` in plain torch: the training loop itself, model after model.

Step s of model m, with E, (W, b) … the model's parameters::

    rows = batches[m, s]
    x = F.embedding(inputs[rows], E).flatten(1), times its dropout mask       (N, T*D)
    x = torch.tanh(F.linear(x, W, b)), times its dropout mask                 (N, H), each layer
    loss = F.cross_entropy(F.linear(x, W, b), targets[rows], label_smoothing)
    gradients by autograd; torch.nn.utils.clip_grad_norm_ over all of them; step of torch.optim

Frozen parameters have no gradient and are not the optimizer's: they and their moments stay.
The optimizer is ``torch.optim.SGD`` with one parameter group, or ``torch.optim.AdamW`` with two:
the embedding and the weights decay, the biases do not. The masks are those of
`mlpkern.reference.philox.dropout_mask`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlpkern.reference.philox import dropout_mask

SGD, ADAMW = 0, 1


def train_steps(
    parameters: list[Tensor],
    frozen: list[bool],
    first: list[Tensor] | None,
    second: list[Tensor] | None,
    inputs: Tensor,
    targets: Tensor,
    batches: Tensor,
    rates: Tensor,
    stopped: Tensor,
    step: int,
    optimizer: int,
    momentum: float,
    nesterov: bool,
    beta1: float,
    beta2: float,
    eps: float,
    max_grad_norm: float,
    label_smoothing: float,
    weight_decay: Tensor,
    input_dropout: Tensor,
    hidden_dropout: Tensor,
    seeds: Tensor,
    streams: Tensor,
) -> Tensor:
    """The losses (M, S); ``parameters``, ``first``, ``second``, ``stopped`` change in place.

    ``frozen`` says of each of ``parameters`` whether it, with its moments, is only read. Every
    tensor but ``inputs`` and ``targets`` has a leading M. ``batches`` (M, S, N) and ``rates``
    (M, S), float64, may have stride 0 along M. ``optimizer``: 0 sgd, 1 adamw. ``max_grad_norm``:
    inf for none. ``weight_decay``, ``input_dropout``, ``hidden_dropout``: (M,) float64. ``seeds``,
    ``streams``: (M,) int64. Row numbers, ids and targets are in range.
    """
    count, steps = rates.shape
    losses = parameters[0].new_full((count, steps), math.nan)
    trains = [not kept for kept in frozen]
    for m in range(count):
        if stopped[m] >= 0:
            continue
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(losses.device.type, enabled=False),
        ):
            model = [_copy(parameter[m]) for parameter in parameters]
            trained = [parameter.requires_grad_() for parameter in compress(model, trains)]
            moments = [
                None if tensors is None else [_copy(t[m]) for t in compress(tensors, trains)]
                for tensors in (first, second)
            ]
            stepper = _stepper(
                trained, moments, step, optimizer, momentum, nesterov, (beta1, beta2), eps,
                weight_decay[m].item(),
            )  # fmt: skip
            run: list[Tensor] = []
            for s, rate in enumerate(rates[m].tolist()):
                rows = batches[m, s].long()  # (N,)
                loss = _loss(
                    model, inputs[rows].long(), targets[rows].long(), label_smoothing,
                    input_dropout[m].item(), hidden_dropout[m].item(),
                    seed=int(seeds[m]), stream=int(streams[m]), step=step + s,
                )  # fmt: skip
                run.append(loss.detach())
                if not loss.isfinite():
                    stopped[m] = step + s
                    break
                if not trained:
                    continue
                stepper.zero_grad()
                loss.backward()
                if max_grad_norm != math.inf:
                    torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
                for group in stepper.param_groups:
                    group["lr"] = rate
                stepper.step()
        with torch.no_grad():
            losses[m, : len(run)] = torch.stack(run)
            for old, new in zip((parameters, first, second), (trained, *moments), strict=True):
                for tensor, value in zip(compress(old or [], trains), new or [], strict=True):
                    tensor[m] = value
    return losses


def _copy(tensor: Tensor) -> Tensor:
    """Contiguous, so that the bits of a product do not depend on the strides of the parameters."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _loss(
    model: Sequence[Tensor],
    ids: Tensor,
    targets: Tensor,
    label_smoothing: float,
    input_dropout: float,
    hidden_dropout: float,
    *,
    seed: int,
    stream: int,
    step: int,
) -> Tensor:
    """The mean loss of the rows ``ids`` (N, T) of one model, ``targets`` (N,)."""
    embedding, *layers = model

    def dropout(x: Tensor, p: float, layer: int) -> Tensor:
        if p == 0:
            return x
        return x * dropout_mask(
            p, *x.shape, seed=seed, step=step, layer=layer, stream=stream,
            dtype=x.dtype, device=x.device,
        )  # fmt: skip

    x = dropout(F.embedding(ids, embedding).flatten(1), input_dropout, 0)  # (N, T*D)
    for i in range(0, len(layers) - 2, 2):
        x = torch.tanh(F.linear(x, layers[i], layers[i + 1]))  # (N, H)
        x = dropout(x, hidden_dropout, i // 2 + 1)
    logits = F.linear(x, layers[-2], layers[-1])  # (N, C)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def _stepper(
    trained: list[Tensor],
    moments: Sequence[list[Tensor] | None],
    step: int,
    optimizer: int,
    momentum: float,
    nesterov: bool,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """torch's optimizer after ``step`` steps of ``trained``; it updates ``moments``."""
    first, second = moments
    if optimizer == SGD:
        stepper: torch.optim.Optimizer = torch.optim.SGD(
            [{"params": trained}], momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )
        if first is not None:
            for parameter, buffer in zip(trained, first, strict=True):
                stepper.state[parameter] = {"momentum_buffer": buffer}
        return stepper
    assert first is not None
    assert second is not None
    biases = [parameter for parameter in trained if parameter.dim() == 1]
    weights = [parameter for parameter in trained if parameter.dim() == 2]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    stepper = torch.optim.AdamW(groups, betas=betas, eps=eps, weight_decay=weight_decay)
    for parameter, mean, square in zip(trained, first, second, strict=True):
        done = torch.tensor(step, dtype=torch.float64, device="cpu")
        stepper.state[parameter] = {"step": done, "exp_avg": mean, "exp_avg_sq": square}
    return stepper
