r"""Philox4x32-10, the counter-based generator of the dropout masks, in plain torch.

A counter-based generator is a function: 128 bits of counter and 64 bits of key go in, 128 random
bits come out, and nothing is kept. So any unit of any step can be drawn alone, in any order, on any
device. One of the ten rounds takes the counter (c0, c1, c2, c3) and the key (k0, k1), all of 32
bits, to

    (hi(B c2) ^ c1 ^ k0,  lo(B c2),  hi(A c0) ^ c3 ^ k1,  lo(A c0))

with hi and lo the halves of a 64-bit product, A = 0xD2511F53 and B = 0xCD9E8D57; between two rounds
the key moves on by (0x9E3779B9, 0xBB67AE85). Words are held in int64, which every device has.

Dropout uses the key (seed mod 2^32, seed div 2^32) of a seed of 64 bits and the counter

    (unit div 4,  row in the batch,  step mod 2^32,  stream · 256 + layer)

where layer 0 is the embedded input (unit = its position in T*D) and layer l the output of hidden
layer l. Word (unit mod 4) of the result decides: the unit is kept if word >= round(p · 2^32),
halves to even, and then multiplied by 1 / (1 − p); otherwise it is zero.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
section 3.3, and the known answers of their library Random123.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox4x32(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """The four random words (..., 4) of each counter (..., 4), int64 with values below 2^32.

    ``key``: two words below 2^32.
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key
    for _ in range(ROUNDS):
        high_a, low_a = _product(c0, _MULTIPLIERS[0])
        high_b, low_b = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high_b ^ c1 ^ k0, low_b, high_a ^ c3 ^ k1, low_a
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return torch.stack((c0, c1, c2, c3), -1)


def dropout_mask(
    p: float,
    rows: int,
    units: int,
    *,
    seed: int,
    step: int,
    layer: int,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The mask (rows, units) by which `mlpkern.train_steps` multiplies a layer: 0 or 1/(1 − p).

    With it stock torch replays a run: ``x = x * dropout_mask(input_dropout, N, T*D, seed=seed,
    step=s, layer=0)`` in place of ``F.dropout(x, input_dropout)``.

    Args:
        p: probability of a zero, 0 <= p < 1.
        rows: N, the rows of the batch. units: T*D of the embedded input, or H of a hidden layer.
        seed: of the run, or of the model if each has its own; any integer of 64 bits.
        step: steps done before, ``state.step`` included.
        layer: 0 for the embedded input, l for the output of the l-th hidden layer.
        stream: the model's number if one seed serves all models, else 0; below 2^24.
        dtype: of the mask; 1/(1 − p) is computed in double and rounded once.
        device: of the mask.

    Raises ValueError for a p, layer or stream out of range.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout_mask: p must be 0 <= p < 1, got {p}")
    if not 0 <= layer < 1 << 8 or not 0 <= stream < 1 << 24:
        raise ValueError(
            f"dropout_mask: layer must be 0 <= layer < 2^8 and stream 0 <= stream < 2^24, "
            f"got {layer} and {stream}"
        )
    blocks = (units + 3) // 4
    counter = torch.zeros(rows, blocks, 4, dtype=torch.int64, device=device)
    counter[..., 0] = torch.arange(blocks, device=device)
    counter[..., 1] = torch.arange(rows, device=device)[:, None]
    counter[..., 2] = step & _WORD
    counter[..., 3] = stream << 8 | layer
    words = philox4x32(counter, (seed & _WORD, seed >> 32 & _WORD))
    kept = words.flatten(1)[:, :units] >= round(p * 2**32)  # (N, units)
    return kept.to(dtype) * (1 / (1 - p))


def _product(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The high and the low 32 bits of word · multiplier, from products that fit in 48 bits."""
    low = word * (multiplier & 0xFFFF)
    high = word * (multiplier >> 16) + (low >> 16)
    return high >> 16, (high << 16 | low & 0xFFFF) & _WORD
