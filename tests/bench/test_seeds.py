"""The comparison of two engines over many seeds: its statistics, and one small run."""

from __future__ import annotations

import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from support.lm.words import make_words

from bench import seeds
from bench.cuda import gpu
from bench.gpu.rehearsal.stand_in import StandIn

pytestmark = [
    pytest.mark.skipif(not find_spec("scipy"), reason="SciPy makes the tests"),
    pytest.mark.usefixtures("one_thread"),
]


def p_values(a, b):
    return [seeds.p_means(a, b, pairs=pairs) for pairs in (False, True)]


def test_p_values_are_small_for_samples_apart_and_large_for_the_same(monkeypatch):
    monkeypatch.setattr(seeds, "RELABELINGS", 5_000)
    a, b = np.random.default_rng(0).normal(size=(2, 15))
    assert min(p_values(a, b)) > 0.05
    assert max(p_values(a, b + 3)) < 0.001
    assert p_values(a, a) == [1.0, 1.0]
    # a small shift of every pair shows in the pairs although the samples overlap
    means, pairs = p_values(a, a + 0.01)
    assert means > 0.5
    assert pairs < 0.001


def test_the_smallest_p_value_decides(capsys):
    a = np.random.default_rng(1).normal(size=20)
    assert seeds.compare("a", a, "b", a) == 1.0
    assert seeds.compare("a", a, "b", a + 0.01) < 0.001
    assert "a against b:\nKolmogorov-Smirnov distance 0.0" in capsys.readouterr().out


def test_a_small_run_prints_both_distributions(tmp_path, capsys):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(make_words()))
    assert seeds.main(["--file", str(path), "--seeds", "3", "--steps", "40", "--alpha", "0"]) == 0
    printed = capsys.readouterr().out
    for name in ("run", "stock"):
        assert re.search(rf"{name} +mean \d+\.\d{{4}}, std \d+\.\d{{4}}: ", printed)
    assert re.search(r"Kolmogorov-Smirnov distance [01]\.\d{3}, p = [01]\.\d{3}", printed)
    assert seeds.main(["--seeds", "1"]) == 2


def test_both_precisions_of_a_gpu_are_compared_with_the_cpu(monkeypatch, capsys):
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="2"):
            seeds.main(["--device", "cuda", "--seeds", "3"])
    asked = []

    def on_gpu(precision, configs, dataset):
        asked.append(precision)
        return [loss + 1e-6 for loss in seeds.dev_losses_of_run(configs, dataset)]

    monkeypatch.setattr(gpu, "Gpu", StandIn)
    monkeypatch.setattr(seeds, "dev_losses_on_gpu", on_gpu)
    monkeypatch.setattr(seeds, "RELABELINGS", 500)
    arguments = ["--device", "cuda", "--seeds", "4", "--steps", "30", "--alpha", "0"]
    assert seeds.main(arguments) == 0
    assert asked == ["float32", "tf32"]
    printed = capsys.readouterr().out
    for name in ("float32", "tf32"):
        assert re.search(rf"{name} +mean \d+\.\d{{4}}", printed)
        assert f"{name} against cpu:" in printed
