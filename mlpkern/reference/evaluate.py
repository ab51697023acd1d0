"""``evaluate`` in plain torch: block after block of rows, so that few logits exist at a time.

For the logits z of a row and its target t, its loss is log(sum over c of exp(z[c])) − z[t], and it
counts as right if t is the first c of the largest z[c]. Losses and hits are summed in float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlpkern.reference.bounds import check_ids
from mlpkern.reference.mlp import logits

_OP = "evaluate"
_BLOCK = 1 << 20  # logits at a time


def evaluate(parameters: list[Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss (M,) and accuracy (M,), float64; nan if there are no rows.

    Every one of ``parameters`` has a leading M. Raises IndexError for an id or target out of range.
    """
    check_ids(_OP, "inputs", inputs, parameters[0].shape[-2])
    check_ids(_OP, "targets", targets, parameters[-1].shape[-1], noun="target")
    device = inputs.device
    rows = max(1, _BLOCK // max(parameter.shape[-1] for parameter in parameters))
    sums = torch.zeros(2, len(parameters[0]), dtype=torch.float64, device=device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for block, labels in zip(inputs.split(rows), targets.long().split(rows), strict=True):
            for m in range(len(parameters[0])):
                z = logits([parameter[m] for parameter in parameters], block.long())  # (rows, C)
                sums[0, m] += F.cross_entropy(z, labels, reduction="none").double().sum()
                sums[1, m] += (z.argmax(1) == labels).sum()
    mean = sums / len(targets)
    return mean[0], mean[1]
