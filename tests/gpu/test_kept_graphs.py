"""The CUDA graphs of ``train_steps`` are captured once and kept, without a GPU.

A stand-in for the capture replays the step with the numbers and the addresses of arrays that it saw
at the capture; only the contents of the arrays may change. test_training.py has the same on a GPU.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from support.train_problems import OPTIONS, Problem, problem

import mlpkern
from mlpkern import OptimizerState
from mlpkern.cuda import graphed_step, graphed_train_steps
from mlpkern.cuda.graphed_step import Run
from mlpkern.cuda.kept import Kept
from mlpkern.ops import train_steps as op

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs whose step was captured; `mlpkern.train_steps` uses graphs."""
    runs: list[Run] = []

    def capture(self: Run) -> Callable[[], None]:
        runs.append(self)
        return copy.copy(self)._once

    monkeypatch.setattr(op, "select", lambda _op, _tensor: graphed_train_steps)
    monkeypatch.setattr(graphed_step, "_can_capture", lambda _device: True)
    monkeypatch.setattr(Run, "_captured", capture)
    monkeypatch.setattr(graphed_train_steps, "_runs", Kept(4, Run.close))
    return runs


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def trained(case: Problem, cuts: list[int], **options: object) -> list[torch.Tensor]:
    """Losses, parameters and moments after training in chunks."""
    options = {"lr": 0.1, **options}
    lr, kind = options.pop("lr"), str(options.get("optimizer", "sgd"))
    lr = torch.linspace(lr, lr / 2, sum(cuts), dtype=torch.float64)
    params = case.params.clone()
    state = OptimizerState.zeros(params, kind, options.get("momentum", 0.0))
    data, parts, done = (case.inputs, case.targets), [], 0
    for count in cuts:
        part = slice(done, done + count)
        rows = case.batches[part]
        parts.append(mlpkern.train_steps(params, *data, rows, lr[part], state=state, **options))
        done += count
    return [torch.cat(parts, -1), *params.tensors(), *state.tensors()]


@pytest.mark.parametrize("name", ["sgd", "all of sgd", "all of adamw"])
@pytest.mark.parametrize("block", [3, 4096])
def test_chunks_of_any_length_take_one_capture(captured, name, block, monkeypatch):
    monkeypatch.setattr(graphed_step, "_BLOCK_STEPS", block)
    case = problem(M=3)
    expected = trained(case, [30], **OPTIONS[name])
    assert len(captured) == 1
    for cuts in ([1, 12, 17], [5, 25], [30]):
        found = trained(case, cuts, **OPTIONS[name])
        # The powers of AdamW's betas: on a CPU they depend on their position in a vector.
        exact = "optimizer" not in OPTIONS[name]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, **({"rtol": 0, "atol": 0} if exact else {}))
    assert len(captured) == 1


def test_other_models_data_rates_and_seeds_take_no_capture(captured):
    options = {"hidden_dropout": [0.2, 0.0, 0.5], "weight_decay": [0.0, 0.1, 0.2]}
    trained(problem(M=3), [30], **options)
    again = {"hidden_dropout": [0.1, 0.3, 0.2], "weight_decay": [0.3, 0.0, 0.1], "seed": 7}
    cases = [problem(M=3, seed=2), problem(M=3, seed=3, rows=200), problem(M=3, seed=4)]
    cases[2].inputs, cases[2].targets = cases[2].inputs.to(torch.uint8), cases[2].targets.int()
    found = [trained(case, [30], lr=0.05, **again) for case in cases]
    assert len(captured) == 1
    for case, mine in zip(cases, found, strict=True):
        mlpkern.empty_cache()
        assert equal(trained(case, [30], lr=0.05, **again), mine)
    assert len(captured) == 4


def test_data_that_changed_in_place_is_seen(captured):
    case = problem()
    trained(case, [30])
    case.inputs.copy_(problem(seed=9).inputs)
    found = trained(case, [30])
    mlpkern.empty_cache()
    assert equal(trained(case, [30]), found)
    assert len(captured) == 2


