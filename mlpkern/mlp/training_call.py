"""A call of ``train_steps`` in parts, so that a signal neither waits long nor finds half a step.

A handler of a signal may raise (KeyboardInterrupt, a time limit), and Python runs it between any
two bytecode instructions of the main thread. So parameters, state and ``state.step`` get the result
of some steps together, without bytecode in between: a handler sees a whole number of steps.

A backend with ``ENDS_EARLY`` returns soon after a signal, and the rest is a call of its own. Any
other trains copies and can be left at any moment; the copies replace the tensors after every part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlpkern.mlp.arguments import packed
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.pieces import pieces
from mlpkern.mlp.stop_flag import current_flag
from mlpkern.mlp.training_arguments import TrainingArguments
from mlpkern.reference.bounds import check_ids_together

# What an interruption of a backend that does not end early may lose; enough to pay for the capture
# of a CUDA graph. With a StopFlag, also how long the flag waits.
PIECE_SECONDS, FLAGGED_SECONDS = 1.0, 0.1


def train(backend: Any, arguments: TrainingArguments, state: OptimizerState) -> Tensor:
    """Trains; returns the losses (M, S). ``state`` holds the tensors of ``arguments``."""
    run = _until_asked if getattr(backend, "ENDS_EARLY", False) else _in_pieces
    # A mode of torch functions would run bytecode between the updates.
    with torch._C.DisableTorchFunction():
        losses = run(backend, arguments, state)
    return losses[0] if len(losses) == 1 else torch.cat(losses, 1)


def _until_asked(backend: Any, arguments: TrainingArguments, state: OptimizerState) -> list[Tensor]:
    """Calls that return where they are asked to, until all steps are done."""
    flag, steps = current_flag(), arguments.rates.shape[1]
    losses: list[Tensor] = []
    done = 0
    while done < steps:
        own = _with_tensors(arguments, packed)
        part = backend.train_steps(
            own.steps(done, steps) if done else own,
            state=state,
            landing=_landing(arguments, own),
            flag=None if flag is None else flag.byte,
        )
        losses.append(part)
        done += part.shape[1]
        if flag is not None:
            flag.check()
    return losses


def _in_pieces(backend: Any, arguments: TrainingArguments, state: OptimizerState) -> list[Tensor]:
    """Pieces on copies, which replace the tensors after each."""
    _check_ids(arguments)
    flag, frozen = current_flag(), arguments.frozen

    def copied(tensors: list[Tensor]) -> list[Tensor]:
        """Contiguous in a model's part; frozen ones are copied only for that."""
        both = zip(frozen, packed(tensors), tensors, strict=True)
        return [p if kept or p is not t else p.clone() for kept, p, t in both]

    stopped = arguments.stopped.clone()
    copies = _with_tensors(arguments, copied)._replace(stopped=stopped)
    landing = [*_landing(arguments, copies), partial(state.stopped.copy_, stopped)]
    losses = []
    seconds = PIECE_SECONDS if flag is None else FLAGGED_SECONDS
    for begin, end in pieces(arguments.rates.shape[1], seconds):
        losses.append(backend.train_steps(copies.steps(begin, end)))
        stopped.tolist()  # waits for a GPU, so that the time is that of the steps
        land([*landing, partial(setattr, state, "step", arguments.step + end)])
        if flag is not None:
            flag.check()
    return losses


def _with_tensors(
    arguments: TrainingArguments, function: Callable[[list[Tensor]], list[Tensor]]
) -> TrainingArguments:
    """``arguments`` with ``function`` of the parameters and of each kind of moments."""
    first, second = arguments.first, arguments.second
    return arguments._replace(
        parameters=function(arguments.parameters),
        first=None if first is None else function(first),
        second=None if second is None else function(second),
    )


def _landing(arguments: TrainingArguments, copies: TrainingArguments) -> list[partial[Any]]:
    """The calls that copy the trained tensors of ``copies`` into those of ``arguments``."""
    both = (
        (arguments.parameters, copies.parameters),
        (arguments.first, copies.first),
        (arguments.second, copies.second),
    )
    return [
        partial(tensor.copy_, copy)
        for tensors, own in both
        if tensors is not None and own is not None
        for kept, tensor, copy in zip(arguments.frozen, tensors, own, strict=True)
        if copy is not tensor and not kept
    ]


def _check_ids(arguments: TrainingArguments) -> None:
    """IndexError for a row number, an id or a target out of range."""
    batches, (embedding, *_, bias) = arguments.batches, arguments.parameters
    shared = batches.shape[0] == 1 or batches.stride(0) == 0
    check_ids_together(
        "train_steps",
        [
            ("batches", batches[0] if shared else batches, len(arguments.inputs), "row"),
            ("inputs", arguments.inputs, embedding.shape[-2], "id"),
            ("targets", arguments.targets, bias.shape[-1], "target"),
        ],
    )


def land(calls: Iterable[partial[Any]]) -> None:
    """Makes all ``calls``, partials of compiled functions, without bytecode in between."""
    deque(map(partial.__call__, calls), maxlen=0)
