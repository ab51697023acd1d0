"""``linear_tanh`` as matrix products with tanh in the epilogue, or its slope in an operand.

    forward    y[n, h] = tanh(sum over k of x[n, k] w[h, k] + b[h])
    backward   dx[n, k] = sum over h of dz[n, h] w[h, k]
               dw[h, k] = sum over n of dz[n, h] x[n, k],   db[h] = sum over n of dz[n, h]

with dz = g (1 - y^2) formed from g and y where it is used, never in memory. A program owns a tile
of y, of dx, or of dw over one piece of the batch; the pieces are added by
`linear_tanh_elements.linear_tanh_pieces_kernel`. dx and dw are programs of one launch, since at
small batches a launch costs more than the work.

x, w, g have any strides; y, dx, dw, db are contiguous. What steps from row to row is a multiple of
UNIT elements and passed in units of that many: so the compiler knows how far rows are aligned, also
where a size is no multiple of 16, which is all that it finds out itself.

The sums are cut by BLOCK_K and BLOCK_R alone; the other tile sizes leave the bits as they are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mlpkern.triton_kernels.device.launch import interpreted
from mlpkern.triton_kernels.linear_tanh_elements import slope_of, tanh_of

_INTERPRETED = tl.constexpr(interpreted())


@triton.jit
def _add_product(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b in float32."""
    if _INTERPRETED:  # its tl.dot would take the bits of bfloat16 for integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit(do_not_specialize=["N", "bucket"])
