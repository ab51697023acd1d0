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

from mlpkern.cuda.graphed_step import Data, Dropout, Kind, Run, surroundings
from mlpkern.cuda.kept import Kept
from mlpkern.mlp.training_arguments import TrainingArguments

_T = TypeVar("_T")
_KEPT = 4


def train_steps(arguments: TrainingArguments) -> Tensor:
    """The losses (M, S); ids, targets and row numbers are in range.

    The models are trained one after another by the same graph. The host waits for the device once,
    to read what differs between models.
    """
    a = arguments
    own = torch.stack([a.weight_decay, a.input_dropout, a.hidden_dropout]).tolist()
    keys = torch.stack([a.seeds, a.streams, a.stopped]).tolist()
    inference = torch.is_inference_mode_enabled()  # whose tensors are written in it alone
    parameter = a.parameters[0]
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(parameter.device.type, enabled=False),
    ):
        losses = parameter.new_full(a.rates.shape, math.nan)
        kind = Kind(
            parameter.device,
            parameter.dtype,
            tuple(p.shape[1:] for p in a.parameters),
            tuple(a.frozen),
            (a.batches.shape[2], a.inputs.shape[1]),
            a.rule,
            any(own[0]),
            any(p > 0 for ps in own[1:] for p in ps),
        )
        key = (kind, *surroundings(parameter))
        with _runs.borrowed(key, lambda: _with_room(functools.partial(Run, kind))) as run:
            for m, model_losses in enumerate(losses):
                if keys[2][m] >= 0:
                    continue
                state = [[t[m] for t in ts] for ts in (a.parameters, a.first, a.second) if ts]
                data = Data(a.inputs, a.targets, a.batches[m], a.rates[m], a.step)
                dropout = Dropout((own[1][m], own[2][m]), keys[0][m], keys[1][m])
                _with_room(
                    functools.partial(run.train, state, data, own[0][m], dropout, model_losses)
                )
                with torch.inference_mode(inference):
                    run.store(state)
                    bad = ~model_losses.isfinite()
                    first_bad = bad.to(torch.uint8).argmax() + a.step
                    a.stopped[m] = torch.where(bad.any(), first_bad, -1)
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
