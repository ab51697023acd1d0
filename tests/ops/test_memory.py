"""The pool of output memory: reuse, its limit, and that live memory is never reused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import mlpkern

_C = pytest.importorskip(
    "mlpkern._C", reason=mlpkern.backends()["cpu"].reason, exc_type=ImportError
)

ROWS = 50_000  # 10 floats each: 2 MB, well above the smallest pooled block


@pytest.fixture(autouse=True)
def _own_pool() -> Iterator[None]:
    limit = _C.cache_info()["limit_bytes"]
    mlpkern.empty_cache()
    yield
    _C.set_cache_limit(limit)
    mlpkern.empty_cache()


def gathered(value: float) -> torch.Tensor:
    ids = torch.zeros(ROWS, 1, dtype=torch.int64)
    return _C.embedding_gather_forward(ids, torch.full((1, 10), value))


def test_a_freed_output_is_used_again() -> None:
    first = gathered(1.0)
    address, hits = first.data_ptr(), _C.cache_info()["hits"]
    del first
    assert gathered(2.0).data_ptr() == address
    assert _C.cache_info()["hits"] == hits + 1


def test_living_outputs_share_no_memory() -> None:
    outputs = [gathered(float(i)) for i in range(4)]
    view = outputs[0][1:]
    del outputs[0]  # its memory lives on in the view
    outputs += [gathered(9.0)]
    assert (view == 0).all()
    for output, value in zip(outputs, (1.0, 2.0, 3.0, 9.0), strict=True):
        assert (output == value).all()


def test_the_limit_bounds_what_is_kept() -> None:
    _C.set_cache_limit(3 << 20)  # one such block and no second
    outputs = [gathered(float(i)) for i in range(3)]
    del outputs
    assert 2_000_000 <= _C.cache_info()["kept_bytes"] <= 3 << 20
    _C.set_cache_limit(0)
    assert _C.cache_info()["kept_bytes"] == 0
    del_me = gathered(1.0)
    del del_me
    assert _C.cache_info()["kept_bytes"] == 0


def test_empty_cache_frees_everything() -> None:
    gathered(1.0)
    assert _C.cache_info()["kept_bytes"] > 0
    mlpkern.empty_cache()
    assert _C.cache_info()["kept_bytes"] == 0


def test_kernels_leave_the_callers_subnormals_alone() -> None:
    # The kernels flush subnormals to zero; this mode must end with the call.
    gathered(1.0)
    x = torch.randn(4096, 30)
    _C.linear_tanh_forward(x, torch.randn(64, 30), None)
    assert (torch.tensor([1e-38]) * 0.1).item() != 0.0