def linear_tanh_forward_kernel(
    x,  # (N, K)
    w,  # (H, K)
    b,  # (H,)
    y,  # (N, H)
    N,
    H_units,
    K_units,
    x_n_units,
    x_k,
    w_h_units,
    w_k,
    b_h,
    bucket,
    HAS_BIAS: tl.constexpr,
    UNIT_H: tl.constexpr,
    UNIT_K: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    H = H_units * UNIT_H
    K = K_units * UNIT_K
    tiles = tl.cdiv(H, BLOCK_H)  # neighbours share rows of x
    n = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    h = (tl.program_id(0) % tiles) * BLOCK_H + tl.arange(0, BLOCK_H)
    x_n = x + n[:, None] * (x_n_units * UNIT_K)
    w_h = w + h.to(tl.int64)[None, :] * (w_h_units * UNIT_K)
    acc = tl.zeros((BLOCK_N, BLOCK_H), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        k64 = k.to(tl.int64)
        xs = tl.load(x_n + k64[None, :] * x_k, mask=(n < N)[:, None] & (k < K)[None, :], other=0.0)
        ws = tl.load(w_h + k64[:, None] * w_k, mask=(h < H)[None, :] & (k < K)[:, None], other=0.0)
        acc = _add_product(xs, ws, acc, PRECISION)
    if HAS_BIAS:
        acc += tl.load(b + h.to(tl.int64) * b_h, mask=h < H, other=0.0).to(tl.float32)[None, :]
    inside = (n < N)[:, None] & (h < H)[None, :]
    tl.store(y + n[:, None] * H + h[None, :], tanh_of(acc), mask=inside)


@triton.jit(do_not_specialize=["N", "piece_rows", "piece_size", "bucket"])
def linear_tanh_backward_kernel(
    g,  # (N, H)
    y,  # (N, H)
    x,  # (N, K)
    w,  # (H, K)
    dx,  # (N, K)
    dw,  # (H, K), or of the first of P pieces of the batch
    db,  # (H,), or of the first of P pieces of the batch
    N,
    H_units,
    K_units,
    g_n_units,
    g_h,
    x_n_units,
    x_k,
    w_h_units,
    w_k,
    piece_rows,
    piece_size,  # from the dw and db of a piece to those of the next
    bucket,
    NEED_X: tl.constexpr,
    NEED_W: tl.constexpr,
    NEED_B: tl.constexpr,
    UNIT_H: tl.constexpr,
    UNIT_K: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    H = H_units * UNIT_H
    K = K_units * UNIT_K
    g_n = g_n_units * UNIT_H
    x_n = x_n_units * UNIT_K
    w_h = w_h_units * UNIT_K
    pid = tl.program_id(0)
    tiles_k = tl.cdiv(K, BLOCK_K)
    programs = 0  # of dw and db, whose sums are longer and so come first
    if NEED_W or NEED_B:
        across = tiles_k if NEED_W else 1
        down = tl.cdiv(H, BLOCK_H)
        programs = (tl.cdiv(N, piece_rows) * (down * across)).to(tl.int32)
        if pid < programs:
            piece = (pid // (down * across)).to(tl.int64)
            first = piece * piece_rows
            _weight_tile(
                g + first * g_n,
                y + first * H,
                x + first * x_n,
                dw + piece * piece_size,
                db + piece * piece_size,
                tl.minimum(piece_rows, N - first).to(tl.int32),
                H,
                K,
                g_n,
                g_h,
                x_n,
                x_k,
                pid // across % down,
                pid % across,
                NEED_W,
                NEED_B,
                PRECISION,
                BLOCK_R,
                BLOCK_H,
                BLOCK_K,
            )
    if NEED_X:  # noqa: SIM102 (settled by the compiler, unlike the next)
        if pid >= programs:
            tile = pid - programs
            first = (tile // tiles_k).to(tl.int64) * BLOCK_N
            _input_tile(
                g + first * g_n,
                y + first * H,
                w,
                dx + first * K,
                tl.minimum(BLOCK_N, N - first).to(tl.int32),
                H,
                K,
                g_n,
                g_h,
                w_h,
                w_k,
                tile % tiles_k,
                PRECISION,
                BLOCK_R,
                BLOCK_N,
                BLOCK_K,
            )


@triton.jit
def _weight_tile(
    g,  # (rows, H): from here on, of the piece
    y,
    x,
    dw,
    db,
    rows,
    H,
    K,
    g_n,
    g_h,
    x_n,
    x_k,
    tile_h,
    tile_k,
    NEED_W: tl.constexpr,
    NEED_B: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of dw over the rows of one piece, and in the first column of tiles db."""
    h = tile_h * BLOCK_H + tl.arange(0, BLOCK_H)
    k = tile_k * BLOCK_K + tl.arange(0, BLOCK_K)
    g_h_at = g + h.to(tl.int64)[None, :] * g_h
    x_k_at = x + k.to(tl.int64)[None, :] * x_k
    acc = tl.zeros((BLOCK_H, BLOCK_K), tl.float32)
    sums = tl.zeros((BLOCK_R, BLOCK_H), tl.float32)
    for start in range(0, rows, BLOCK_R):
        r = start + tl.arange(0, BLOCK_R)
        n = r.to(tl.int64)[:, None]
        inside = (r < rows)[:, None] & (h < H)[None, :]
        dz = slope_of(g_h_at + n * g_n, y + n * H + h[None, :], inside)
        if NEED_B:
            sums += dz
        if NEED_W:
            xs = tl.load(x_k_at + n * x_n, mask=(r < rows)[:, None] & (k < K)[None, :], other=0.0)
            acc = _add_product(tl.trans(dz.to(xs.dtype)), xs, acc, PRECISION)
    if NEED_W:
        inside = (h < H)[:, None] & (k < K)[None, :]
        tl.store(dw + h.to(tl.int64)[:, None] * K + k[None, :], acc, mask=inside)
    if NEED_B:  # noqa: SIM102 (settled by the compiler, unlike the next)
        if tile_k == 0:
            tl.store(db + h, tl.sum(sums, axis=0), mask=h < H)


@triton.jit
def _input_tile(
    g,  # (rows, H): from here on, of the tile
    y,
    w,
    dx,
    rows,
    H,
    K,
    g_n,
    g_h,
    w_h,
    w_k,
    tile_k,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A tile of dx."""
    r = tl.arange(0, BLOCK_N)
    k = tile_k * BLOCK_K + tl.arange(0, BLOCK_K)
    n = r.to(tl.int64)[:, None]
    w_k_at = w + k.to(tl.int64)[None, :] * w_k
    acc = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for start in range(0, H, BLOCK_R):
        h = start + tl.arange(0, BLOCK_R)
        h64 = h.to(tl.int64)
        inside = (r < rows)[:, None] & (h < H)[None, :]
        dz = slope_of(g + n * g_n + h64[None, :] * g_h, y + n * H + h[None, :], inside)
        ws = tl.load(
            w_k_at + h64[:, None] * w_h, mask=(h < H)[:, None] & (k < K)[None, :], other=0.0
        )
        acc = _add_product(dz.to(ws.dtype), ws, acc, PRECISION)
    inside = (r < rows)[:, None] & (k < K)[None, :]
    tl.store(dx + n * K + k[None, :], acc, mask=inside)
