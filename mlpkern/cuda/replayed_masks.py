"""Dropout masks for steps that a CUDA graph replays: drawn for many steps, picked by a counter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlpkern.reference.philox import philox4x32

_WORD = 0xFFFFFFFF
_DRAWN = 1 << 22  # units at a time; the generator holds some hundred bytes for every four


class ReplayedMasks:
    """The masks of `mlpkern.reference.philox.dropout_mask` for one model after another.

    Args:
        steps: at most, of a load. rows: N of a batch. widths: the units of each layer, the input
            first.
        dtype, device: of the activations.
    """

    def __init__(
        self,
        steps: int,
        rows: int,
        widths: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._ahead = max(1, min(steps, _DRAWN // (rows * sum(widths))))
        self._steps = 0
        self._kept = [
            torch.zeros(self._ahead, rows, width, dtype=torch.bool, device=device)
            for width in widths
        ]
        # One factor of each layer, which the replays read: models differ in it.
        self._scales = torch.ones(len(widths), dtype=dtype, device=device)
        self._parts = self._scales.unbind()
        self._of_model: tuple[list[float], int, int, int] | None = None

    def load(
        self, dropouts: tuple[float, float], seed: int, stream: int, step: int, steps: int
    ) -> None:
        """Another model: its probabilities for input and hidden layers, its seed and stream.

        ``step``: steps done before. ``steps``: that come now, counted from 0.
        """
        ps = [dropouts[0], *[dropouts[1]] * (len(self._kept) - 1)]
        self._of_model, self._steps = (ps, seed, stream, step), steps
        for part, p in zip(self._parts, ps, strict=True):
            part.fill_(1 / (1 - p))

    def draw_before(self, at: int) -> None:
        """To be called before step ``at``: draws if the last masks were used up."""
        if at % self._ahead:
            return
        assert self._of_model is not None
        ps, seed, stream, step = self._of_model
        count = min(self._ahead, self._steps - at)
        for layer, (kept, p) in enumerate(zip(self._kept, ps, strict=True)):
            _draw(kept[:count], p, seed, stream << 8 | layer, step + at)

    def apply(self, at: Tensor, layer: int, x: Tensor) -> Tensor:
        """``x`` (N, units) times the mask of its layer in the step that ``at`` (1,) counts."""
        kept = self._kept[layer].index_select(0, at.remainder(self._ahead))[0]  # (N, units)
        return x * (kept * self._parts[layer])


def _draw(kept: Tensor, p: float, seed: int, word: int, step: int) -> None:
    """Fills ``kept`` (steps, N, units) with what the generator says from ``step`` on."""
    if p == 0:
        kept.fill_(True)
        return
    steps, rows, units = kept.shape
    blocks, device = (units + 3) // 4, kept.device
    counter = torch.zeros(steps, rows, blocks, 4, dtype=torch.int64, device=device)
    counter[..., 0] = torch.arange(blocks, device=device)
    counter[..., 1] = torch.arange(rows, device=device)[:, None]
    counter[..., 2] = (torch.arange(steps, device=device) + step & _WORD)[:, None, None]
    counter[..., 3] = word
    words = philox4x32(counter, (seed & _WORD, seed >> 32 & _WORD))
    torch.ge(words.flatten(-2)[..., :units], round(p * 2**32), out=kept)
