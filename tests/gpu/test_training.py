"""``train_steps`` and ``evaluate`` on a GPU.

The tests of tests/mlp, which run on the backend cuda where there is one, compare every option and
shape with stock torch. Here: both paths of the backend, the kernels that hold a model in one
multiprocessor and the ops in a CUDA graph; streams, devices, bits, precision, bad ids.
"""

from __future__ import annotations

import pytest
import torch
from support.cuda import assert_same_bits, needs_gpu
from support.train_problems import OPTIONS, Problem, assert_as_close, check, problem

import mlpkern
from mlpkern import OptimizerState

pytestmark = [needs_gpu, pytest.mark.usefixtures("cuda_backend")]

# Sizes of the lecture, for the kernels; a model too large for one multiprocessor, for the graph.
LECTURE = {"V": 27, "D": 10, "hidden": (200,), "N": 32, "rows": 500}
LARGE = {"V": 3000, "D": 32, "hidden": (900, 300), "N": 64, "S": 12, "rows": 500}
GRAPH = "the ops in a captured CUDA graph"


def way(case: Problem, **options: object) -> str:
    data = (case.inputs, case.targets, case.batches, 0.1)
    return mlpkern.explain("train_steps", case.params, *data, **options)


def on_cpu(case: Problem) -> Problem:
    data = (tensor.cpu() for tensor in (case.inputs, case.targets, case.batches))
    return Problem(case.params.map(lambda t: t.cpu()), *data, case.lr)


# Kernel or graph


def test_the_lecture_s_model_takes_a_kernel_and_others_the_graph():
    assert "hidden units dealt out to warps" in way(problem(**LECTURE, device="cuda"))
    assert "one block per model" in way(problem(device="cuda", hidden=(9, 16)))
    assert GRAPH in way(problem(**LARGE, device="cuda"))
    assert f"float64: {GRAPH}" in way(problem(device="cuda", dtype=torch.float64))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_graph_in_every_option(name):
    """float64 uses the graph for all sizes, and must equal stock to 1e-12."""
    check(problem(device="cuda", dtype=torch.float64), **OPTIONS[name])


def test_the_graph_of_a_large_model_and_of_several():
    check(problem(**LARGE, device="cuda"), **OPTIONS["all of sgd"])
    case = problem(**{**LARGE, "S": 6}, M=2, device="cuda")
    check(case, hidden_dropout=[0.0, 0.3], weight_decay=[0.1, 0.0], momentum=0.5)


def test_few_models_with_large_batches_take_the_graph_and_agree():
    case = problem(**{**LECTURE, "N": 4096, "S": 5}, device="cuda")
    assert GRAPH in way(case)
    check(case)


@pytest.mark.parametrize(("kernel", "hidden"), [("narrow", (200,)), ("block", (40, 30))])
def test_a_model_that_needs_the_last_kilobyte_trains(kernel, hidden):
    from mlpkern import _C

    def path(V: int) -> str:
        sizes = (V, 3, 10, 27, list(hidden), 32)
        return _C.train_steps_path(torch.cuda.current_device(), *sizes, 0, False, False, False)

    largest, beyond = 27, 1 << 20
    assert path(largest) == kernel
    while beyond - largest > 1:
        middle = (largest + beyond) // 2
        largest, beyond = (middle, beyond) if path(middle) == kernel else (largest, middle)
    case = problem(V=largest, D=10, hidden=hidden, C=27, N=32, S=2, device="cuda")
    assert "one block per model" in way(case)
    check(case)


# Trajectories and bits


def test_a_long_run_is_as_close_to_float64_as_stock():
    case = problem(**LECTURE, S=300, device="cuda")
    single, double = on_cpu(case).stock(), on_cpu(case).to(torch.float64).stock()
    losses, params = case.run()
    assert_as_close((losses.cpu(), params.map(lambda t: t.cpu())), single, double)


@pytest.mark.parametrize("sizes", [LECTURE, LARGE], ids=["kernel", "graph"])
@pytest.mark.parametrize("name", ["all of sgd", "all of adamw"])
def test_a_run_in_chunks_has_the_bits_of_one_and_so_has_every_run(sizes, name):
    case = problem(**{**sizes, "S": 24}, device="cuda")
    options = dict(OPTIONS[name])
    lr, kind = options.pop("lr", 0.1), options.get("optimizer", "sgd")
    found = []
    for cuts in ([24], [24], [1, 16, 7]):
        params = case.params.clone()
        state = OptimizerState.zeros(params, kind, options.get("momentum", 0.0))
        parts = [
            mlpkern.train_steps(params, case.inputs, case.targets, rows, lr, state=state, **options)
            for rows in case.batches.split(cuts)
        ]
        found.append([torch.cat(parts), *params.tensors(), *state.tensors()])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert torch.equal(one, other)


