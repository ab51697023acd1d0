"""``train_steps`` in plain torch: the training loop itself, model after model.

Step s of model m, with E, (W, b) … the model's parameters::

    rows = batches[m, s]
    x = F.embedding(inputs[rows], E).flatten(1), times its dropout mask       (N, T*D)
    x = torch.tanh(F.linear(x, W, b)), times its dropout mask                 (N, H), each layer
    loss = F.cross_entropy(F.linear(x, W, b), targets[rows], label_smoothing)
    gradients by autograd; torch.nn.utils.clip_grad_norm_ over all of them; step of torch.optim

Frozen parameters have no gradient, and the optimizer does not have them. The masks are those of
`mlpkern.reference.philox.dropout_mask`.
"""

from __future__ import annotations

import math
from itertools import compress
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mlpkern.reference.mlp import dropout_of_step, logits
from mlpkern.reference.torch_optimizer import TorchOptimizer

if TYPE_CHECKING:
    from mlpkern.mlp.training_arguments import TrainingArguments


def train_steps(arguments: TrainingArguments) -> Tensor:
    """The losses (M, S); see ``TrainingArguments``. Row numbers, ids and targets are in range."""
    a = arguments
    losses = a.parameters[0].new_full(a.rates.shape, math.nan)
    trains = [not kept for kept in a.frozen]
    for m in range(len(losses)):
        if a.stopped[m] >= 0:
            continue
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(losses.device.type, enabled=False),
        ):
            model = [_copy(parameter[m]) for parameter in a.parameters]
            trained = [parameter.requires_grad_() for parameter in compress(model, trains)]
            moments = [
                None if tensors is None else [_copy(t[m]) for t in compress(tensors, trains)]
                for tensors in (a.first, a.second)
            ]
            optimizer = TorchOptimizer(a.rule, trained, moments, a.step, a.weight_decay[m].item())
            dropouts = a.input_dropout[m].item(), a.hidden_dropout[m].item()
            seed, stream = int(a.seeds[m]), int(a.streams[m])
            run: list[Tensor] = []
            for s, rate in enumerate(a.rates[m].tolist()):
                rows = a.batches[m, s].long()  # (N,)
                dropout = dropout_of_step(dropouts, seed, a.step + s, stream)
                z = logits(model, a.inputs[rows].long(), dropout)  # (N, C)
                smoothing = a.rule.label_smoothing
                loss = F.cross_entropy(z, a.targets[rows].long(), label_smoothing=smoothing)
                run.append(loss.detach())
                if not loss.isfinite():
                    a.stopped[m] = a.step + s
                    break
                if trained:
                    loss.backward()
                    optimizer.step(rate)
        with torch.no_grad():
            losses[m, : len(run)] = torch.stack(run)
            for old, new in zip(
                (a.parameters, a.first, a.second), (trained, *moments), strict=True
            ):
                for tensor, value in zip(compress(old or [], trains), new or [], strict=True):
                    tensor[m] = value
    return losses


def _copy(tensor: Tensor) -> Tensor:
    """Contiguous, so that the bits of a product do not depend on the strides of the parameters."""
    return tensor.clone(memory_format=torch.contiguous_format)
