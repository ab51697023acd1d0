"""``train_steps`` by the fused ops: one step, captured as a CUDA graph and replayed for the rest.

For models that no kernel of ours holds whole. A graph (`mlpkern.cuda.graphed_step`) knows neither
the length of a call nor its data, so it serves every later call with models, a batch and options of
the same kind: `_KEPT` graphs stay, with the arrays they work on, each for the stream that it was
first used on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from mlpkern.cuda.graphed_step import Data, Dropout, Kind, Rule, Run, surroundings
from mlpkern.cuda.kept import Kept

_T = TypeVar("_T")
_KEPT = 4


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
    """See ``mlpkern.reference.train_steps``; ids, targets and row numbers are in range.

    The models are trained one after another by the same graph. The host waits for the device once,
    to read what differs between models.
    """
    rule = Rule(optimizer, momentum, nesterov, beta1, beta2, eps, max_grad_norm, label_smoothing)
    own = torch.stack([weight_decay, input_dropout, hidden_dropout]).tolist()
    keys = torch.stack([seeds, streams, stopped]).tolist()
    inference = torch.is_inference_mode_enabled()  # whose tensors are written in it alone
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(parameters[0].device.type, enabled=False),
    ):
        losses = parameters[0].new_full(rates.shape, math.nan)
        kind = Kind(
            parameters[0].device,
            parameters[0].dtype,
            tuple(p.shape[1:] for p in parameters),
            tuple(frozen),
            (batches.shape[2], inputs.shape[1]),
            rule,
            any(own[0]),
            any(p > 0 for ps in own[1:] for p in ps),
        )
        key = (kind, *surroundings(parameters[0]))
        with _runs.borrowed(key, lambda: _with_room(functools.partial(Run, kind))) as run:
            for m, model_losses in enumerate(losses):
                if keys[2][m] >= 0:
                    continue
                state = [[t[m] for t in ts] for ts in (parameters, first, second) if ts]
                data = Data(inputs, targets, batches[m], rates[m], step)
                dropout = Dropout((own[1][m], own[2][m]), keys[0][m], keys[1][m])
                _with_room(
                    functools.partial(run.train, state, data, own[0][m], dropout, model_losses)
                )
                with torch.inference_mode(inference):
                    run.store(state)
                    bad = ~model_losses.isfinite()
                    stopped[m] = torch.where(bad.any(), bad.to(torch.uint8).argmax() + step, -1)
    return losses


def empty_cache() -> None:
    """Gives up the kept graphs, and the memory of them and of their arrays."""
    _runs.clear()


def _with_room(work: Callable[[], _T]) -> _T:
    """What ``work()`` returns; where memory runs out, at the second try, without kept graphs."""
    try:
        return work()
    except torch.OutOfMemoryError:
        if not _runs.clear():
            raise
    return work()


_runs: Kept[Run] = Kept(_KEPT, Run.close)
