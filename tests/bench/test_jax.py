"""The rows of JAX: right numbers, one-thread processes, and what they say where it is missing."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch
from support.bench.tiny import CASE, MACHINE, SETTINGS, row_of, suite_with

from bench.core import jax_process
from bench.core.accuracy import Yardstick
from bench.core.case import Case
from bench.core.jax_ops import prepare_op
from bench.core.jax_process import JaxProcess
from bench.core.process import ProcessError
from bench.core.providers import JAX
from bench.runner import run_case
from bench.suites import OP_TABLES
from bench.training.case import training_case
from bench.training.find_lr import SweepCase
from bench.training.jax_rows import gpu_rows, side_by_side, training_rows
from bench.training.jax_steps import GATHER, ONE_HOT, prepare_scan
from bench.training.step import NAMES
from bench.training.stock_loops import lecture_loop, stock_results

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
TINY = {"D": 3, "H": 7, "N": 5, "stock_steps": 2, "run_steps": 6}
SIZES = {"V": 27, "T": 3, "D": 3, "H": 7, "N": 5, "M": 2}


def wrong(checks):
    return [check.message() for check in checks if not check.passed]


@needs_jax
@pytest.mark.parametrize(
    ("case", "embed"),
    [
        (training_case(**TINY), ONE_HOT),
        (training_case(**TINY, frozen_embedding=True), GATHER),
        (training_case(**{**TINY, "N": 64}, M=2, optimizer="adamw", checked_steps=5), GATHER),
        (SweepCase("find-lr", "tiny", "float32", SIZES, run_steps=6, checked_steps=6), GATHER),
    ],
    ids=["one model", "frozen embedding", "two models, adamw", "rates"],
)
def test_the_scan_trains_as_the_lecture_loop(case, embed):
    exact = stock_results(case, lecture_loop, torch.float64)
    yardstick = Yardstick(NAMES[: len(exact)], exact, stock_results(case, lecture_loop))
    prepared = prepare_scan(case, embed)
    assert wrong(yardstick.check(prepared.results())) == []
    for _ in range(4):  # a sweep begins again at its end
        prepared.call()
    assert prepared.units == case.run_steps * case.sizes["M"]


@needs_jax
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("table", OP_TABLES.values(), ids=OP_TABLES)
def test_the_ops_in_jax_are_within_the_rule(table, dtype):
    case = Case(table.op, "37 rows", dtype, {"N": 37, "V": 27, "D": 10, "T": 3, "K": 30, "H": 19})
    yardstick = Yardstick.of(table, table.problem(case))
    for name in table.jax:
        results = prepare_op(table, name, case, True).results()
        assert wrong(yardstick.check([torch.from_dlpack(r) for r in results])) == [], name


@needs_jax
def test_models_and_ops_in_processes_of_jax():
    case = training_case(**TINY, M=3)
    exact = stock_results(case, lecture_loop, torch.float64)
    yardstick = Yardstick(NAMES, exact, stock_results(case, lecture_loop))
    try:
        both = side_by_side(case, 2)
        assert wrong(yardstick.check(both.results())) == []
        both.call()
        assert both.units == 18
        both.close()
        result = run_case(suite_with(), CASE, replace(SETTINGS, jax=True), MACHINE)
        row = row_of(result, "JAX, gather")
        assert row["kind"] == JAX
        assert row["median_s"] > 0
        with pytest.raises(RuntimeError, match="KeyError: 'no such row'"):
            jax_process.remote(
                prepare_op, (OP_TABLES["cross_entropy"], "no such row", CASE, True),
                jax_process.first_cores(1), "cpu",
            )  # fmt: skip
        process = JaxProcess.on(tuple(jax_process.first_cores(1)))
        process._process.kill()
        process._process.join()
        with pytest.raises(ProcessError):
            process.ask("sample", 1, 1)
        assert process not in JaxProcess._running.values()
    finally:
        JaxProcess.close_all()


def test_without_jax_one_row_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = replace(SETTINGS, jax=True)
    row = row_of(run_case(suite_with(), CASE, settings, MACHINE), "JAX")
    assert (row["status"], row["reason"]) == ("unavailable", "not installed (pip install jax)")
    assert [provider.name for provider in training_rows(training_case(M=2), settings)] == ["JAX"]


def test_on_a_gpu_jax_needs_its_plugin(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "jax" or None)
    assert jax_process.why_not() == ""
    assert "no GPU backend" in jax_process.why_not("cuda")
    case, settings = training_case(M=2), replace(SETTINGS, jax=True)
    assert gpu_rows(case, settings) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    names = [provider.name for provider in gpu_rows(case, settings)]
    assert names == ["JAX scan, vmap, gather", "JAX scan, vmap, one-hot"]
