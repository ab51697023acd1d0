"""Outputs on a GPU are allocated by torch itself, in every mode of torch; no GPU is needed.

test_device.py has what needs a GPU: streams, memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import mlpkern

pytest.importorskip("mlpkern._C", reason=mlpkern.backends()["cpu"].reason, exc_type=ImportError)
from mlpkern import _C


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 5), (2, 3, 4)])
def test_an_output_is_torch_s_own(shape, dtype):
    output = _C.torch_output_like(torch.ones(shape, dtype=dtype).requires_grad_())
    assert type(output) is torch.Tensor
    assert (output.shape, output.dtype) == (shape, dtype)
    assert output.is_contiguous()
    assert not output.requires_grad
    assert output.untyped_storage().resizable()  # which foreign memory is not
    output.untyped_storage().resize_(1 << 16)
    output.fill_(1)


def test_modes_of_torch_change_nothing_but_what_they_are_for():
    like = torch.ones(4, 5)
    with torch.inference_mode():
        assert _C.torch_output_like(like).is_inference()
    assert not _C.torch_output_like(like).is_inference()
    with torch.device("meta"):
        assert _C.torch_output_like(like).device.type == "cpu"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _C.torch_output_like(like).dtype == torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert _C.torch_output_like(like).dtype == torch.float32
    finally:
        torch.set_default_dtype(before)


def test_a_tensor_without_memory_is_refused():
    like = torch.ones(4, 5)
    with FakeTensorMode(), pytest.raises(TypeError, match=r"torch\.empty: result must be a real"):
        _C.torch_output_like(like)


def test_torch_s_own_error_says_that_memory_is_out():
    like = torch.ones(1).expand(1 << 58)
    with pytest.raises(RuntimeError, match=r"can't allocate memory|not enough memory|overflow"):
        _C.torch_output_like(like)


def test_no_source_makes_outputs_of_a_gpu_in_another_way():
    """DLPack's allocator would hide torch's memory behind its own deleter."""
    folder = Path(__file__).resolve().parents[2] / "csrc"
    sources = {path.name: path.read_text("utf-8") for path in folder.rglob("*.[ch]*")}
    named = {name for name, text in sources.items() if "managed_tensor_allocator" in text}
    assert named == {"dlpack.h"}  # which declares it
