"""Writes tanh_table.h: piecewise polynomials of tanh for the AVX-512 kernel (run it to regenerate).

[0, 9.1] is cut at round(a * STEPS_PER_UNIT). Each piece has a center near its middle, chosen so
that tanh(center) is almost exactly a float32 (Gal's accurate tables), and a polynomial in
a - center whose coefficients fit tanh at Chebyshev nodes, weighted by 1 / tanh so that the relative
error is even.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

PIECES, DEGREE, STEPS_PER_UNIT, LAST = 32, 6, 3.4, 9.1


def center_of(piece: int) -> np.float32:
    """A float32 near the middle of the piece whose tanh rounds to float32 with the least error."""
    if piece == 0:
        return np.float32(0)
    middle = np.float32(piece / STEPS_PER_UNIT)
    spacing = np.spacing(middle)
    candidates = middle + spacing * np.arange(-4000, 4001, dtype=np.float32)
    exact = np.tanh(candidates.astype(np.longdouble))
    error = np.abs(exact - exact.astype(np.float32)) / exact
    return np.float32(candidates[np.argmin(error)])


def coefficients(piece: int, center: np.float32) -> np.ndarray:
    """Coefficients of (a - center)^0 … (a - center)^DEGREE as float32."""
    middle, half = piece / STEPS_PER_UNIT, 0.5 / STEPS_PER_UNIT * 1.001
    low, high = (0.0, half) if piece == 0 else (middle - half, middle + half)
    nodes = np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    a = ((low + high) / 2 + (high - low) / 2 * nodes).astype(np.longdouble)
    t, value = a - center, np.tanh(a)
    first = 2 if piece == 0 else 1  # tanh(t) = t + ... keeps tiny arguments exact
    known = t if piece == 0 else np.longdouble(np.float32(np.tanh(np.longdouble(center))))
    powers = np.stack([t**k for k in range(first, DEGREE + 1)], axis=1)
    scale = powers.max(axis=0)
    fit, *_ = np.linalg.lstsq(
        (powers / scale / value[:, None]).astype(float), ((value - known) / value).astype(float)
    )
    head = [0.0, 1.0] if piece == 0 else [float(known)]
    return np.array([*head, *(fit / scale)], dtype=np.float32)


def main() -> None:
    """Write the header beside this file."""
    centers = np.array([center_of(piece) for piece in range(PIECES)])
    table = np.stack([coefficients(piece, c) for piece, c in enumerate(centers)])

    def row(values: np.ndarray) -> str:
        return ", ".join(f"{float(v):.9e}f" for v in values)

    lines = [
        "// Written by tanh_table.py, which says what the numbers are; do not edit.",
        "// clang-format off",
        "#pragma once",
        "",
        f"constexpr float kTanhLast = {LAST}f, kTanhStepsPerUnit = {STEPS_PER_UNIT}f;",
        f"constexpr int kTanhDegree = {DEGREE};",
        f"alignas(64) constexpr float kTanhCenter[{PIECES}] = {{{row(centers)}}};",
        f"alignas(64) constexpr float kTanhCoefficient[{DEGREE + 1}][{PIECES}] = {{",
        ",\n".join("{" + row(table[:, k]) + "}" for k in range(DEGREE + 1)),
        "};",
    ]
    Path(__file__).with_name("tanh_table.h").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
