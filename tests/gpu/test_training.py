"""``train_steps``, ``evaluate`` and what the language model makes of them, on a GPU.

Every option and shape is compared with stock by test_train_steps.py and its like, which run on the
backend cuda where there is one. Here: both ways of the backend, the kernels that hold a model in
one multiprocessor and the ops in a CUDA graph; streams, devices, bits, precision, bad ids.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from support.lm_words import make_words
from support.train_problems import OPTIONS, Problem, assert_as_close, check, problem

import mlpkern
from mlpkern import MLPParams, OptimizerState
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.words.data import build_dataset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

# Sizes of the lecture, for the kernels; a model that no multiprocessor holds, for the graph.
LECTURE = {"V": 27, "D": 10, "hidden": (200,), "N": 32, "rows": 500}
LARGE = {"V": 3000, "D": 32, "hidden": (900, 300), "N": 64, "S": 12, "rows": 500}
GRAPH = "the ops in a captured CUDA graph"
CONFIG = TrainConfig(embedding_dim=4, hidden=(24,), batch_size=8, steps=120)


@pytest.fixture(autouse=True)
def _backend() -> Iterator[None]:
    status = mlpkern.backends()["cuda"]
    if not status.available:
        pytest.skip(f"backend cuda: {status.reason}")
    with mlpkern.use_backend("cuda"):
        yield
    mlpkern.check_errors()


def way(case: Problem, **options: object) -> str:
    data = (case.inputs, case.targets, case.batches, 0.1)
    return mlpkern.explain("train_steps", case.params, *data, **options)


def on_cpu(case: Problem) -> Problem:
    data = (tensor.cpu() for tensor in (case.inputs, case.targets, case.batches))
    return Problem(case.params.map(lambda t: t.cpu()), *data, case.lr)


def assert_same_bits(one: MLPParams, other: MLPParams) -> None:
    for a, b in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(a.cpu(), b.cpu())


# Which way


def test_the_lecture_s_model_takes_a_kernel_and_others_the_graph():
    assert "hidden units dealt out to warps" in way(problem(**LECTURE, device="cuda"))
    assert "one block per model" in way(problem(device="cuda", hidden=(9, 16)))
    assert GRAPH in way(problem(**LARGE, device="cuda"))
    assert f"float64: {GRAPH}" in way(problem(device="cuda", dtype=torch.float64))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_graph_in_every_option(name):
    """float64 takes it whatever the sizes: it has to equal stock to 1e-12."""
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
        torch.cuda._sleep(200_000_000)  # some 0.1 s: work on another stream would be too early
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
    # rounding may turn a row or two whose two largest logits are nearly equal
    torch.testing.assert_close(found.accuracy.cpu(), expected.accuracy, rtol=0, atol=2 / 5003)


# The language model


def dataset():
    return build_dataset(make_words(), block_size=3)


def test_auto_takes_one_call_a_chunk_and_follows_the_cpu():
    from mlpkern.lm.training.engines import RunEngine, choose_engine
    from mlpkern.lm.training.trainer import Trainer

    losses = []
    for device in ("cuda", "cpu"):
        with mlpkern.use_backend("cuda" if device == "cuda" else "reference"):
            engine, _ = choose_engine("auto", torch.device(device))
            assert isinstance(engine, RunEngine) or device == "cpu"
            trainer = Trainer.start(CONFIG, dataset(), RunEngine(), device=device)
            trainer.train()
            losses.append(torch.cat([p.detach().flatten().cpu() for p in
                                     trainer.state.model.parameters()]))  # fmt: skip
    torch.testing.assert_close(*losses, rtol=1e-2, atol=1e-3)


def test_a_population_has_the_bits_of_single_trainings():
    from mlpkern.lm import population
    from mlpkern.lm.training.engines import RunEngine
    from mlpkern.lm.training.trainer import Trainer

    data = dataset().to("cuda")
    configs = [replace(CONFIG, seed=seed, lr=((0, 0.02 * (seed + 1)),)) for seed in range(5)]
    for config, result in zip(configs, population(configs, data), strict=True):
        trainer = Trainer.start(config, data, RunEngine(), device="cuda")
        losses = trainer.engine.run_chunk(trainer.state, config.steps)
        assert torch.equal(result.losses, losses.cpu())
        own = MLPParams.from_module(trainer.state.model)
        assert_same_bits(MLPParams.from_module(result.model), own)


def test_the_sweep_of_the_learning_rate_follows_the_cpu():
    from mlpkern.lm import lr_finder
    from mlpkern.lm.model.mlp import MLPLanguageModel

    data = dataset()
    model = MLPLanguageModel(len(data.vocab), 3, 4, (24,), seed=1)
    found = lr_finder(
        model.to("cuda"), data.splits["train"].to("cuda"), steps=100, high=1.0, seeds=range(32)
    )
    with mlpkern.use_backend("reference"):
        expected = lr_finder(
            model.to("cpu"), data.splits["train"], steps=100, high=1.0, seeds=range(3)
        )
    torch.testing.assert_close(found.losses[:3], expected.losses, rtol=1e-3, atol=1e-3)


def test_chunks_end_within_a_second():
    from mlpkern.lm import population
    from mlpkern.lm.many import group as population_group

    ends = [time.perf_counter()]

    class Progress:
        def advance(self, steps: int) -> None:
            ends.append(time.perf_counter())

        def row(self, row: object) -> None: ...

        def close(self) -> None: ...

    data = dataset().to("cuda")
    population([replace(CONFIG, steps=10, seed=s) for s in range(8)], data)  # loads libraries
    ends[0] = time.perf_counter()
    steps = 40_000
    population([replace(CONFIG, steps=steps, seed=s) for s in range(8)], data, progress=Progress())
    longest = max(b - a for a, b in itertools.pairwise(ends))
    assert longest < 2 * population_group.CHUNK_SECONDS <= 1
