"""Places labels at crowded points so that none covers another."""

from __future__ import annotations

import numpy as np

ANGLES = 32  # directions tried at each distance
GAP = 2.0  # between labels
RINGS, RINGS_AT_ONCE = 400, 8


def place_labels(
    points: np.ndarray, sizes: np.ndarray, area: tuple[float, float, float, float]
) -> np.ndarray:
    """The centers (P, 2) of boxes with ``sizes`` (P, 2) for ``points`` (P, 2), without overlaps.

    A label stays on its point if possible. The others move outwards, ring by ring, to the first
    place that covers no label and no point of a moved label and lies in ``area`` (left, bottom,
    right, top). A label without a place on 400 rings stays on its point.

    >>> points, sizes = np.array([[0.0, 0.0], [1.0, 0.0]]), np.full((2, 2), 4.0)
    >>> centers = place_labels(points, sizes, (-20, -20, 20, 20))
    >>> bool(abs(centers[0] - centers[1]).max() >= 4)
    True
    """
    boxes = sizes + GAP
    centers = points.astype(float).copy()
    placed = np.zeros(len(points), dtype=bool)
    distance = np.abs(points[:, None] - points[None]).max(-1)
    crowding = (distance < boxes.max()).sum(1)
    for i in np.argsort(crowding, kind="stable"):
        placed[i] = not _covered(centers[i : i + 1], boxes[i], centers[placed], boxes[placed])[0]
    moved = np.flatnonzero(~placed)
    for i in moved[np.argsort(-crowding[moved], kind="stable")]:
        others = points[moved[moved != i]]
        away = points[i] - points[distance[i] < 3 * boxes.max()].mean(0)
        for first in range(0, RINGS, RINGS_AT_ONCE):
            tried = points[i] + _rings(first, away, boxes[i].max())  # (C, 2)
            free = _inside(tried, boxes[i], area)
            free &= ~_covered(tried, boxes[i], centers[placed], boxes[placed])
            free &= ~_covered(tried, boxes[i], others, np.full_like(others, GAP))
            if free.any():
                centers[i] = tried[free.argmax()]
                break
        placed[i] = True
    return centers


def _rings(first: int, away: np.ndarray, size: float) -> np.ndarray:
    """Places (C, 2) around a point, from near to far, in each ring beginning with ``away``."""
    start = np.arctan2(away[1], away[0])
    turns = np.arange(ANGLES)  # 0, -1, 1, -2, 2, …
    angles = start + np.where(turns % 2, -(turns + 1) // 2, turns // 2) * (2 * np.pi / ANGLES)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (A, 2)
    radii = (0.75 + 0.25 * np.arange(first, first + RINGS_AT_ONCE)) * size
    return (radii[:, None, None] * directions).reshape(-1, 2)


def _covered(
    tried: np.ndarray, box: np.ndarray, others: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Whether ``box`` overlaps one of the ``others``, for each of the centers ``tried``: (C,)."""
    return (np.abs(tried[:, None] - others) < (box + boxes) / 2).all(-1).any(1)


def _inside(
    tried: np.ndarray, box: np.ndarray, area: tuple[float, float, float, float]
) -> np.ndarray:
    left, bottom, right, top = area
    low, high = tried - box / 2, tried + box / 2
    return np.asarray(((low >= (left, bottom)) & (high <= (right, top))).all(1))
