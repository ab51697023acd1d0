"""How tensors and sums are cut into tiles, from their shapes alone."""

from __future__ import annotations

import math

from torch import Tensor

_PIECE_ROWS = 128  # fewest rows worth a piece of their own
_PROGRAMS = 528  # four for each multiprocessor of the largest cards; part of the results


def piece_rows(N: int, tiles: int) -> int:
    """The rows of each piece of the batch but the last, a multiple of 64."""
    pieces = max(1, min(_PROGRAMS // tiles, N // _PIECE_ROWS))
    return ceil_div(ceil_div(N, pieces), 64) * 64


def rows_of(tensor: Tensor) -> Tensor:
    """(N, last size); spelled out, since -1 is ambiguous when a size is 0."""
    if tensor.dim() == 2:
        return tensor
    return tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def unit_of(tensor: Tensor, *sizes: int) -> int:
    """The largest power of two of elements, at most 16 bytes, that divides all sizes."""
    return math.gcd(16 // tensor.element_size(), *sizes)


def ceil_div(size: int, block: int) -> int:
    return -(-size // block)
