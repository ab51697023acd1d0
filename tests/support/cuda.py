"""Marks and checks of the CUDA tests; the fixtures of GPU backends are in tests/gpu/conftest.py."""

from __future__ import annotations

import os

import pytest
import torch

from mlpkern import MLPParams

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def assert_same_bits(one: MLPParams, other: MLPParams) -> None:
    for a, b in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(a.cpu(), b.cpu())


def need(found: object, name: str) -> None:
    """Skip without the tool called ``name``; under ``make cuda-check`` fail."""
    if not found:
        message = f"{name} is not installed"
        if os.environ.get("MLPKERN_CUDA_CHECK", "0") not in ("", "0"):
            pytest.fail(message)
        pytest.skip(message)
