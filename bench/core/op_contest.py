"""The provider table of an op on a CPU."""

from __future__ import annotations

from functools import partial

from bench.core.accuracy import Yardstick
from bench.core.case import Case, Cost, OpTable, Settings, forward_backward
from bench.core.jax_ops import prepare_op
from bench.core.jax_process import jax_rows
from bench.core.providers import (
    MLPKERN,
    Contest,
    Function,
    Prepared,
    Provider,
    backend_switch,
    cpu_rows,
)

SMALL_CASE_BYTES = 4 << 20  # up to here one thread can win, so torch.compile is tried with one too


def op_contest(table: OpTable, case: Case, cost: Cost, settings: Settings) -> Contest:
    """The provider table of an op on a CPU, in the order in which rows are printed."""
    problem = table.problem(case)

    def prepare(function: Function) -> Prepared:
        call = forward_backward(function, problem)
        return Prepared(call, call)

    threads = settings.threads
    small = cost.footprint <= SMALL_CASE_BYTES
    compile_threads = settings.compile_threads if small else settings.compile_threads[-1:]
    rows = cpu_rows(table.stock, table.fused, prepare, settings, compile_threads)
    if cost.large:
        switch = backend_switch("cpu", threads, pool=False)
        make = partial(prepare, table.fused)
        rows.append(Provider("cpu, output pool off", MLPKERN, threads, make, switch, "cpu"))
    if settings.jax and table.jax:
        named = {name: (prepare_op, (table, name, case, cost.large)) for name in table.jax}
        counts = [1, threads] if small and threads > 1 and not settings.quick else [threads]
        rows += jax_rows(named, counts, threads)
    return Contest(rows, Yardstick.of(table, problem))
