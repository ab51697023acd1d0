"""The rows of stock PyTorch for a training: loops, numbers of threads, processes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bench.core.case import Settings
from bench.core.providers import (
    MAX_AUTOTUNE,
    STOCK,
    Prepared,
    Provider,
    compiled,
    named,
    threads_switch,
)
from bench.training.case import TrainingCase, every_model
from bench.training.stock_batched import (
    BatchedRun,
    batched_loop,
    batched_results,
    batched_whole_step,
)
from bench.training.stock_loops import (
    Loop,
    StockRun,
    chunk_loop,
    foreach_loop,
    lecture_loop,
    loss_of,
    step_loop,
    stock_results,
    whole_step,
)
from bench.training.two_processes import LOOPS, SideBySide

BASELINE = "lecture loop"


def stock_rows(case: TrainingCase, settings: Settings) -> list[Provider]:
    """All of them, in the order in which they are printed."""
    threads, sgd = settings.threads, case.optimizer == "sgd"
    models, steps = case.sizes["M"], case.stock_steps
    counts = sorted({threads} if case.slow else {1, threads})
    compile_counts = [c for c in settings.compile_threads if c in counts]
    whole = whole_step(case)
    rows: list[Provider] = []

    def add(name: str, count: int, make: Callable[[], Prepared]) -> None:
        switch = threads_switch(count)
        rows.append(Provider(named(name, count, threads), STOCK, count, make, switch))

    def loop_row(name: str, count: int, loop: Loop) -> None:
        add(name, count, lambda: loop_prepared(case, loop))

    def batched_row(name: str, count: int, step: Callable[..., Tensor] | None) -> None:
        def make() -> Prepared:
            run = BatchedRun([StockRun(case, m=m) for m in every_model(case)])
            call = lambda: batched_loop(run, steps, step)  # noqa: E731
            return Prepared(call, lambda: batched_results(case, step), steps * models)

        add(name, count, make)

    eager: dict[str, Loop] = {BASELINE: lecture_loop, "foreach update": foreach_loop}
    if not sgd:
        eager["fused update"] = chunk_loop(loss_of, "fused")
    if not case.slow:
        eager["batches by chunk"] = chunk_loop(loss_of)
    for name, loop in eager.items():
        for count in counts:
            loop_row(name, count, loop)
    # One after the other, several models train as fast as one. So many models (with --quick, two)
    # are compiled only as one model and side by side.
    one_by_one = models <= (1 if settings.quick else 2)
    for count in compile_counts if one_by_one else []:
        if not case.slow and not settings.quick:  # the whole step is faster
            loss = compiled(loss_of)
            loop_row("compile", count, chunk_loop(loss, "foreach" if sgd else "fused"))
        loop_row("compile, whole step", count, step_loop(compiled(whole)))
    if settings.autotune and one_by_one and not case.slow:
        name = "compile max-autotune, whole step"
        loop_row(name, threads, step_loop(compiled(whole, MAX_AUTOTUNE)))
    if models > 1:
        for count in counts:
            batched_row("batched products", count, None)
        for count in compile_counts:
            batched_row("compile, batched", count, compiled(batched_whole_step(case)))
        if not settings.quick:
            rows += _processes_rows(case, settings)
    return rows


def loop_prepared(case: TrainingCase, loop: Loop) -> Prepared:
    """All models of a case one after the other by `loop`."""
    runs = [StockRun(case, m=m) for m in every_model(case)]
    steps = case.stock_steps
    return Prepared(
        lambda: loop(runs, steps),
        lambda: stock_results(case, loop),
        steps * len(runs),
    )


def _processes_rows(case: TrainingCase, settings: Settings) -> list[Provider]:
    """The models shared out to a process a core; checked is the same loop in this process."""
    loops = {LOOPS[0]: lecture_loop}
    if settings.compile:
        loops[LOOPS[1]] = step_loop(compiled(whole_step(case)))
    models = case.sizes["M"]
    count = min(models, max(2, settings.threads))

    def row(name: str, loop: Loop) -> Provider:
        def make() -> Prepared:
            processes = SideBySide(case, name, count)
            return Prepared(
                lambda: processes.take(case.stock_steps),
                lambda: stock_results(case, loop),
                case.stock_steps * models,
                processes.close,
            )

        return Provider(f"{name}, {count} processes", STOCK, count, make, threads_switch(1))

    return [row(name, loop) for name, loop in loops.items()]
