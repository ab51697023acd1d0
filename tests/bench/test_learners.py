"""The lecture's model by hand in NumPy is the one that torch trains."""

from __future__ import annotations

import torch

from bench.learners import numpy_loop
from bench.training.case import LECTURE
from bench.training.stock_loops import StockRun, lecture_loop


def test_numpy_by_hand_trains_as_the_lecture_loop():
    by_hand, stock = StockRun(LECTURE), StockRun(LECTURE)
    losses = numpy_loop(by_hand, 20)
    expected = torch.stack(lecture_loop([stock], 20))
    assert torch.allclose(torch.tensor(losses), expected, rtol=1e-4)
    for ours, theirs in zip(by_hand.values, stock.values, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)
