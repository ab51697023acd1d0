"""A call of ``train_steps`` in parts, so that a signal never waits long nor finds half a step.

A handler of a signal may raise (KeyboardInterrupt, a time limit), and Python runs it between any
two byte codes of the main thread. So parameters, state and ``state.step`` get the result of some
steps together, with no byte code in between: a handler sees a whole number of steps.

A backend with ``ENDS_EARLY`` ends its call soon after a signal, and the rest is a call of its own.
Any other trains copies and can be left at any moment; they are put in place after every piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlpkern.mlp.arguments import packed
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.pieces import pieces
from mlpkern.mlp.stop_flag import current_flag
from mlpkern.reference.bounds import check_ids_together

# What a backend that does not end early may lose; enough to pay for the capture of a CUDA graph.
# Under a flag, also how long it waits.
PIECE_SECONDS, FLAGGED_SECONDS = 1.0, 0.1


@dataclass(frozen=True)
class TrainingCall:
    """The arguments of a backend's ``train_steps``.

    Attributes:
        tensors: parameters, first and second moments, each with a leading M; empty where there are
            none
        frozen: which parameters stay as they are, with their moments
        options: from ``optimizer`` on
    """

    tensors: tuple[list[Tensor], list[Tensor], list[Tensor]]
    frozen: list[bool]
    inputs: Tensor
    targets: Tensor
    batches: Tensor
    rates: Tensor
    state: OptimizerState
    options: tuple[Any, ...]

    def run(self, backend: Any) -> Tensor:
        """Trains; returns the losses (M, S)."""
        ends_early = getattr(backend, "ENDS_EARLY", False)
        # A mode of torch functions would be Python code within the steps that must not be parted.
        with torch._C.DisableTorchFunction():
            losses = self._until_asked(backend) if ends_early else self._in_pieces(backend)
        return losses[0] if len(losses) == 1 else torch.cat(losses, 1)

    def _until_asked(self, backend: Any) -> list[Tensor]:
        """Calls that end where they are asked to, until all steps are done."""
        flag, steps = current_flag(), self.rates.shape[1]
        losses: list[Tensor] = []
        done = 0
        while done < steps:
            own = [packed(part) for part in self.tensors]
            landing = self._landing(own)
            part = backend.train_steps(
                *self._arguments(own, self.state.stopped, done, steps),
                state=self.state,
                landing=landing,
                flag=None if flag is None else flag.byte,
            )
            losses.append(part)
            done += part.shape[1]
            if flag is not None:
                flag.check()
        return losses

    def _in_pieces(self, backend: Any) -> list[Tensor]:
        """Pieces on copies, which are put in place after each."""
        self._check_ids()
        flag, state = current_flag(), self.state
        copies = [self._copies(part) for part in self.tensors]
        stopped = state.stopped.clone()
        landing = [*self._landing(copies), partial(state.stopped.copy_, stopped)]
        losses = []
        seconds = PIECE_SECONDS if flag is None else FLAGGED_SECONDS
        for begin, end in pieces(self.rates.shape[1], seconds):
            arguments = self._arguments(copies, stopped, begin, end)
            losses.append(backend.train_steps(*arguments))
            stopped.tolist()  # waits for a GPU, so that the time is that of the steps
            land([*landing, partial(setattr, state, "step", state.step + end - begin)])
            if flag is not None:
                flag.check()
        return losses

    def _copies(self, part: list[Tensor]) -> list[Tensor]:
        """Those of a model's part contiguous, frozen ones perhaps no copies."""
        both = zip(self.frozen, packed(part), part, strict=bool(part))
        return [p if kept or p is not t else p.clone() for kept, p, t in both]

    def _landing(self, copies: list[list[Tensor]]) -> list[partial[Any]]:
        """What puts ``copies`` into the place of the tensors."""
        return [
            partial(tensor.copy_, copy)
            for part, own in zip(self.tensors, copies, strict=True)
            for kept, tensor, copy in zip(self.frozen, part, own, strict=bool(part))
            if copy is not tensor and not kept
        ]

    def _arguments(
        self, own: list[list[Tensor]], stopped: Tensor, begin: int, end: int
    ) -> tuple[Any, ...]:
        """Those of a backend for the steps [begin, end)."""
        return (
            own[0],
            self.frozen,
            own[1] or None,
            own[2] or None,
            self.inputs,
            self.targets,
            self.batches[:, begin:end],
            self.rates[:, begin:end],
            stopped,
            self.state.step,
            *self.options,
        )

    def _check_ids(self) -> None:
        """IndexError for a row number, an id or a target out of range."""
        batches, (embedding, *_, bias) = self.batches, self.tensors[0]
        shared = batches.shape[0] == 1 or batches.stride(0) == 0
        check_ids_together(
            "train_steps",
            [
                ("batches", batches[0] if shared else batches, len(self.inputs), "row"),
                ("inputs", self.inputs, embedding.shape[-2], "id"),
                ("targets", self.targets, bias.shape[-1], "target"),
            ],
        )


def land(calls: Iterable[partial[Any]]) -> None:
    """Makes all ``calls``, partials of compiled functions, without a byte code in between."""
    deque(map(partial.__call__, calls), maxlen=0)
