"""On a GPU the graph of ``train_steps`` is captured once for all chunks, and freed completely.

test_kept_graphs.py, which needs no GPU, checks when a call uses a kept graph.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.cuda import needs_gpu
from support.train_problems import Problem, problem

import mlpkern

pytestmark = needs_gpu

LARGE = {"V": 3000, "D": 32, "hidden": (900, 300), "N": 64, "rows": 500}


@pytest.fixture(autouse=True)
def captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """The runs that were captured."""
    status = mlpkern.backends()["cuda"]
    if not status.available:
        pytest.skip(f"backend cuda: {status.reason}")
    from mlpkern.cuda import graphed_step

    made: list[object] = []
    capture = graphed_step.Run._captured

    def counted(self: graphed_step.Run) -> object:
        made.append(self)
        return capture(self)

    monkeypatch.setattr(graphed_step.Run, "_captured", counted)
    mlpkern.empty_cache()
    with mlpkern.use_backend("cuda"):
        yield made
    made.clear()
    mlpkern.empty_cache()


def run(case: Problem, cuts: list[int]) -> list[torch.Tensor]:
    """Losses and parameters after training in chunks."""
    params = case.params.clone()
    state = mlpkern.OptimizerState.zeros(params, "sgd", 0.9)
    losses = [
        mlpkern.train_steps(params, case.inputs, case.targets, rows, 0.1, momentum=0.9, state=state)
        for rows in case.batches.split(cuts)
    ]
    return [torch.cat(losses), *params.tensors()]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_chunks_and_other_data_replay_the_first_graph(captures):
    cases = [problem(**LARGE, S=30, seed=seed, device="cuda") for seed in (1, 2)]
    found = [run(case, cuts) for case in cases for cuts in ([30], [3, 27], [11, 1, 18])]
    assert len(captures) == 1
    assert equal(found[0], found[1])
    assert equal(found[0], found[2])
    mlpkern.empty_cache()
    assert equal(run(cases[1], [30]), found[4])
    assert len(captures) == 2


def test_each_stream_has_a_graph_of_its_own(captures):
    case, side = problem(**LARGE, S=30, device="cuda"), torch.cuda.Stream()
    expected = run(case, [30])
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found = run(case, [30])
    again = run(case, [30])
    side.synchronize()
    assert len(captures) == 2
    assert equal(found, expected)
    assert equal(again, expected)


def test_the_memory_of_graphs_is_given_back(captures):
    case = problem(**LARGE, S=8, device="cuda")
    run(case, [8])
    captures.clear()
    mlpkern.empty_cache()
    before = torch.cuda.memory_allocated()
    for width in range(300, 308):  # more than are kept
        run(problem(**{**LARGE, "hidden": (900, width)}, S=8, device="cuda"), [8])
    assert len(captures) == 8
    captures.clear()
    mlpkern.empty_cache()
    assert torch.cuda.memory_allocated() - before < 2**23  # a graph and its arrays take more