def test_more_models_than_multiprocessors_do_not_see_one_another():
    case = problem(M=300, S=9, device="cuda")
    losses, params = case.run(momentum=0.9)
    for m in (0, 131, 132, 299):
        alone = Problem(case.params.model(m), case.inputs, case.targets, case.batches)
        loss, trained = alone.run(momentum=0.9)
        assert torch.equal(loss, losses[m])
        assert_same_bits(trained, params.model(m))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_whose_loss_is_not_finite_stops_as_on_a_cpu(dtype):
    case = problem(M=3, device="cuda", dtype=dtype)
    case.lr = torch.full((3, 30), 0.1, dtype=torch.float64)
    case.lr[1, 4] = torch.finfo(dtype).max
    with pytest.warns(RuntimeWarning, match="model 1 at step 5"):
        losses, params = case.run()
    with pytest.warns(RuntimeWarning, match="model 1 at step 5"), mlpkern.use_backend("reference"):
        expected, trained = on_cpu(case).run()
    torch.testing.assert_close(losses[1, :5].cpu(), expected[1, :5], rtol=1e-3, atol=1e-4)
    assert not losses[1, 5].isfinite()
    assert losses[1, 6:].isnan().all()
    for m in (0, 2):
        torch.testing.assert_close(losses[m].cpu(), expected[m], rtol=1e-3, atol=1e-4)
        for one, other in zip(params.model(m).tensors(), trained.model(m).tensors(), strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=1e-2, atol=1e-4)


def test_the_float32_precision_of_torch_is_obeyed():
    case = problem(**LECTURE, S=20, device="cuda")
    exact = on_cpu(case).to(torch.float64).stock()[1]
    errors, before = {}, torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            pairs = zip(case.run()[1].tensors(), exact.tensors(), strict=True)
            errors[precision] = max((a.cpu().double() - b).abs().max().item() for a, b in pairs)
    finally:
        torch.set_float32_matmul_precision(before)
    assert errors["highest"] < 2e-5
    assert errors["highest"] < errors["high"] < 5e-3


# Streams, devices, ids


@pytest.mark.parametrize("sizes", [LECTURE, LARGE], ids=["kernel", "graph"])
def test_steps_wait_for_the_current_stream(sizes):
    case = problem(**{**sizes, "S": 6}, device="cuda")
    expected = case.run()
    late, side = torch.zeros_like(case.inputs), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # some 0.1 s: work on another stream would come early
        late.copy_(case.inputs)
        case.inputs = late
        losses, params = case.run()
    side.synchronize()
    assert torch.equal(losses, expected[0])
    assert_same_bits(params, expected[1])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
@pytest.mark.parametrize("sizes", [LECTURE, LARGE], ids=["kernel", "graph"])
def test_steps_run_on_the_device_of_their_tensors(sizes):
    first = problem(**{**sizes, "S": 6}, device="cuda:0").run()
    case = problem(**{**sizes, "S": 6}, device="cuda:1")
    losses, params = case.run()
    assert losses.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    assert torch.equal(losses.cpu(), first[0].cpu())
    assert_same_bits(params, first[1])
    measured = mlpkern.evaluate(params, case.inputs, case.targets)
    assert measured.loss.device == losses.device


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "position", "text"),
    [
        ("batches", (4, 2), r"batches\[4, 2\] is 99, expected 0 <= row < 60"),
        ("inputs", (3, 1), r"inputs\[3, 1\] is 99, expected 0 <= id < 11"),
        ("targets", (9,), r"targets\[9\] is 99, expected 0 <= target < 11"),
    ],
)
def test_bad_ids_raise_before_anything_is_touched(name, position, text, dtype):
    case = problem(device="cuda", dtype=dtype)
    getattr(case, name)[position] = 99
    before, state = case.params.clone(), OptimizerState.zeros(case.params)
    data = (case.inputs, case.targets)
    with pytest.raises(IndexError, match=f"^train_steps: {text}$"):
        mlpkern.train_steps(case.params, *data, case.batches, 0.1, state=state)
    if name != "batches":
        with pytest.raises(IndexError, match=f"^evaluate: {text}$"):
            mlpkern.evaluate(case.params, *data)
    torch.cuda.synchronize()
    assert_same_bits(case.params, before)
    assert state.step == 0
    getattr(case, name)[position] = 0
    assert case.run()[0].isfinite().all()


# Evaluation


@pytest.mark.parametrize("sizes", [LECTURE, LARGE], ids=["kernel", "ops"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_evaluation_equals_that_of_the_reference(sizes, dtype):
    case = problem(**{**sizes, "rows": 5003}, M=2, device="cuda", dtype=dtype)
    found = mlpkern.evaluate(case.params, case.inputs.int(), case.targets)
    cpu = on_cpu(case)
    with mlpkern.use_backend("reference"):
        expected = mlpkern.evaluate(cpu.params, cpu.inputs, cpu.targets)
    tight = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    torch.testing.assert_close(found.loss.cpu(), expected.loss, **tight)
    # rounding may change the class of a row or two with nearly equal largest logits
    torch.testing.assert_close(found.accuracy.cpu(), expected.accuracy, rtol=0, atol=2 / 5003)
