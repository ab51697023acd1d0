"""The training steps of the benchmark: every way of taking them checked on tiny cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.bench.tiny import SETTINGS, FakeProcesses

from bench.core.case import Unavailable
from bench.shown.charts import ladder_figure, ladder_png
from bench.shown.ladder import LECTURE_SHAPE, TWO_MODELS_SHAPE, ladder_lines, ladder_markdown, rungs
from bench.shown.training import training_lines
from bench.training import step as training_step
from bench.training import stock_rows
from bench.training.case import LECTURE, TWO_MODELS, cost, training_case
from bench.training.names_run import Plan, reached, train_all
from bench.training.stock_loops import adamw_step, lecture_loop, step_loop, stock_results
from bench.training.two_processes import SideBySide

TINY = {"D": 3, "H": 7, "N": 5, "stock_steps": 2, "run_steps": 3}


@pytest.mark.parametrize(
    "case",
    [
        training_case(**TINY, one_core=True),
        training_case(**TINY, M=2, one_core=True),
        training_case(**TINY, one_core=True, frozen_embedding=True),
        training_case(**{**TINY, "T": 2, "N": 64}, optimizer="adamw", checked_steps=5),
        training_case(**TINY, V=31, T=1, checked_steps=3),
        training_case(**{**TINY, "run_steps": 1}, V=40_000, checked_steps=1, slow=True),
    ],
    ids=["one model", "two models", "frozen embedding", "adamw", "other ids", "large"],
)
def test_providers_of_a_training_step_agree_with_the_lecture_loop(case, monkeypatch):
    monkeypatch.setattr(stock_rows, "SideBySide", FakeProcesses)
    settings = replace(SETTINGS, quick=False)  # with the rows that --quick leaves out
    contest = training_step.contest(case, cost(case), settings)
    names = [provider.name for provider in contest.providers]
    assert len(set(names)) == len(names)
    assert {"run", "ops", "lecture loop"} <= set(names)
    for provider in contest.providers:
        if provider.backend == "cpu":
            continue  # judged by the same rule wherever the library is built
        with provider.switch():
            prepared = provider.make()
            checks = contest.yardstick.check(prepared.results())
            prepared.call()
        assert [c.message() for c in checks if not c.passed] == [], provider.name
        steps = case.run_steps if provider.name.startswith("run") else case.stock_steps
        assert prepared.units == steps * case.sizes["M"]


def test_the_adamw_to_be_compiled_is_that_of_torch():
    case = training_case(**{**TINY, "N": 64}, optimizer="adamw", checked_steps=6)
    exact = stock_results(case, lecture_loop, torch.float64)
    written_out = stock_results(case, step_loop(adamw_step), torch.float64)
    for a, b in zip(written_out, exact, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_a_step_of_seconds_is_taken_by_few_providers_with_all_threads():
    case = training_case(**TINY, slow=True)
    contest = training_step.contest(case, cost(case), replace(SETTINGS, threads=2, quick=False))
    names = [provider.name for provider in contest.providers]
    assert names == ["lecture loop", "foreach update", "ops", "run"]
    assert {provider.threads for provider in contest.providers} == {2}


def test_small_steps_of_run_use_a_core_per_model():
    assert [training_case(M=m, one_core=True).cores(4) for m in (1, 2, 9)] == [1, 2, 4]
    assert training_case().cores(4) == 4


def test_models_side_by_side_take_their_steps_in_processes_that_end():
    both = SideBySide(TWO_MODELS, "lecture loop", 2)
    try:
        both.take(2)
    finally:
        both.close()
    assert [process._process.exitcode for process in both._processes] == [0, 0]


# --- the training of all engines -----------------------------------------------------------------


@pytest.fixture(scope="module")
def training():
    config = replace(Plan(short=True).config(), hidden=(6,), embedding_dim=2, steps=30)
    return train_all(Plan(short=True), config=config)


def test_all_engines_learn_the_same(training):
    stock = training["engines"]["stock"]
    assert list(training["engines"]) == ["stock", "ops", "run"]
    for run in training["engines"].values():
        assert run["losses"] == pytest.approx(stock["losses"], rel=1e-5)
        assert run["dev_losses"] == pytest.approx(stock["dev_losses"], rel=1e-5)
        assert len(run["piece_seconds"]) == 5
        assert 0 < run["seconds_to_reach"] <= run["seconds"]
    assert 0 <= training["reach"] - stock["dev_loss"] <= 0.01


def test_reached_counts_the_seconds_up_to_the_first_dev_loss_that_low():
    assert reached([3.0, 2.5, 2.6, 2.4], [1.0, 1.0, 2.0, 4.0], 2.5) == 2.0
    assert reached([3.0], [1.0], 2.9) is None


def test_the_training_shows_losses_speed_and_what_was_not_reached(training):
    unreached = dict(training["engines"]["ops"], seconds_to_reach=None)
    lines = training_lines({**training, "engines": {**training["engines"], "ops": unreached}})
    assert "T=3 D=2 H=6 N=32" in lines[2]
    shown = [line.split()[:3] for line in lines[4:9]]
    assert shown == [[str(6 * i), "–", str(6 * i + 5)] for i in range(5)]
    assert "not reached" in lines[-1]
    assert max(map(len, lines)) <= 120
    assert training_lines({"reason": "no torch"})[1].endswith("not done: no torch")


def test_the_lectures_run_is_the_full_plan():
    assert Plan().config().steps == 200_000
    assert Plan(short=True).config().steps == 1_000


# --- the ladder ----------------------------------------------------------------------------------


def timed(provider, kind, median, **more):
    return {"provider": provider, "kind": kind, "median_s": median, **more}


LADDER = {
    "cases": [
        {"shape": "8x5", "rows": [timed("eager", "stock", 1e-6)]},
        {
            "shape": LECTURE_SHAPE,
            "cost": {"flops": 2_188_800},
            "rows": [
                timed("lecture loop, 1 thread", "stock", 240e-6),
                timed("lecture loop", "stock", 260e-6),
                timed("foreach update, 1 thread", "stock", 200e-6),
                timed("compile, whole step", "stock", 120e-6),
                {"provider": "ops on reference", "kind": "mlpkern", "status": "failed"},
                timed("JAX scan, one-hot", "jax", 90e-6),
                timed("JAX scan, gather, 1 thread", "jax", 60e-6),
                timed("ops", "mlpkern", 100e-6),
                timed("run, 1 thread", "mlpkern", 20e-6, fraction_of_peak=0.625),
                timed("run", "mlpkern", 21e-6),
            ],
        },
        {
            "shape": TWO_MODELS_SHAPE,
            "rows": [
                timed("lecture loop, 2 processes", "stock", 121e-6),
                timed("compile, batched", "stock", 60e-6),
                timed("run", "mlpkern", 10e-6),
            ],
        },
    ],
    "limits": {"peak": {"float32, 1 thread": 1.7e11}},
    "machine": {"cpu": "a CPU", "threads": 2},
    "versions": {"torch": "2.13"},
    "date": "2026-11-22",
}


def test_the_ladder_goes_from_the_lectures_loop_to_run():
    found = [(rung.name, rung.ours, round(rung.speedup, 3)) for rung in rungs(LADDER)]
    assert found == [
        ("stock, lecture loop, 1 thread", False, 1.0),
        ("stock, foreach update, 1 thread", False, 1.2),
        ("stock, compile, whole step", False, 2.0),
        ("JAX scan, gather, 1 thread", False, 4.0),
        ("ops", True, 2.4),
        ("run", True, 12.0),
        ("two models: stock, compile, batched", False, 4.0),
        ("two models: run", True, 24.0),
    ]
    assert (LECTURE.shape, TWO_MODELS.shape) == (LECTURE_SHAPE, TWO_MODELS_SHAPE)


def test_the_ladder_as_text_and_as_a_table():
    lines, table = ladder_lines(LADDER), ladder_markdown(LADDER)
    assert max(map(len, lines)) <= 120
    assert lines[-3].split() == ["run", "20", "µs", "50,000", "62", "%", "12.00x"]
    assert table[-3] == "| run | 20 µs | 50,000 | 62 % | 12.00x |"
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("case", [0, 2])
def test_a_result_without_the_lectures_step_has_no_ladder(case):
    empty = {**LADDER, "cases": [LADDER["cases"][case]]}
    assert (rungs(empty), ladder_lines(empty), ladder_markdown(empty)) == ([], [], [])
    with pytest.raises(Unavailable, match="not measured"):
        ladder_png(empty)


def test_the_ladder_is_a_picture_that_needs_no_caption():
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib draws the chart")
    from support.pictures import overlaps

    assert ladder_png(LADDER).startswith(b"\x89PNG")
    figure = ladder_figure(LADDER)
    (axes,) = figure.axes
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert bars == [(0, rung.per_second) for rung in rungs(LADDER)]
    assert axes.get_xscale() == "linear"
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.count("stock PyTorch") + name.count("mlpkern") for name in named] == [
        1,
        1,
        1,
        0,
        1,
        1,
        1,
        1,
    ]
    figure.draw_without_rendering()
    speedups = [text.get_text() for text in axes.texts[::2]]
    assert speedups == [f"{rung.speedup:.2f}x" for rung in rungs(LADDER)]
    boxes = [drawn.get_window_extent() for drawn in (*axes.texts, *axes.patches)]
    assert overlaps(boxes) == []
    assert not axes.lines
    assert not any(line.get_visible() for line in axes.get_xgridlines())
    plt.close(figure)
