"""Inputs at the limits on a GPU: ids out of range, more than 2^31 elements, too little memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.cuda import needs_gpu

import mlpkern

pytestmark = [needs_gpu, pytest.mark.usefixtures("backend")]

# Ids out of range


def test_a_bad_id_makes_its_row_nan_and_is_raised_later():
    table = torch.randn(27, 10, device="cuda", requires_grad=True)
    ids = torch.randint(0, 27, (50, 3), device="cuda")
    ids[3, 1] = 27
    rows = mlpkern.embedding_gather(ids, table)
    rows.nan_to_num().sum().backward()
    assert rows[3, 10:20].isnan().all()
    assert rows.isnan().sum() == 10
    assert table.grad.isfinite().all()
    with pytest.raises(IndexError, match=r"^embedding_gather: input\[3, 1\] is 27, expected 0 <= "):
        mlpkern.check_errors()
    mlpkern.check_errors()
    torch.cuda.synchronize()
    assert torch.equal(
        mlpkern.embedding_gather(ids[:3], table), F.embedding(ids[:3], table).flatten(1)
    )


def test_a_bad_target_makes_its_loss_and_gradient_nan():
    logits = torch.randn(40, 27, device="cuda", requires_grad=True)
    target = torch.randint(0, 27, (40,), device="cuda")
    target[7] = -3
    losses = mlpkern.cross_entropy(logits, target, reduction="none")
    losses.sum().backward()
    assert losses.isnan().nonzero().tolist() == [[7]]
    assert logits.grad[7].isnan().all()
    assert logits.grad.isnan().sum() == 27
    with pytest.raises(
        IndexError, match=r"^cross_entropy: target\[7\] is -3, expected 0 <= target"
    ):
        mlpkern.check_errors()


def test_of_many_bad_ids_one_is_named():
    ids = torch.full((1000, 3), 99, device="cuda")
    mlpkern.embedding_gather(ids, torch.randn(27, 10, device="cuda"))
    with pytest.raises(IndexError, match=r"input\[\d+, \d\] is 99, expected 0 <= id < 27"):
        mlpkern.check_errors()
    mlpkern.check_errors()


# Sizes

GIB = 2**30


def free_memory(bytes_needed: int) -> None:
    """Skip if the GPU has less free memory."""
    free, _ = torch.cuda.mem_get_info()
    if free < bytes_needed:
        pytest.skip(f"needs {bytes_needed / GIB:.0f} GiB of GPU memory, {free / GIB:.0f} are free")


def test_more_than_2_31_elements_of_logits():
    rows, classes = 2**31 // 32_000 + 700, 32_000
    free_memory(14 * GIB)
    logits = torch.empty(rows, classes, dtype=torch.bfloat16, device="cuda").normal_()
    target = torch.randint(0, classes, (rows,), device="cuda")
    logits.requires_grad_()
    losses = mlpkern.cross_entropy(logits, target, reduction="none")
    losses.sum().backward()
    part = logits[-300:].detach().float().requires_grad_()
    expected = F.cross_entropy(part, target[-300:], reduction="none")
    expected.sum().backward()
    torch.testing.assert_close(losses[-300:].float(), expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(logits.grad[-300:].float(), part.grad, rtol=2e-2, atol=1e-6)


def test_more_than_2_31_elements_of_embeddings():
    rows, width = 2**31 // 192 + 999, 64
    free_memory(24 * GIB)
    table = torch.randn(1000, width, device="cuda").bfloat16().requires_grad_()
    ids = torch.randint(0, 1000, (rows, 3), dtype=torch.int16, device="cuda")
    output = mlpkern.embedding_gather(ids, table)
    assert torch.equal(output[-50:], F.embedding(ids[-50:].int(), table).flatten(1))
    output.backward(torch.ones((), device="cuda").bfloat16().expand_as(output))
    counts = torch.bincount(ids.flatten().int(), minlength=1000)
    torch.testing.assert_close(table.grad[:, 5].float(), counts.float(), rtol=1e-2, atol=0)


def test_more_than_2_31_elements_of_activations():
    rows, width = 2**31 // 200 + 333, 200
    free_memory(24 * GIB)
    x = torch.randn(rows, 30, device="cuda").bfloat16()
    w = torch.randn(width, 30, device="cuda").bfloat16()
    y = mlpkern.linear_tanh(x, w)
    expected = torch.tanh(F.linear(x[-100:].float(), w.float()))
    torch.testing.assert_close(y[-100:].float(), expected, rtol=1e-2, atol=1e-2)


def test_out_of_memory_is_torch_s_own_error():
    x = torch.randn(1, 1, device="cuda").expand(2**38, 1)
    with pytest.raises(torch.OutOfMemoryError):
        mlpkern.linear_tanh(x, torch.randn(8, 1, device="cuda"))
