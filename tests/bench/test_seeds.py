"""The comparison of two engines over many seeds: its statistics, and one small run."""

from __future__ import annotations

import re

import pytest
import torch
from support.lm_words import make_words, one_thread  # noqa: F401

from bench import seeds
from bench.gpu.rehearsal.stand_in import StandIn


def test_ks_distance_is_the_largest_step_between_the_distributions():
    a = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    assert seeds.ks_distance(a, a).item() == 0
    assert seeds.ks_distance(a, a + 10).item() == 1
    assert seeds.ks_distance(a, a + 1.5).item() == pytest.approx(0.5)
    assert seeds.ks_distance(a, torch.tensor([2.5, 2.6]).double()).item() == pytest.approx(0.5)
    many = seeds.ks_distance(a.expand(3, 4), torch.stack([a, a + 10, a + 1.5]))
    assert many.tolist() == [0, 1, 0.5]


def test_p_values_are_small_for_samples_apart_and_large_for_the_same():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 15, generator=generator, dtype=torch.float64)
    assert min(seeds.p_two_samples(a, b)) > 0.05
    assert max(seeds.p_two_samples(a, b + 3)) < 0.001
    assert seeds.p_two_samples(a, a) == (1.0, 1.0)
    # a small shift of every pair shows in the pairs although the samples overlap
    assert seeds.p_pairs(a, a + 0.01) < 0.001
    assert min(seeds.p_two_samples(a, a + 0.01)) > 0.5
    assert seeds.p_pairs(a, a) == 1.0


def test_p_values_are_uniform_where_nothing_differs(monkeypatch):
    monkeypatch.setattr(seeds, "RELABELINGS", 1_000)
    generator = torch.Generator().manual_seed(1)
    values = []
    for _ in range(60):
        a, b = torch.randn(2, 10, generator=generator, dtype=torch.float64)
        values.append(seeds.p_two_samples(a, b)[1])
    share = sum(value < 0.25 for value in values) / 60
    assert 0.1 < share < 0.42  # 0.25 within three standard deviations


def test_a_small_run_prints_both_distributions(tmp_path, capsys):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(make_words()))
    assert seeds.main(["--file", str(path), "--seeds", "3", "--steps", "40", "--alpha", "0"]) == 0
    printed = capsys.readouterr().out
    for name in ("run", "stock"):
        assert re.search(rf"{name} +mean \d+\.\d{{4}}, std \d+\.\d{{4}}: ", printed)
    assert re.search(r"Kolmogorov-Smirnov distance [01]\.\d{3}, p = [01]\.\d{3}", printed)
    assert seeds.main(["--seeds", "1"]) == 2


def test_both_precisions_of_a_gpu_are_compared_with_the_processor(monkeypatch, capsys):
    if not torch.cuda.is_available():
        assert seeds.main(["--device", "cuda", "--seeds", "3"]) == 2
    asked = []

    def on_gpu(precision, configs, dataset):
        asked.append(precision)
        return seeds.dev_losses_of_run(configs, dataset) + 1e-6

    monkeypatch.setattr(seeds, "Gpu", StandIn)
    monkeypatch.setattr(seeds, "dev_losses_on_gpu", on_gpu)
    monkeypatch.setattr(seeds, "RELABELINGS", 500)
    arguments = ["--device", "cuda", "--seeds", "4", "--steps", "30", "--alpha", "0"]
    assert seeds.main(arguments) == 0
    assert asked == ["float32", "tf32"]
    printed = capsys.readouterr().out
    for name in ("float32", "tf32"):
        assert re.search(rf"{name} +mean \d+\.\d{{4}}", printed)
        assert f"{name} against cpu:" in printed