CHANGES = {
    "shape": ({"hidden": (17,)}, {}),
    "depth": ({"hidden": (9, 16)}, {}),
    "batch": ({"N": 9}, {}),
    "context": ({"T": 4}, {}),
    "dtype": ({"dtype": torch.float64}, {}),
    "momentum": ({}, {"momentum": 0.5}),
    "nesterov": ({}, {"momentum": 0.5, "nesterov": True}),
    "optimizer": ({}, OPTIONS["adamw"]),
    "betas": ({}, OPTIONS["adamw, other betas"]),
    "clipping": ({}, {"max_grad_norm": 1.0}),
    "smoothing": ({}, {"label_smoothing": 0.1}),
    "decay": ({}, {"weight_decay": 0.1}),
    "dropout": ({}, {"input_dropout": 0.1}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_step_is_made_of_takes_a_capture_of_its_own(captured, name):
    sizes, options = CHANGES[name]
    trained(problem(), [30])
    case = problem(**sizes)
    found = trained(case, [30], **options)
    assert len(captured) == 2
    mlpkern.empty_cache()
    assert equal(trained(case, [30], **options), found)


def test_frozen_tensors_and_switches_of_torch_take_one_of_their_own(captured):
    case = problem()
    trained(case, [30])
    frozen = problem()
    frozen.params.frozen = frozenset({"embedding"})
    trained(frozen, [30])
    assert len(captured) == 2
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        trained(case, [30])
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(captured) == 3
    with mlpkern.use_backend("reference"):
        trained(case, [30])
    assert len(captured) == 4
    trained(case, [30])
    assert len(captured) == 4


def test_few_are_kept_and_the_one_not_used_for_longest_goes(captured):
    cases = [problem(hidden=(width,), S=5) for width in range(2, 7)]
    for case in [*cases[:4], cases[0], cases[4]]:  # the first is used again; the second goes
        trained(case, [5])
    assert len(captured) == 5
    trained(cases[0], [5])
    assert len(captured) == 5
    trained(cases[1], [5])
    assert len(captured) == 6


def test_a_call_that_was_left_keeps_nothing(captured, monkeypatch):
    case = problem()
    expected = trained(case, [30])
    steps = Run._steps

    def interrupted(self: Run, count: int) -> None:
        steps(self, count // 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_steps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(case, [30])
    monkeypatch.setattr(Run, "_steps", steps)
    assert equal(trained(case, [30]), expected)
    assert len(captured) == 2


@pytest.mark.parametrize("where", ["_steps", "__init__"])
def test_where_memory_runs_out_kept_graphs_go_first(captured, where, monkeypatch):
    case, other = problem(M=2), problem(hidden=(7,), M=2)
    expected = trained(case, [30])
    mlpkern.empty_cache()
    trained(other, [30])
    kept, work, failures = graphed_train_steps._runs, getattr(Run, where), []

    def short_of_memory(self: Run, *args: object) -> None:
        if len(kept):
            failures.append(where)
            raise torch.OutOfMemoryError("no")
        work(self, *args)

    monkeypatch.setattr(Run, where, short_of_memory)
    assert equal(trained(case, [30]), expected)
    assert len(failures) == 1
    monkeypatch.setattr(Run, where, lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    mlpkern.empty_cache()
    with pytest.raises(torch.OutOfMemoryError):
        trained(case, [30])


def test_threads_that_want_the_same_get_one_each(captured):
    case = problem(S=60)
    expected, results = trained(case, [60]), []
    threads = [
        threading.Thread(target=lambda: results.append(trained(case, [7, 53]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(equal(result, expected) for result in results)
    assert len(graphed_train_steps._runs) == 1


def test_what_goes_is_closed():
    closed: list[str] = []
    kept: Kept[str] = Kept(2, closed.append)
    for name in "abc":
        with kept.borrowed(name, lambda name=name: name) as value:
            assert value == name
    assert closed == ["a"]
    with kept.borrowed("b", lambda: "another"), kept.borrowed("b", lambda: "second"):
        pass
    assert closed == ["a", "second"]
    assert kept.clear()
    assert not kept.clear()
    assert closed == ["a", "second", "c", "b"]
