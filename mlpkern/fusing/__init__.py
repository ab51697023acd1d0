"""Swaps the layers of an existing model for the fused ones, and back."""

from __future__ import annotations

from mlpkern.fusing.swap import fuse
from mlpkern.fusing.undo import unfuse

__all__ = ["fuse", "unfuse"]
