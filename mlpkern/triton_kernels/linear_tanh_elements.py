"""``linear_tanh``, element by element: tanh, its slope, and the sums over pieces of a batch.

    tanh_of    the epilogue of the fused product, and of a product of cuBLAS
    slope_of   dz = g (1 - y^2): an operand of the fused products, or stored for the library's
    pieces     partial sums over pieces of the batch, (P, L), added in order

Every array is contiguous here but g and b. A program of the elementwise kernels owns BLOCK_N rows
and BLOCK_H columns, so what it writes belongs to it alone.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh_of(x):
    """tanh of float32, within about 3 units in the last place, also near 0; NaN stays.

    An odd polynomial below 0.625 (S. L. Moshier, Cephes mathematical library, tanhf), where
    1 - 2 / (e^2|x| + 1) would cancel. From 10 on tanh is 1, and e^2x far from infinity.
    """
    c = tl.where(x > 10.0, 10.0, tl.where(x < -10.0, -10.0, x))
    a = tl.abs(c)
    z = c * c
    p = -5.70498872745e-3
    p = p * z + 2.06390887954e-2
    p = p * z - 5.37397155531e-2
    p = p * z + 1.33314422036e-1
    p = p * z - 3.33332819422e-1
    small = c * (1.0 + p * z)
    large = 1.0 - 2.0 / (tl.exp(2.0 * a) + 1.0)
    return tl.where(a < 0.625, small, tl.where(c < 0.0, -large, large))


@triton.jit
def slope_of(g, y, inside):
    """dz in float32 for tiles of pointers to g and y; 0 outside."""
    slope = tl.load(y, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(g, mask=inside, other=0.0).to(tl.float32)
    return grad * (1.0 - slope * slope)


@triton.jit(do_not_specialize=["N"])
def linear_tanh_epilogue_kernel(
    y,  # (N, H): holds z without the bias, becomes tanh(z + b)
    b,  # (H,)
    N,
    units,  # H = units * UNIT, so that the compiler knows how rows are aligned
    b_h,
    HAS_BIAS: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    H = units * UNIT
    tiles = tl.cdiv(H, BLOCK_H)
    n = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    h = (tl.program_id(0) % tiles) * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = (n < N)[:, None] & (h < H)[None, :]
    at = y + n[:, None] * H + h[None, :]
    z = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        z += tl.load(b + h.to(tl.int64) * b_h, mask=h < H, other=0.0).to(tl.float32)[None, :]
    tl.store(at, tanh_of(z), mask=inside)


@triton.jit(do_not_specialize=["N", "piece_rows"])
def linear_tanh_slope_kernel(
    g,  # (N, H), strides g_n and g_h
    y,  # (N, H)
    dz,  # (N, H)
    sums,  # (P, H): of dz over each piece of the batch; unused without NEED_BIAS
    N,
    units,
    g_n_units,
    g_h,
    piece_rows,  # a multiple of BLOCK_N
    NEED_BIAS: tl.constexpr,
    UNIT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    H = units * UNIT
    tiles = tl.cdiv(H, BLOCK_H)
    piece = (tl.program_id(0) // tiles).to(tl.int64)
    h = (tl.program_id(0) % tiles) * BLOCK_H + tl.arange(0, BLOCK_H)
    first = piece * piece_rows
    column_sums = tl.zeros((BLOCK_N, BLOCK_H), tl.float32)
    for start in range(0, piece_rows, BLOCK_N):
        n = first + start + tl.arange(0, BLOCK_N)
        inside = (n < N)[:, None] & (h < H)[None, :]
        at = n[:, None] * H + h[None, :]
        d = slope_of(
            g + n[:, None] * (g_n_units * UNIT) + h.to(tl.int64)[None, :] * g_h, y + at, inside
        )
        tl.store(dz + at, d, mask=inside)
        if NEED_BIAS:
            column_sums += d
    if NEED_BIAS:
        tl.store(sums + piece * H + h, tl.sum(column_sums, axis=0), mask=h < H)


@triton.jit(do_not_specialize=["pieces"])
def linear_tanh_pieces_kernel(
    partial,  # (P, size_a + size_b) float32
    a,  # (size_a,): the sums of the first columns
    b,  # (size_b,): those of the rest
    pieces,
    size_a,
    size_b,
    PIECES_AT_ONCE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    length = size_a + size_b
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, pieces, PIECES_AT_ONCE):
        p = first + tl.arange(0, PIECES_AT_ONCE)
        inside = (p < pieces)[:, None] & (i < length)[None, :]
        at = partial + p.to(tl.int64)[:, None] * length + i[None, :]
        total += tl.sum(tl.load(at, mask=inside, other=0.0), axis=0)
    tl.store(a + i, total, mask=i < size_a)
    tl.store(b + i - size_a, total, mask=(i >= size_a) & (i < length))
