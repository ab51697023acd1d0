"""The configurations of the Triton kernels: measured once for each key, never during a capture."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch


class Kernel:
    """A stand-in for a compiled kernel that records its launches."""

    arg_names = ("x", "bucket", "FLAG")

    def __init__(self):
        self.launches = []

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.launches.append(kwargs)


@pytest.fixture
def tuned(monkeypatch):
    """A kernel with two configurations, the second faster; its launches and its searches."""
    pytest.importorskip("triton")
    launch = importlib.import_module("mlpkern.triton_kernels.device.launch")
    configs = [SimpleNamespace(all_kwargs=lambda n=n: {"num_stages": n}) for n in (1, 2)]
    kernel, searches = Kernel(), []

    def autotune(choices, key, cache_results):
        assert cache_results
        assert (choices, key) == (configs, ["bucket", "FLAG"])
        search = SimpleNamespace(best_config=configs[1])
        return lambda kernel: _Search(search, searches)

    class _Search:
        def __init__(self, search, searches):
            self.best_config = search.best_config

        def __getitem__(self, grid):
            return lambda *args, **kwargs: searches.append(args)

    monkeypatch.setattr(launch, "interpreted", lambda: False)
    monkeypatch.setattr(launch, "_capturing", lambda: False)
    monkeypatch.setattr(launch.triton, "autotune", autotune)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    found = launch.Tuned(kernel, configs, key=("FLAG",))
    return found, kernel.launches, searches, launch, monkeypatch


def test_a_kernel_is_tuned_once_for_a_key(tuned):
    kernel, launches, searches, launch, _ = tuned
    x = torch.ones(3)
    for rows in (1000, 1001, 1024):  # of one bucket
        kernel[(1,)](x, launch.bucket(rows, 27), FLAG=True)
    assert len(searches) == 1
    assert launches == [{"FLAG": True, "num_stages": 2}] * 2
    for again in ((x, launch.bucket(1025, 27), True), (x.half(), launch.bucket(1000, 27), True)):
        kernel[(1,)](*again)
    kernel[(1,)](x, launch.bucket(1000, 27), False)
    assert len(searches) == 4


def test_nothing_is_measured_where_it_must_not_be(tuned):
    kernel, launches, searches, launch, monkeypatch = tuned
    call = (torch.ones(3), launch.bucket(8), True)
    monkeypatch.setattr(launch, "_capturing", lambda: True)
    kernel[(1,)](*call)
    monkeypatch.setattr(launch, "_capturing", lambda: False)
    torch.use_deterministic_algorithms(True)
    try:
        kernel[(1,)](*call)
    finally:
        torch.use_deterministic_algorithms(False)
    kernel.first[(1,)](*call)
    assert launches == [{"num_stages": 1}] * 3
    assert not searches
    kernel[(1,)](*call)
    monkeypatch.setattr(launch, "_capturing", lambda: True)
    kernel[(1,)](*call)
    assert launches[3:] == [{"num_stages": 2}]  # a capture uses what was found before it


def test_buckets_are_powers_of_two(tuned):
    launch = tuned[3]
    assert launch.bucket(5, 27) == launch.bucket(8, 32) != launch.bucket(9, 32)
    assert launch.bucket(0) == launch.bucket(1) != launch.bucket(2)
    assert launch.bucket(1, 64) != launch.bucket(64, 1)


def test_configurations_are_few():
    pytest.importorskip("triton")
    tuned = importlib.import_module("mlpkern.triton_kernels.device.launch").Tuned
    found = 0
    for op in ("cross_entropy_tile", "cross_entropy_wide", "embedding_gather", "linear_tanh"):
        module = importlib.import_module(f"mlpkern.triton_kernels.{op}")
        for kernel in vars(module).values():
            if isinstance(kernel, tuned):
                found += 1
                assert 1 <= len(kernel.configs) <= 6
                assert "bucket" in kernel.kernel.arg_names
    assert found >= 3
