"""The parameters of one or many MLPs, as `train_steps` and `evaluate` take them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn

from mlpkern.checks import require_alike, shape

_DTYPES = (torch.float32, torch.float64)


@dataclass(eq=False, init=False)
class MLPParams:
    """The parameters of embedding, hidden tanh layers and output layer, of one model or of M.

    Sizes: V ids, T ids a row, D embedding width, H hidden width, C classes, M models side by side.

    Args:
        embedding: (V, D).
        hidden: at least one (weight, bias): (H1, T*D) and (H1,), then (H2, H1) and (H2,), …
        output: (weight, bias): (C, H) of the last hidden layer and (C,). C may differ from V.
        frozen: the names (see `names`) of the tensors that training keeps bit for bit. None: a
            tensor is frozen while it is an ``nn.Parameter``, or a view of one, whose requires_grad
            is False. A plain tensor trains whatever its requires_grad.

    For M models side by side every tensor has a leading M, and all models freeze the same tensors.
    All tensors have one dtype, float32 or float64, and one device; the strides are free. The
    tensors are not copied.

    Raises:
        TypeError: a wrong dtype, not a tensor, or ``frozen`` is not a collection of names.
        ValueError: shapes that do not fit together, several devices, no hidden layer, a size 0, an
            unknown name in ``frozen``.
    """

    embedding: Tensor
    hidden: list[tuple[Tensor, Tensor]]
    output: tuple[Tensor, Tensor]

    def __init__(
        self,
        embedding: Tensor,
        hidden: Iterable[tuple[Tensor, Tensor]],
        output: tuple[Tensor, Tensor],
        *,
        frozen: Iterable[str] | None = None,
    ) -> None:
        self.embedding = embedding
        self.hidden = [_pair(f"hidden.{i}", layer) for i, layer in enumerate(hidden)]
        self.output = _pair("output", output)
        self.check("MLPParams")
        self.frozen = frozen

    @classmethod
    def from_module(cls, model: nn.Module) -> MLPParams:
        """The parameters of ``model`` themselves: training them trains the module.

        Those whose requires_grad is False are frozen, see `frozen`.

        ``model`` must give logits (rows, C) for ids (rows, T). Its forward must be one chain of
        Embedding, Flatten, then Linear and Tanh at least once, then Linear: layers of torch or
        `mlpkern.nn`, functions (``view``, ``torch.tanh``, …), or both, and Identity anywhere. A
        symbolic trace finds the chain, in training and in evaluation mode, without the arguments
        whose default is None. A model can also name its layers itself, as
        `mlpkern.lm.MLPLanguageModel` does: attributes ``embedding``, an Embedding, and ``output``,
        a Linear, and a method ``hidden_parameters()`` that gives (weight, bias) of each hidden
        layer.

        In both cases the forward is compared with the logits of such an MLP, on a copy with random
        parameters; the module and the generators stay as they are. A module with
        ``hidden_parameters`` is compared once for its class, shapes and settings.

        Raises ValueError for any other function, weights or biases that are no Parameters of
        ``model`` or stand in two layers, a Linear without bias, hooks, and options of the Embedding
        that change its gradient (padding_idx, max_norm, scale_grad_by_freq, sparse).
        """
        from mlpkern.mlp.from_module import check_module, mlp_layers

        layers = mlp_layers(model)
        params = cls(*layers)
        check_module(model, layers)
        return params

    @classmethod
    def stack(cls, models: Sequence[MLPParams]) -> MLPParams:
        """Copies of single models of the same shapes, side by side with a leading M.

        Raises ValueError for no model at all, different shapes, models that freeze different
        tensors, or models that have an M already.
        """
        if not models:
            raise ValueError("MLPParams.stack: models must hold at least one model, got none")
        for m, model in enumerate(models):
            if model.models is not None:
                raise ValueError(f"MLPParams.stack: models[{m}] must be one model, got several")
            for name, tensor in model.named_tensors().items():
                expected = models[0].named_tensors().get(name, tensor.new_empty(()))
                if tensor.shape != expected.shape or len(model.hidden) != len(models[0].hidden):
                    raise ValueError(
                        f"MLPParams.stack: all models must have the shapes of models[0], but "
                        f"{name} of models[{m}] is {shape(tensor)}"
                    )
            if model.frozen != models[0].frozen:
                raise ValueError(
                    "MLPParams.stack: all models must freeze what models[0] does, "
                    f"{_listed(models[0].frozen)}, but models[{m}] freezes {_listed(model.frozen)}"
                )
        layers = zip(*(model.tensors() for model in models), strict=True)
        side_by_side = [torch.stack([t.detach() for t in layer]) for layer in layers]
        return cls.from_tensors(side_by_side, frozen=models[0].frozen)

    @classmethod
    def from_tensors(
        cls, tensors: Sequence[Tensor], *, frozen: Iterable[str] | None = None
    ) -> MLPParams:
        """The parameters from the list that `tensors` gives."""
        embedding, *rest = tensors
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
        return cls(embedding, pairs[:-1], pairs[-1], frozen=frozen)

    def tensors(self) -> list[Tensor]:
        """All tensors in order: embedding, then weight and bias of each layer."""
        flat = [self.embedding]
        for layer in self.hidden:
            flat += layer
        flat += self.output
        return flat

    def names(self) -> list[str]:
        """The names of `tensors`: embedding, hidden.0.weight, hidden.0.bias, …, output.bias."""
        layers = [*(f"hidden.{i}" for i in range(len(self.hidden))), "output"]
        return [
            "embedding",
            *(f"{layer}.{part}" for layer in layers for part in ("weight", "bias")),
        ]

    def named_tensors(self) -> dict[str, Tensor]:
        """`tensors` by their `names`."""
        return dict(zip(self.names(), self.tensors(), strict=True))

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of the tensors that training keeps as they are, in the order of `names`.

        Can be set like the argument of the constructor; None goes by requires_grad again.
        """
        return tuple(compress(self.names(), self.is_frozen()))

    @frozen.setter
    def frozen(self, names: Iterable[str] | None) -> None:
        if isinstance(names, str) or not isinstance(names, Iterable | None):
            raise TypeError(f"MLPParams: frozen must be a collection of names, got {names!r}")
        chosen = None if names is None else frozenset(names)
        if unknown := sorted(map(str, (chosen or frozenset()) - set(self.names()))):
            raise ValueError(
                f"MLPParams: frozen must be among {', '.join(self.names())}, got {unknown[0]}"
            )
        self._frozen = chosen

    def is_frozen(self) -> list[bool]:
        """For each of `tensors`, whether training keeps it as it is."""
        if self._frozen is None:
            return [_wants_no_gradient(tensor) for tensor in self.tensors()]
        return [name in self._frozen for name in self.names()]

    @property
    def models(self) -> int | None:
        """M, or None for one model without the leading axis."""
        return self.embedding.shape[0] if self.embedding.dim() == 3 else None

    @property
    def sizes(self) -> tuple[int, ...]:
        """(V, D, T*D, H1, …, C): equal for models that can be stacked."""
        widths = [weight.shape[-1] for weight, _ in [*self.hidden, self.output]]
        return (*self.embedding.shape[-2:], *widths, self.output[0].shape[-2])

    @property
    def context(self) -> int:
        """T, the number of ids in a row of inputs."""
        return self.hidden[0][0].shape[-1] // self.embedding.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all tensors."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.embedding.device

    def model(self, m: int) -> MLPParams:
        """Model ``m`` of several, as views without the leading axis that share their memory.

        Raises IndexError for an ``m`` out of range, ValueError without a leading axis.
        """
        if self.models is None:
            raise ValueError("MLPParams.model: these are the parameters of one model already")
        if not -self.models <= m < self.models:
            raise IndexError(f"MLPParams.model: m is {m}, expected 0 <= m < {self.models}")
        return self.map(lambda tensor: tensor.detach()[m])

    def clone(self) -> MLPParams:
        """A copy, detached from any graph, with the same tensors frozen."""
        return self.map(lambda tensor: tensor.detach().clone())

    def map(self, function: Callable[[Tensor], Tensor]) -> MLPParams:
        """``function`` of every tensor, as parameters with the same tensors frozen."""
        return self.from_tensors([function(t) for t in self.tensors()], frozen=self.frozen)

    def check(self, op: str) -> None:
        """Raise what the docstring of the class announces, in the name of ``op``."""
        if not self.hidden:
            raise ValueError(f"{op}: hidden must have at least one (weight, bias), got none")
        tensors = self.tensors()
        if not _alike(tensors):
            require_alike(op, self.named_tensors(), _DTYPES)
        embedding = tensors[0]
        lead, sizes = embedding.shape[:-2], embedding.shape[-2:]
        if len(lead) > 1 or len(sizes) != 2:
            raise ValueError(
                f"{op}: embedding must be (V, D), or (M, V, D) for M models, got {shape(embedding)}"
            )
        width = tensors[1].shape[-1] if tensors[1].dim() else 0
        if sizes[1] == 0 or width == 0 or width % sizes[1]:
            raise ValueError(
                f"{op}: hidden.0.weight must be {_expected(lead, 'H', f'T*{sizes[1]}')} to match "
                f"embedding {shape(embedding)}, got {shape(tensors[1])}"
            )
        for i in range(1, len(tensors), 2):
            weight, bias = tensors[i], tensors[i + 1]
            if weight.dim() != len(lead) + 2 or weight.shape != (*lead, weight.shape[-2], width):
                rows = "C" if i == len(tensors) - 2 else "H"
                raise ValueError(
                    f"{op}: {self.names()[i]} must be {_expected(lead, rows, width)} to match "
                    f"embedding {shape(embedding)} and the layers before, got {shape(weight)}"
                )
            width = weight.shape[-2]
            if bias.shape != weight.shape[:-1]:
                raise ValueError(
                    f"{op}: {self.names()[i + 1]} must be {_expected(lead, width)} to match "
                    f"{self.names()[i]} {shape(weight)}, got {shape(bias)}"
                )
            if weight.numel() == 0:
                raise ValueError(
                    f"{op}: every size must be at least 1, got {self.names()[i]} {shape(weight)}"
                )
        if embedding.numel() == 0:
            raise ValueError(
                f"{op}: every size must be at least 1, got embedding {shape(embedding)}"
            )


