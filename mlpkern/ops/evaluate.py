"""``evaluate``: mean loss and accuracy over a whole split."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from mlpkern.mlp.arguments import Arguments, packed
from mlpkern.mlp.params import MLPParams
from mlpkern.mlp.stop_flag import current_flag
from mlpkern.registry import select

_OP = "evaluate"


class Evaluation(NamedTuple):
    """What `evaluate` returns: tensors (), or (M,) for M models, of the parameters' dtype."""

    loss: Tensor  # mean cross-entropy, nats
    accuracy: Tensor  # share of the rows whose largest logit is that of the target, 0 to 1


def evaluate(params: MLPParams, inputs: Tensor, targets: Tensor) -> Evaluation:
    """Mean loss and accuracy of one or M models over all rows, without the logits in memory.

    Equals, for each model:

        x = F.embedding(inputs, E).flatten(1)
        x = torch.tanh(F.linear(x, W, b))  # each hidden layer
        logits = F.linear(x, W, b)
        loss = F.cross_entropy(logits, targets)
        accuracy = (logits.argmax(1) == targets).float().mean()

    with the sums over the rows in float64. No dropout, no gradients.

    Args:
        params: see `mlpkern.MLPParams`; of one model or of M.
        inputs: (rows, T) ids below V: uint8, int16, int32 or int64, device of the parameters, any
            strides; the same rows for all models.
        targets: (rows,) ids below C, likewise.

    Without any row, both values are nan. A handler of a signal runs within 0.3 s, and may raise.

    Raises:
        TypeError: a wrong dtype or kind.
        ValueError: a wrong shape or device.
        IndexError: an id or target out of range.
        RuntimeError: under a transform of torch.func.
    """
    check = Arguments(_OP, params)
    check.split(inputs, targets)
    backend, flag = select(_OP, check.tensors[0]), current_flag()
    early = {"flag": flag.byte} if flag and getattr(backend, "ENDS_EARLY", False) else {}
    loss, accuracy = backend.evaluate(packed(check.tensors), inputs, targets, **early)
    if flag:
        flag.check()
    if check.models is None:
        loss, accuracy = loss[0], accuracy[0]
    return Evaluation(loss.to(params.dtype), accuracy.to(params.dtype))
