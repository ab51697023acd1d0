"""The benchmark's timer, and its refusal to time wrong kernels. No test judges a speed."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from support.bench.tiny import (
    CASE,
    MACHINE,
    SETTINGS,
    nan,
    off_by_a_little,
    row_of,
    suite_with,
    wrong_dtype,
    wrong_gradient,
)

from bench import keep_pages, run
from bench.core import providers
from bench.core.accuracy import Yardstick
from bench.core.case import Case, forward_backward
from bench.core.process import ProcessError
from bench.core.timer import LocalContestant, Timing, interleave
from bench.ops import cross_entropy, embedding_gather
from bench.runner import run_case
from bench.shown.cases import case_lines
from bench.suites import OP_TABLES
from mlpkern.registry import select

# --- timer ---------------------------------------------------------------------------------------


class Scripted:
    """A contestant that takes a fixed time per call and writes down what the timer asks of it."""

    calls = 0

    def __init__(self, name, per_call, log):
        self.name, self.per_call, self.log, self.is_active = name, per_call, log, False

    @contextlib.contextmanager
    def active(self):
        self.is_active = True
        yield
        self.is_active = False

    def sample(self, repeats):
        assert self.is_active
        self.log.append((self.name, repeats))
        return repeats * self.per_call


def test_timing_gives_inclusive_quartiles():
    timing = Timing((5.0, 1.0, 4.0, 2.0, 3.0), 1)
    assert (timing.minimum, timing.q1, timing.median, timing.q3) == (1.0, 2.0, 3.0, 4.0)
    assert Timing((7.0,), 1).median == 7.0


def test_samples_last_long_enough_and_are_reported_per_call():
    log = []
    timings = interleave(
        [Scripted("fast", 1e-6, log), Scripted("slow", 1e-2, log)],
        budget_s=0,
        min_sample_s=1e-3,
        min_rounds=4,
    )
    assert timings["fast"].repeats == pytest.approx(1000, rel=0.01)
    assert timings["slow"].repeats == 1
    assert timings["fast"].samples == pytest.approx([1e-6] * 4)
    assert timings["slow"].samples == pytest.approx([1e-2] * 4)


def test_contestants_take_turns_in_changing_order_and_warm_up_after_each_switch():
    log = []
    names = ["a", "b", "c"]
    interleave(
        [Scripted(name, 1.0, log) for name in names], budget_s=0, min_sample_s=0.5, min_rounds=20
    )
    rounds = log[-20 * 3 * 2 :]  # an untimed and a timed sample for each contestant of a round
    orders = set()
    for i in range(0, len(rounds), 6):
        warm, timed = rounds[i : i + 6 : 2], rounds[i + 1 : i + 6 : 2]
        assert warm == timed
        assert sorted(name for name, _ in timed) == names
        orders.add(tuple(name for name, _ in timed))
    assert len(orders) > 1


def test_a_budget_ends_the_rounds_but_not_before_the_least_number():
    log = []
    timings = interleave([Scripted("a", 1.0, log)], budget_s=0, min_rounds=3)
    assert len(timings["a"].samples) == 3
    timings = interleave([Scripted("a", 1.0, log)], budget_s=60, min_rounds=3, max_rounds=7)
    assert len(timings["a"].samples) == 7


def test_a_limit_ends_the_rounds_of_a_loaded_machine_after_the_first():
    timings = interleave([Scripted("a", 1.0, [])], budget_s=60, min_rounds=5, limit_s=0)
    assert len(timings["a"].samples) == 1


def test_calls_of_a_second_need_no_calls_before_them():
    log = []
    timings = interleave([Scripted("a", 1.0, log)], budget_s=0, min_rounds=3, warm=False)
    assert len(timings["a"].samples) == 3
    assert log == [("a", 1)] * 5  # one that is dropped, one that says how many make a sample


def test_two_contestants_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        interleave([LocalContestant("a", int), LocalContestant("a", int)], budget_s=0)


# --- correctness before speed --------------------------------------------------------------------


@pytest.mark.parametrize("table", OP_TABLES.values(), ids=OP_TABLES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_backend_is_within_the_rule(table, dtype):
    """Sizes with a prime number of rows; the rule is the one that decides in a real run."""
    import mlpkern

    sizes = {"N": 37, "V": 27, "D": 10, "T": 3, "K": 30, "H": 19}
    case = Case(table.op, "37 rows", dtype, sizes)
    problem = table.problem(case)
    yardstick = Yardstick.of(table, problem)
    with mlpkern.use_backend("reference"):
        checks = yardstick.check(forward_backward(table.fused, problem)())
    assert [c.message() for c in checks if not c.passed] == []
    assert [c.tensor for c in checks] == list(problem.result_names())


@pytest.mark.parametrize("fused", [off_by_a_little, nan, wrong_gradient])
def test_a_wrong_kernel_is_not_timed(fused):
    result = run_case(suite_with(fused), CASE, SETTINGS, MACHINE)
    row = row_of(result, "reference")
    assert row["status"] == "wrong"
    assert "median_s" not in row
    assert "error" in row["reason"]
    assert result["ratio"] is None
    assert "median_s" in row_of(result, "eager")
    assert any("WRONG" in line for line in case_lines(result))
    assert run.broken({"cases": [result], "errors": []})


def test_only_plain_torch_gets_a_second_look():
    calls = Counter()

    def wrong_at_first(input, target):
        backend = select("cross_entropy", input).__name__
        calls[backend] += 1
        return off_by_a_little(input, target) if calls[backend] <= 2 else fused(input, target)

    fused = cross_entropy.TABLE.fused
    result = run_case(suite_with(wrong_at_first), CASE, SETTINGS, MACHINE)
    reference = row_of(result, "reference")
    assert reference["status"] == "ok"
    assert reference["reason"].startswith("first results: output: error")
    assert row_of(result, "cpu")["status"] in ("wrong", "unavailable")


def test_a_result_of_another_dtype_or_an_exception_is_refused():
    row = row_of(run_case(suite_with(wrong_dtype), CASE, SETTINGS, MACHINE), "reference")
    assert row["status"] in ("wrong", "failed")

    def breaks(input, target):
        raise RuntimeError("no such kernel\nsecond line")

    row = row_of(run_case(suite_with(breaks), CASE, SETTINGS, MACHINE), "reference")
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: no such kernel")


def test_outputs_that_share_memory_between_calls_are_refused():
    """The gradient of the first call is right until the second call adds to the same memory."""
    kept = torch.zeros(CASE.sizes["N"], CASE.sizes["V"])

    class SharesGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, input, target):
            ctx.save_for_backward(input, target)
            return F.cross_entropy(input, target)

        @staticmethod
        def backward(ctx, grad):
            input, target = ctx.saved_tensors
            softmax = input.softmax(-1) - F.one_hot(target, input.shape[-1])
            kept.add_(softmax * grad / len(target))
            return kept, None

    row = row_of(run_case(suite_with(SharesGradient.apply), CASE, SETTINGS, MACHINE), "reference")
    assert row["status"] == "wrong"


def test_a_stock_provider_is_timed_even_if_it_is_less_accurate(monkeypatch):
    def worse(function, mode=None):
        return off_by_a_little

    monkeypatch.setattr(providers, "compiled", worse)
    settings = replace(SETTINGS, compile=True)
    row = row_of(run_case(suite_with(), CASE, settings, MACHINE), "compile")
    assert row["status"] == "ok"
    assert row["median_s"] > 0
    assert row["reason"].startswith("less accurate than eager")


def test_the_worker_keeps_its_pages_and_answers_with_seconds():
    worker = keep_pages.Worker(cross_entropy.TABLE, CASE, 1)
    try:
        eager = worker.contestants()[0]
        assert 0 < eager.sample(2) < 10
    finally:
        worker.close()
    with pytest.raises(ProcessError, match="gone"):
        worker.sample("eager, malloc keeps pages", 1)


def test_a_process_that_does_not_start_says_how_it_ended(capfd):
    """`CASE` has no sizes of an embedding."""
    with pytest.raises(ProcessError, match="ended with status 1"):
        keep_pages.Worker(embedding_gather.TABLE, CASE, 1)
    assert "KeyError: 'T'" in capfd.readouterr().err
