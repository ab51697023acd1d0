"""The benchmark of a GPU, on a stand-in: providers, checks, both times, yardsticks."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace

import pytest
import torch
from support.bench.fake_gpu import CASE, CUDA_SETTINGS, FAST, FakeEvent, FakeGpu, fake_gpu, suite_of
from support.bench.tiny import nan, off_by_a_little, row_of

from bench import run, yardsticks
from bench import suites as tables
from bench.core.case import Unavailable
from bench.core.device import Graph
from bench.core.providers import STOCK
from bench.core.timer import LocalContestant, interleave
from bench.cuda import limits as cuda_limits
from bench.cuda import providers as cuda_providers
from bench.cuda.device_timer import LONGEST_SLEEP_S, DeviceContestant
from bench.cuda.providers import GRAPH, in_turns, replayed
from bench.ops import cross_entropy
from bench.ops.embedding_gather import CUDA_CASES, problem
from bench.runner import graph_ratios, run_case
from bench.suites import OP_TABLES

SIZES = {"N": 37, "V": 27, "D": 10, "T": 3, "K": 30, "H": 19}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def gpu(monkeypatch):
    return fake_gpu(monkeypatch)


# --- both times ----------------------------------------------------------------------------------


def test_a_sample_waits_for_the_gpu_before_and_after_its_calls():
    log = []
    contestant = LocalContestant(
        "a", lambda: log.append("call"), finish=lambda: log.append("finish")
    )
    contestant.sample(2)
    assert log == ["finish", "call", "call", "finish"]


def test_the_number_of_calls_of_a_sample_can_be_fixed():
    contestant = LocalContestant("a", int, calls=3)
    assert interleave([contestant], budget_s=0, min_sample_s=1.0)["a"].repeats == 3


def test_time_on_the_gpu_is_between_two_events_behind_a_sleep(monkeypatch):
    gpu, log = FakeGpu(), []
    monkeypatch.setattr(gpu, "sleep", lambda seconds: log.append("sleep"))

    class Event(FakeEvent):
        def record(self):
            log.append("event")

        def elapsed_time(self, other):
            return 7.0

    monkeypatch.setattr(gpu, "event", Event)
    contestant = DeviceContestant("a", lambda: log.append("call"), contextlib.nullcontext, gpu)
    assert contestant.sample(2) == 7e-3
    assert log == ["sleep", "event", "call", "call", "event"]


def test_samples_that_the_launches_could_not_keep_up_with_are_counted(monkeypatch):
    gpu = FakeGpu()
    contestant = DeviceContestant("a", int, contextlib.nullcontext, gpu)
    contestant.sample(1)
    assert not contestant.mostly_exposed
    monkeypatch.setattr(FakeEvent, "query", lambda self: True)
    for _ in range(30):
        contestant.sample(1)
    assert contestant.mostly_exposed
    assert max(gpu.slept) == LONGEST_SLEEP_S  # it waits longer each time, within reason


# --- providers of an op --------------------------------------------------------------------------


@pytest.mark.parametrize("op", [op for op, table in OP_TABLES.items() if table.cuda_cases])
def test_every_case_of_an_op_runs_checked_with_both_times(op, gpu):
    suite = next(s for s in tables.cuda_suites(gpu) if s.name == op)
    for case in suite.cases:
        small = replace(case, sizes={k: min(v, SIZES[k]) for k, v in case.sizes.items()})
        result = run_case(suite, small, CUDA_SETTINGS, FAST)
        names = [row["provider"] for row in result["rows"]]
        both = [name + end for name in ("eager", "cuda", "triton") for end in ("", GRAPH)]
        assert names == [*both, "reference"]
        for row in result["rows"]:
            assert row["status"] == "ok", row["reason"]
            assert row["median_s"] > 0
            assert row["device_s"] > 0
            assert row["first_s"] > 0
            assert row["device_fraction_of_limit"] > 0
        assert all(result[key] > 0 for key in ("ratio", "ratio_baseline", "ratio_graph"))


@pytest.mark.parametrize("fused", [off_by_a_little, nan])
def test_a_wrong_kernel_is_not_timed_called_or_captured(gpu, fused):
    result = run_case(suite_of(gpu, fused), CASE, CUDA_SETTINGS, FAST)
    for name in ("cuda", "cuda" + GRAPH):
        row = row_of(result, name)
        assert row["status"] == "wrong"
        assert not {"median_s", "device_s"} & row.keys()
    assert result["ratio"] is None
    assert result["ratio_graph"] is None
    assert run.broken({"cases": [result], "errors": []})


def test_the_first_call_is_timed_with_what_it_compiles_and_no_other(gpu):
    calls = []

    def slow_at_first(input, target):
        if not calls:
            time.sleep(0.2)
        calls.append(1)
        return cross_entropy.stock(input, target)

    result = run_case(suite_of(gpu, slow_at_first), CASE, CUDA_SETTINGS, FAST)
    first = row_of(result, "cuda")  # of our rows it is the first to be made ready
    assert first["first_s"] >= 0.2
    assert first["median_s"] < 0.1
    assert row_of(result, "triton")["first_s"] < 0.2


def test_a_graph_that_leaves_a_result_unwritten_is_wrong():
    outputs = (torch.ones(3), torch.ones(3))
    first, second = replayed(Graph(lambda: outputs[0].fill_(1), outputs))()
    assert first.isfinite().all()
    assert second.isnan().all()


def test_inputs_are_rotated_until_they_exceed_the_cache_twice(gpu):
    problem_bytes = cross_entropy.problem(CASE).bytes
    run_case(suite_of(gpu), CASE, CUDA_SETTINGS, FAST)
    graphs = 3  # of eager, cuda, triton
    assert gpu.captures == graphs * -(-2 * gpu.l2_bytes // problem_bytes)
    gpu.captures = 0
    still = replace(CASE, rotate=False)
    run_case(suite_of(gpu, case=still), still, CUDA_SETTINGS, FAST)
    assert gpu.captures == graphs


def test_inputs_in_rotation_are_judged_by_the_bandwidth_of_memory():
    suite = tables.cuda_suites(FakeGpu(l2_bytes=1 << 30))[0]
    small = replace(suite.cases[0], sizes={"N": 8, "V": 5})
    assert suite.cost(small).footprint == 2 << 30
    still = replace(small, rotate=False)
    assert suite.cost(still) == cross_entropy.cost(still)


def test_copies_of_inputs_are_equal_and_lie_elsewhere():
    one = cross_entropy.problem(CASE)
    for copy, elsewhere in ((one.leaves(), False), (one.leaves(copy=True), True)):
        for a, b in zip(copy.args, one.args, strict=True):
            assert torch.equal(a, b)
            assert (a.data_ptr() != b.data_ptr()) == elsewhere
            assert a.requires_grad == b.requires_grad
            assert a is not b


def test_calls_in_turns():
    log = []
    call = in_turns([lambda: log.append(0), lambda: log.append(1)])
    for _ in range(3):
        call()
    assert log == [0, 1, 0]


def test_tf32_is_for_all_providers_or_for_none(gpu):
    seen = []

    def spy(input, target):
        seen.append(torch.get_float32_matmul_precision())
        return cross_entropy.stock(input, target)

    before = torch.get_float32_matmul_precision()
    for dtype, expected in (("tf32", "high"), ("float32", "highest")):
        case = replace(CASE, dtype=dtype)
        suite = suite_of(gpu, spy, case)
        result = run_case(suite, case, CUDA_SETTINGS, FAST)
        assert set(seen) == {expected}
        assert row_of(result, "cuda")["status"] == "ok"
        seen.clear()
    assert torch.get_float32_matmul_precision() == before


def test_a_case_that_the_gpu_cannot_hold_is_not_run():
    suite = suite_of(FakeGpu(memory_bytes=1000))
    with pytest.raises(Unavailable, match="needs about"):
        run_case(suite, CASE, CUDA_SETTINGS, FAST)


def test_graphs_are_compared_with_graphs():
    def row(provider, kind, median):
        return {"provider": provider, "kind": kind, "median_s": median}

    rows = [
        row("eager", STOCK, 8.0),
        row("compile", STOCK, 1.0),
        row("eager" + GRAPH, cuda_providers.STOCK_GRAPH, 6.0),
        row("compile" + GRAPH, cuda_providers.STOCK_GRAPH, 4.0),
        row("cuda", "mlpkern", 3.0),
        row("cuda" + GRAPH, "mlpkern", 2.0),
    ]
    found = graph_ratios(rows, "cuda" + GRAPH, "eager")
    assert found == {
        "ours_graph": "cuda" + GRAPH,
        "best_stock_graph": "compile" + GRAPH,
        "ratio_graph": 2.0,
        "ratio_graph_baseline": 4.0,
    }


def test_zipf_ids_are_as_frequent_as_they_should_be():
    """Of 32,000 ids the most frequent has a share of 1 / (ln 32000 + 0.577), 9.1 %."""
    small = replace(CUDA_CASES[2], sizes={"V": 32_000, "D": 1, "N": 50_000, "T": 2})
    ids = problem(small).args[0]
    counts = torch.bincount(ids.flatten(), minlength=32_000).double() / ids.numel()
    assert len(counts) == 32_000
    assert float(counts.max()) == pytest.approx(0.0914, rel=0.05)
    assert int(counts.argmax()) != 0  # spread over the table
    assert float(counts.sort(descending=True).values[:3].sum()) == pytest.approx(0.1676, rel=0.05)


# --- yardsticks -----------------------------------------------------------------------------------


def small_gather(rows):
    sizes = {"V": 5, "D": 3, "N": rows, "T": 2}
    return replace(yardsticks.embedding_gather.CUDA_CASES[0], sizes=sizes)


def test_yardsticks_have_a_row_for_each_and_say_what_failed(gpu, monkeypatch, capsys):
    monkeypatch.setattr(cuda_limits, "measure", lambda *args, **kwargs: FAST)
    case = small_gather(4)
    monkeypatch.setattr(yardsticks.embedding_gather, "CUDA_CASES", (case,))
    monkeypatch.setattr(yardsticks, "MODELS", (1, 2))
    monkeypatch.setattr(yardsticks, "BUDGET_S", 0.01)
    monkeypatch.setitem(yardsticks.GRADIENTS, "broken", lambda case, gpu: 1 / 0)
    measured = yardsticks.measure(gpu)
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    rows = {row["name"].split(": ")[-1]: row for row in measured["rows"]}
    assert rows["broken"]["failed"].startswith("ZeroDivisionError")
    assert rows["index_add"]["device_s"] > 0
    assert rows["lecture step of 2 models, batched, CUDA graph"]["steps_per_s"] > 0


def test_the_ways_to_a_gradient_of_an_embedding_agree(gpu):
    case = small_gather(40)
    found = [make(case, gpu)() for make in yardsticks.GRADIENTS.values()]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])
