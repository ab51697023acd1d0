"""The state of the optimizer of one or many MLPs, as `train_steps` takes and updates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from mlpkern.checks import dtype_name, require_tensor, shape
from mlpkern.mlp.optimizers import OPTIMIZERS
from mlpkern.mlp.params import MLPParams


@dataclass(eq=False)
class OptimizerState:
    """What `train_steps` needs besides the parameters to continue a run bit for bit.

    Make one with `OptimizerState.zeros` and hand it to every call: each updates it in place.

    Attributes:
        step: steps done so far, those of stopped models included; the dropout masks and AdamW's
            bias correction count on from here.
        stopped: (M,) int64, for one model (1,): -1, or the step at which the loss of the model was
            not finite. A stopped model stays as it is.
        first: momentum buffers (sgd) or mean gradients (adamw, "exp_avg"); None if unused.
        second: mean squared gradients (adamw, "exp_avg_sq"); None for sgd.
    """

    step: int
    stopped: Tensor
    first: MLPParams | None
    second: MLPParams | None

    @classmethod
    def zeros(
        cls, params: MLPParams, optimizer: str = "sgd", momentum: float = 0.0
    ) -> OptimizerState:
        """The state before the first step of a run with this ``optimizer`` and ``momentum``."""
        if optimizer not in OPTIMIZERS:
            raise ValueError(
                f"OptimizerState: optimizer must be 'sgd' or 'adamw', got {optimizer!r}"
            )

        def zeros() -> MLPParams:
            kept = torch.contiguous_format
            return params.map(lambda t: torch.zeros_like(t.detach(), memory_format=kept))

        stopped = torch.full((params.models or 1,), -1, dtype=torch.int64, device=params.device)
        adamw = optimizer == "adamw"
        first = zeros() if adamw or momentum else None
        return cls(0, stopped, first, zeros() if adamw else None)

    def require_moments(self, op: str, params: MLPParams, adamw: bool, momentum: bool) -> None:
        """ValueError unless the moments are those of this optimizer, each like its parameter."""
        if adamw != (self.second is not None) or (self.first is None and (adamw or momentum)):
            held = "adamw" if self.second else "sgd with" if self.first else "sgd without"
            needed = "adamw" if adamw else "sgd with" if momentum else "sgd without"
            text = [t + " momentum" if " " in t else t for t in (needed, held)]
            raise ValueError(f"{op}: state must be that of {text[0]}, got that of {text[1]}")
        own = self._named()
        for field in ("first", "second") if self.second else ("first",):
            for name, tensor in params.named_tensors().items():
                other = own.get(f"{field}.{name}")
                if (
                    other is None
                    or (other.shape, other.dtype) != (tensor.shape, tensor.dtype)
                    or other.device != tensor.device
                ):
                    got = "none" if other is None else f"{shape(other)} {dtype_name(other)}"
                    raise ValueError(
                        f"{op}: state.{field}.{name} must be {shape(tensor)} {dtype_name(tensor)} "
                        f"on {tensor.device} like params, got {got}"
                    )

    def tensors(self) -> list[Tensor]:
        """All tensors: stopped, then those of first and second if there are any."""
        parts = [part.tensors() for part in (self.first, self.second) if part is not None]
        return [self.stopped, *chain.from_iterable(parts)]

    def names(self) -> list[str]:
        """The names of `tensors`: stopped, first.embedding, …"""
        return list(self._named())

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of every field as tensors by name: "step" (), "stopped", "first.embedding", …

        It is the state at this moment: steps taken later do not change it. torch and safetensors
        can save it as it is.
        """
        step = torch.tensor(self.step, dtype=torch.int64, device="cpu")
        copies = {name: tensor.detach().clone() for name, tensor in self._named().items()}
        return {"step": step, **copies}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy the values of another state into this one, which must have the same tensors.

        Raises ValueError for missing or unexpected names and for wrong shapes, with nothing copied.
        """
        own = self._named()
        for problem, names in {
            "misses": {"step", *own} - state_dict.keys(),
            "has unexpected": state_dict.keys() - {"step", *own},
        }.items():
            if names:
                listed = ", ".join(sorted(names))
                raise ValueError(f"OptimizerState: state_dict {problem} {listed}")
        for name, value in state_dict.items():
            require_tensor("OptimizerState", name, value)
            sizes = own[name].shape if name in own else torch.Size()
            if value.shape != sizes:
                expected = shape(own[name]) if name in own else "()"
                raise ValueError(f"OptimizerState: {name} must be {expected}, got {shape(value)}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state_dict[name])
        self.step = int(state_dict["step"])

    def clone(self) -> OptimizerState:
        """A copy."""
        first = None if self.first is None else self.first.clone()
        second = None if self.second is None else self.second.clone()
        return OptimizerState(self.step, self.stopped.clone(), first, second)

    def _named(self) -> dict[str, Tensor]:
        """The tensors themselves, by the names of `state_dict`."""
        named = {"stopped": self.stopped}
        for name, params in (("first", self.first), ("second", self.second)):
            if params is not None:
                named |= {f"{name}.{inner}": t for inner, t in params.named_tensors().items()}
        return named
