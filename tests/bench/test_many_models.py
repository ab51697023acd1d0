"""The rows of the benchmark for many models in one call: the sweep and the population."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from support.bench.tiny import MACHINE, SETTINGS, FakeProcesses

import mlpkern
from bench.report import case_lines, summary_lines
from bench.runner import run_case
from bench.suites import SUITES
from bench.training import find_lr, population, stock_rows
from bench.training.case import cost, every_model
from bench.training.stock_batched import (
    BatchedRun,
    batched_loop,
    batched_results,
    batched_sgd_step_at,
)
from bench.training.stock_loops import StockRun, lecture_loop, sgd_step_at, step_loop, stock_results
from bench.training.two_processes import SideBySide

SIZES = {"V": 27, "T": 2, "D": 3, "H": 7, "N": 5}
SWEEP = find_lr.sweep_case(3, SIZES, run_steps=12, stock_steps=4)
POPULATION = population.population_case(3, SIZES, run_steps=12, stock_steps=4)
BOTH = pytest.mark.parametrize(
    ("case", "make"),
    [(SWEEP, find_lr.contest), (POPULATION, population.contest)],
    ids=["find-lr", "population"],
)


@BOTH
def test_providers_agree_with_the_lecture_loop(case, make, monkeypatch):
    monkeypatch.setattr(stock_rows, "SideBySide", FakeProcesses)
    contest = make(case, cost(case), replace(SETTINGS, quick=False))
    names = [provider.name for provider in contest.providers]
    assert len(set(names)) == len(names)
    assert {"lecture loop", "batched products", "lecture loop, 2 processes", "ops", "run"} <= {
        *names
    }
    for provider in contest.providers:
        ours = bool(provider.backend)
        # what is checked here is the harness: the kernels have their own tests
        with mlpkern.use_backend("reference"):
            prepared = provider.make()
            checks = contest.yardstick.check(prepared.results())
            prepared.call()
        assert [c.message() for c in checks if not c.passed] == [], provider.name
        whole = ours and provider.name == "run"
        assert prepared.units == 3 * (case.run_steps if whole else case.stock_steps)


@BOTH
def test_the_compiled_steps_take_the_rates_of_the_case(case, make):
    """In float64, where both must be the lecture's to the last digits; not compiled here."""
    exact = stock_results(case, lecture_loop, torch.float64)
    whole = stock_results(case, step_loop(sgd_step_at), torch.float64)
    for a, b in zip(whole, exact, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)
    for a, b in zip(batched_results(case, batched_sgd_step_at), exact, strict=True):
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-5)


@BOTH
def test_a_result_has_steps_and_a_share_of_the_peak_of_all_cores(case, make, monkeypatch):
    monkeypatch.setattr(stock_rows, "SideBySide", FakeProcesses)
    suite = replace(next(s for s in SUITES if s.name == "training_step"), cases=(case,))
    result = run_case(suite, case, replace(SETTINGS, threads=2), MACHINE)
    run = next(row for row in result["rows"] if row["provider"] == "run")
    ops = next(row for row in result["rows"] if row["provider"] == "ops")
    assert (run["cores"], ops["cores"], run["threads"]) == (2, 2, 2)
    if run["status"] == "unavailable":
        pytest.skip(f"backend cpu: {run['reason']}")
    assert run["status"] == "ok", run["reason"]
    assert run["calls_per_sample"] % (3 * case.run_steps) == 0
    assert 0 < run["fraction_of_peak"] < 1
    assert result["cost"]["flops"] == 6 * 5 * (6 * 7 + 7 * 27)  # of one step of one model
    lines = case_lines(result)
    assert lines[1].startswith(f"{case.op}  V=27 T=2")
    assert max(map(len, lines)) <= 120
    text = "\n".join(summary_lines({"cases": [result]}))
    assert f"{case.op}  {case.shape}" in text


def test_the_sweep_is_that_of_the_finder_and_begins_again():
    rates = SWEEP.rates(0, 0, 12)
    assert rates[0] == find_lr.LOW
    assert rates[-1] == pytest.approx(find_lr.HIGH)
    steps = [b / a for a, b in itertools.pairwise(rates)]
    assert steps == pytest.approx([steps[0]] * 11)
    assert SWEEP.rates(2, 4, 4) == rates[4:8]

    run, batched = StockRun(SWEEP), BatchedRun([StockRun(SWEEP, m=m) for m in every_model(SWEEP)])
    first = [p.clone() for p in run.values]
    for _ in range(3):  # pieces of one sweep
        lecture_loop([run], 4)
        batched_loop(batched, 4)
    assert not torch.equal(run.values[0], first[0])
    assert (run.rates(4), batched.rates(4)[:, 1].tolist()) == (
        rates[:4],
        pytest.approx(rates[:4]),
    )
    for value, all_values, start in zip(run.values, batched.values, first, strict=True):
        assert torch.equal(value, start)
        assert torch.equal(all_values[0], start)


def test_every_configuration_of_the_population_has_a_rate_of_its_own():
    rates = [POPULATION.rates(m, 7, 2) for m in range(3)]
    assert rates == [[rate] * 2 for rate in population.RATES[:3]]
    batched = BatchedRun([StockRun(POPULATION, m=m) for m in every_model(POPULATION)])
    assert batched.rates(2).tolist() == [pytest.approx(list(population.RATES[:3]))] * 2


def test_the_pieces_of_stock_end_where_the_sweep_does():
    assert all(case.run_steps % case.stock_steps == 0 for case in find_lr.CASES)


def test_processes_share_the_models_of_a_case():
    shared = SideBySide(population.CASES[0], "lecture loop", 2)
    try:
        shared.take(1)
    finally:
        shared.close()
    assert shared.shares == [[0, 2, 4, 6], [1, 3, 5, 7]]
