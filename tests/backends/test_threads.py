"""The number of threads: it changes no bits, and torch.set_num_threads is obeyed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from support.backends import needs_native

import mlpkern

pytestmark = needs_native


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    with mlpkern.use_backend("cpu"):
        yield
    torch.set_num_threads(before)


def embedding(rows: int, width: int, count: int):
    weight = torch.randn(rows, width, requires_grad=True)
    ids = torch.randint(0, rows, (count, 3))
    return lambda: mlpkern.embedding_gather(ids, weight), (weight,)


def linear(n: int, k: int, h: int):
    x, w, b = (torch.randn(s, requires_grad=True) for s in ((n, k), (h, k), (h,)))
    return lambda: mlpkern.linear_tanh(x, w, b), (x, w, b)


def embedded(n: int, v: int, d: int, h: int, dtype: torch.dtype = torch.float32):
    ids = torch.randint(0, v, (n, 3))
    shapes = (v, d), (h, 3 * d), (h,)
    leaves = [torch.randn(s).to(dtype).requires_grad_() for s in shapes]
    return lambda: mlpkern.embedding_linear_tanh(ids, *leaves), leaves


def loss(n: int, c: int, **options):
    logits = torch.randn(n, c, requires_grad=True)
    target = torch.randint(0, c, (n,))
    return lambda: mlpkern.cross_entropy(logits, target, **options), (logits,)


# Each case is large enough for several threads; odd sizes leave a remainder.
CASES = {
    "embedding, small table": lambda: embedding(27, 10, 30_011),
    "embedding, large table": lambda: embedding(50_021, 16, 20_011),
    "linear, many rows": lambda: linear(8_209, 30, 200),
    "linear, wide": lambda: linear(257, 1_031, 517),
    "linear, one row of output": lambda: linear(20_011, 30, 1),
    "embedding and linear, folded": lambda: embedded(8_209, 27, 10, 200),
    "embedding and linear, folded in half": lambda: embedded(8_209, 27, 10, 200, torch.bfloat16),
    "embedding and linear, large table": lambda: embedded(4_001, 30_011, 16, 100),
    "embedding and linear, several chunks": lambda: embedded(30_011, 20_011, 30, 4),
    "loss, few classes": lambda: loss(40_009, 27),
    "loss, many classes": lambda: loss(67, 32_003),
    "loss, smoothed": lambda: loss(20_011, 27, label_smoothing=0.1, reduction="sum"),
}


@pytest.mark.parametrize("name", CASES)
def test_bits_do_not_depend_on_the_number_of_threads(name):
    function, leaves = CASES[name]()
    grad = torch.randn_like(function())
    results = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        output = function()
        results.append((output.detach(), *torch.autograd.grad(output, leaves, grad)))
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)


def test_set_num_threads_is_obeyed():
    from mlpkern import _C

    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert _C.num_threads() == threads


def in_a_new_thread(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def test_set_num_threads_is_obeyed_in_a_new_thread():
    from mlpkern import _C

    def set_and_count(threads):
        torch.set_num_threads(threads)
        return _C.num_threads()

    torch.set_num_threads(1)
    assert in_a_new_thread(_C.num_threads) == 1  # the number that the main thread set holds for all
    assert in_a_new_thread(lambda: set_and_count(2)) == 2
    assert in_a_new_thread(lambda: set_and_count(1)) == 1


def test_calls_from_several_threads_at_once():
    function, leaves = CASES["linear, many rows"]()
    with torch.no_grad():
        expected = function()
    results = [None] * 4

    def work(i):
        y = function()
        results[i] = (y.detach(), *torch.autograd.grad(y.sum(), leaves))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert torch.equal(result[0], expected)
        for one, other in zip(result, results[0], strict=True):
            assert torch.equal(one, other)
