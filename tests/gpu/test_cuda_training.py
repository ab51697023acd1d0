"""``train_steps`` and ``evaluate`` of the backend ``cuda`` without a GPU: checks, paths, precision.

The compiled functions are fakes that compute on a CPU. On a GPU test_train_steps.py checks the
results of the real ones.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.train_problems import problem
from torch import Tensor

import mlpkern
from mlpkern.ops import evaluate as evaluate_op
from mlpkern.ops import train_steps as train_steps_op
from mlpkern.reference import backend as reference

pytest.importorskip("mlpkern._C", reason=mlpkern.backends()["cpu"].reason, exc_type=ImportError)
from mlpkern.cuda import models as cuda_training

pytestmark = pytest.mark.usefixtures("one_thread")


class FakeKernels(SimpleNamespace):
    """The functions of _C that ``mlpkern.cuda.models`` calls; computes with the reference."""

    def __init__(self, path: str) -> None:
        super().__init__(path=path, asked=[], calls=[])

    def train_steps_path(self, *sizes: object) -> str:
        self.asked.append(sizes)
        return self.path

    def evaluate_path(self, *sizes: object) -> str:
        self.asked.append(sizes)
        return self.path

    def train_steps(self, *args: object) -> Tensor:
        self.calls.append(("train_steps", args[-1]))
        return reference.train_steps(*args[:-1])

    def evaluate(self, *args: object) -> tuple[Tensor, Tensor]:
        self.calls.append(("evaluate", args[-1]))
        return reference.evaluate(*args[:-1])


@pytest.fixture(params=["narrow", ""])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeKernels:
    kernels = FakeKernels(request.param)
    monkeypatch.setattr(cuda_training, "_C", kernels)
    monkeypatch.setattr(cuda_training, "_multiprocessors", lambda _device: 132)
    for op in (train_steps_op, evaluate_op):
        monkeypatch.setattr(op, "select", lambda _op, _tensor: cuda_training)
    return kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_where_it_holds_the_model_else_the_ops(fake, dtype):
    case = problem(M=2, hidden=(9, 7), C=5, dtype=dtype)
    expected = reference_run(case)
    losses, params = case.run(momentum=0.9, max_grad_norm=2.0)
    ours = dtype == torch.float32 and fake.path == "narrow"
    assert [name for name, _ in fake.calls] == (["train_steps"] if ours else [])
    if dtype == torch.float32:
        assert fake.asked == [(None, 11, 3, 4, 5, [9, 7], 8, 0, True, True, False)]
    else:
        assert fake.asked == []
    torch.testing.assert_close(losses, expected[0])
    for one, other in zip(params.tensors(), expected[1].tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def reference_run(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_steps_op, "select", lambda _op, _tensor: reference)
        return case.run(momentum=0.9, max_grad_norm=2.0)


def test_what_is_asked_of_the_path_for_adamw(fake):
    case = problem()
    case.lr = 0.01
    case.run(optimizer="adamw")
    assert fake.asked == [(None, 11, 3, 4, 11, [16], 8, 1, False, False, False)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [1 << 24, 16 * 7])
def test_an_evaluation_by_the_kernel_and_by_the_ops(fake, dtype, block, monkeypatch):
    monkeypatch.setattr(cuda_training, "_BLOCK", block)
    case = problem(M=3, C=5, dtype=dtype)
    data = (case.inputs.to(torch.uint8), case.targets.to(torch.int16))
    found = mlpkern.evaluate(case.params, *data)
    expected = reference.evaluate(case.params.tensors(), *data)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.to(dtype))
    nothing = mlpkern.evaluate(case.params, case.inputs[:0], case.targets[:0])
    assert all(value.isnan().all() for value in nothing)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_float32_products_is_that_of_torch(fake, precision):
    case, before = problem(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        case.run()
        mlpkern.evaluate(case.params, case.inputs, case.targets)
    finally:
        torch.set_float32_matmul_precision(before)
    tf32 = precision != "highest"
    assert fake.asked[0][-1] == tf32
    assert fake.calls == ([("train_steps", tf32), ("evaluate", tf32)] if fake.path else [])


BAD = [("batches", (4, 2), 60, "row"), ("inputs", (3, 1), 11, "id"), ("targets", (9,), 5, "target")]


@pytest.mark.parametrize(("name", "position", "limit", "noun"), BAD)
@pytest.mark.parametrize("value", [-1, "limit"])
def test_bad_ids_raise_before_anything_is_touched(fake, name, position, limit, noun, value):
    case = problem(C=5)
    value = limit if value == "limit" else value
    getattr(case, name)[position] = value
    before, state = case.params.clone(), mlpkern.OptimizerState.zeros(case.params)
    text = rf"{name}\[{', '.join(map(str, position))}\] is {value}, expected 0 <= {noun} < {limit}$"
    with pytest.raises(IndexError, match=f"^train_steps: {text}"):
        mlpkern.train_steps(case.params, case.inputs, case.targets, case.batches, 0.1, state=state)
    if name != "batches":
        with pytest.raises(IndexError, match=f"^evaluate: {text}"):
            mlpkern.evaluate(case.params, case.inputs, case.targets)
    assert fake.calls == fake.asked == []
    assert state.step == 0
    for one, other in zip(case.params.tensors(), before.tensors(), strict=True):
        assert torch.equal(one, other)


def test_bad_row_numbers_of_one_model_and_of_all(fake):
    case = problem(M=2)
    case.batches[3, 1] = 99
    with pytest.raises(IndexError, match=r"batches\[3, 1\] is 99, expected 0 <= row < 60"):
        case.run()
    case.batches = case.batches.expand(2, -1, -1).clone()
    case.batches[0, 3, 1] = 0
    with pytest.raises(IndexError, match=r"batches\[1, 3, 1\] is 99"):
        case.run()


def test_ids_of_every_type(fake):
    for dtype in (torch.uint8, torch.int16, torch.int32):
        case = problem()
        expected = case.run()[0]
        case.inputs, case.targets = case.inputs.to(dtype), case.targets.to(dtype)
        case.batches = case.batches.to(dtype)
        torch.testing.assert_close(case.run()[0], expected)


# What explain says


def way(op: str, params: mlpkern.MLPParams, **arguments: object) -> str:
    return cuda_training.which_way(op, params, arguments)


def test_the_way_is_explained(fake):
    case = problem()
    if fake.path:
        assert way("train_steps", case.params, batches=case.batches) == (
            "one block per model, its hidden units dealt out to warps, products in float32"
        )
        fake.path = "block"
        text = "one block per model, each product by the whole block, products in float32"
        assert way("train_steps", case.params, batches=case.batches) == text
        assert way("evaluate", case.params) == text
    else:
        memory = "the model does not fit into one multiprocessor's shared memory: the ops"
        graph = f"{memory} in a captured CUDA graph, one model after another"
        assert way("train_steps", case.params, batches=case.batches) == graph
        assert way("evaluate", case.params) == f"{memory}, one model after another"
    double = problem(dtype=torch.float64).params
    assert way("train_steps", double).startswith("float64: the ops in a captured CUDA graph")
    assert way("evaluate", double) == "float64: the ops, one model after another"
    assert way("train_steps", case.params) == "with batches among the arguments it can be said how"


@pytest.mark.parametrize(
    ("rows", "models", "by_blocks"),
    [(32, 1, True), (32, 132, True), (32, 1000, True), (4096, 1, False), (4096, 132, True)],
)
def test_few_models_with_large_steps_take_the_whole_card(fake, rows, models, by_blocks):
    params = problem(V=27, D=10, hidden=(200,), M=models).params
    said = way("train_steps", params, batches=torch.zeros(1, rows, dtype=torch.int64))
    large = "a step is so large that the whole card is faster: the ops in a captured CUDA graph"
    assert said.startswith(large) == (not by_blocks)


def test_the_options_that_the_way_depends_on(fake):
    case = problem()
    way("train_steps", case.params, batches=case.batches, momentum=0.9, max_grad_norm=1.0)
    way("train_steps", case.params, batches=case.batches, optimizer="adamw")
    assert [asked[6:10] for asked in fake.asked] == [(8, 0, True, True), (8, 1, False, False)]