def _pair(name: str, layer: Any) -> tuple[Tensor, Tensor]:
    try:
        weight, bias = layer
    except (TypeError, ValueError):
        raise TypeError(
            f"MLPParams: {name} must be a pair (weight, bias), got {type(layer).__name__}"
        ) from None
    return weight, bias


def _wants_no_gradient(tensor: Tensor) -> bool:
    owner = tensor if tensor._base is None else tensor._base
    # type() first: isinstance of an nn.Parameter takes a microsecond
    return type(owner) is not Tensor and isinstance(owner, nn.Parameter) and not owner.requires_grad


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"


def _alike(tensors: list[Tensor]) -> bool:
    """Whether all are dense tensors of one allowed dtype, on one device."""
    first = tensors[0]
    if not isinstance(first, Tensor) or first.dtype not in _DTYPES:
        return False
    dtype, device = first.dtype, first.device
    return all(
        isinstance(t, Tensor)
        and t.dtype is dtype
        and t.device == device
        and t.layout is torch.strided
        for t in tensors
    )


def _expected(lead: Sequence[int], *sizes: Any) -> str:
    """``(200, 30)``, or with a leading M ``(8, 200, 30)``, for a message."""
    text = ", ".join(map(str, (*lead, *sizes)))
    return f"({text},)" if len(lead) + len(sizes) == 1 else f"({text})"
