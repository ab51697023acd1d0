"""The report: losses against plain loops, the rule of the verdict, the command and its errors."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.command_line import fails
from support.lm.words import make_words
from support.pictures import draws, png_size, texts_are_legible
from torch.nn import functional as F

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.analysis.report import losses_per_position, losses_per_symbol
from mlpkern.lm.analysis.verdict import Noise, still_falling, verdict
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.log import LogRow
from mlpkern.lm.training.evaluation import row_losses
from mlpkern.lm.words.describe import WIDTH

DATASET = lm.build_dataset(make_words(), block_size=3)
MODEL = lm.MLPLanguageModel(len(DATASET.vocab), 3, 4, 16)
FLAT = [LogRow(100 * i, 0.1, 2.0, None, 0.1 * i) for i in range(1, 21)]


def rows_of(losses, dev=None):
    return [
        LogRow(100 * i, 0.1, loss, (dev or {}).get(i), 0.1 * i) for i, loss in enumerate(losses, 1)
    ]


# measurements


def test_losses_are_those_of_loops_over_words():
    found = lm.report_on(MODEL, DATASET, TrainConfig(), FLAT)
    dev = []  # (position, symbol, loss) of each row
    for word in DATASET.words["dev"]:
        padded = "..." + word + "."
        for i in range(len(word) + 1):
            ids = torch.tensor([[DATASET.vocab.symbols.index(s) for s in padded[i : i + 3]]])
            target = torch.tensor([DATASET.vocab.symbols.index(padded[i + 3])])
            dev.append((i + 1, padded[i + 3], F.cross_entropy(MODEL(ids), target).item()))
    total = sum(loss for *_, loss in dev)
    assert found.splits["dev"].loss == pytest.approx(total / len(dev), rel=1e-5)
    for groups, key in ((found.positions, 0), (found.symbols, 1)):
        assert sum(group.rows for group in groups) == len(dev)
        assert sum(group.share for group in groups) == pytest.approx(1)
        for group in groups:
            losses = [row[2] for row in dev if str(row[key]) == group.label]
            assert group.rows == len(losses)
            assert group.loss == pytest.approx(np.mean(losses), rel=1e-5)
            assert group.share == pytest.approx(sum(losses) / total, rel=1e-5)
            if group.rows >= 5:
                error = np.std(losses, ddof=1) / group.rows**0.5
                assert group.error == pytest.approx(error, rel=1e-4)
            else:
                assert np.isnan(group.error)
            assert group.few == (len(losses) < 100)
    error = np.std([row[2] for row in dev], ddof=1) / len(dev) ** 0.5
    assert found.errors["dev"] == pytest.approx(error, rel=1e-5)
    rows = found.splits["train"].rows
    assert rows > 1000 > len(dev)
    assert found.errors["train"] == pytest.approx(error * (len(dev) / rows) ** 0.5, rel=1e-5)
    test = row_losses(MODEL, DATASET.splits["test"]).numpy()
    assert found.errors["test"] == pytest.approx(np.std(test, ddof=1) / len(test) ** 0.5)
    assert [g.label for g in found.positions] == [str(i) for i in range(1, 11)]
    shares = [g.share for g in found.symbols]
    assert shares == sorted(shares, reverse=True)


def test_ngrams_go_up_to_the_context_of_the_model():
    for block_size, largest in ((1, 3), (3, 4), (8, 5)):
        dataset = lm.build_dataset(make_words(), block_size=block_size)
        model = lm.MLPLanguageModel(len(dataset.vocab), block_size, 4, 8)
        found = lm.report_on(model, dataset, TrainConfig(block_size=block_size), FLAT)
        assert list(found.ngrams) == list(range(2, largest + 1))
        for n, loss in found.ngrams.items():
            dev = dataset.splits_for(max(block_size, n - 1))["dev"]
            assert loss == pytest.approx(lm.ngram(dataset, n).loss(dev))


def test_places_beyond_the_fifteenth_are_one_group():
    targets = torch.tensor([1] * 17 + [0] + [1, 0] + [1, 1, 1])  # the last word has no end
    losses = np.arange(len(targets), dtype=float)
    split = lm.Split(torch.zeros(len(targets), 3, dtype=torch.long), targets)
    groups = losses_per_position(losses, split)
    assert [(g.label, g.rows) for g in groups] == [
        ("1", 3), ("2", 3), ("3", 2), *((str(i), 1) for i in range(4, 16)), ("16+", 3),
    ]  # fmt: skip
    assert groups[0].loss == pytest.approx((0 + 18 + 20) / 3)
    assert groups[-1].loss == pytest.approx((15 + 16 + 17) / 3)
    by_symbol = losses_per_symbol(losses, split, (".", "a", "never"))
    assert [(g.label, g.rows) for g in by_symbol] == [("a", 21), (".", 2)]


# the verdict


@pytest.mark.parametrize(
    ("train", "dev", "rows", "ngrams", "kind", "reason"),
    [
        (2.0, 2.2, FLAT, {2: 2.5}, "overfit", r"dev is 0\.200 \(9\.1 %\) above train"),
        (2.0, 2.09, FLAT, {2: 2.5}, "near capacity", "4.3 %"),
        (2.0, 2.2, FLAT, {2: 2.1}, "overfit", "above train"),  # before the other rules
        (2.0, 2.05, rows_of([2.0] * 10, {4: 2.0, 10: 2.05}), {2: 2.5}, "overfit",
         r"dev was 2\.0000 at step 400 and has risen to 2\.0500"),
        (2.0, 2.05, rows_of([2.0] * 10, {4: 2.04, 10: 2.05}), {2: 2.5}, "near capacity", ""),
        (2.0, 2.05, FLAT, {2: 2.5, 3: 2.3, 4: 2.04}, "underfit", r"2\.0400 \(4-gram\)"),
        (2.0, 2.05, rows_of(np.linspace(3, 2, 20)), {2: 2.5}, "underfit", r"by 0\.105 over"),
        (2.1, 2.05, FLAT, {}, "near capacity", "0.050"),
        (2.0, 2.05, [], None, "near capacity", ""),
    ],
)  # fmt: skip
def test_the_first_rule_that_holds(train, dev, rows, ngrams, kind, reason):
    found = verdict(train, dev, rows, ngrams=ngrams)
    assert found.kind == kind
    assert re.search(reason, found.reason)
    assert str(found) == f"{kind}: {found.reason}. {found.advice}."


@pytest.mark.parametrize(
    ("train", "dev", "rows", "noise", "kind", "reason"),
    [
        (2.0, 2.2, FLAT, Noise(gap=0.09), "overfit", "above train"),
        (2.0, 2.2, FLAT, Noise(gap=0.11), "unclear",
         r"dev is 0\.200 \(9\.1 %\) above train, with a standard error of 0\.110"),
        (2.0, 2.0, FLAT, Noise(gap=0.06), "unclear", "train"),  # nor can 5 % be excluded
        (2.0, 2.0, FLAT, Noise(gap=0.04), "near capacity", ""),
        (2.0, 2.05, rows_of([2.0] * 10, {4: 2.0, 10: 2.05}), Noise(dev=0.02), "overfit", "risen"),
        (2.0, 2.05, rows_of([2.0] * 10, {4: 2.0, 10: 2.05}), Noise(dev=0.03), "unclear",
         r"has risen to 2\.0500 since, with a standard error of 0\.030"),
        (2.0, 2.52, FLAT, Noise(gap=1, counts={2: 0.009}), "underfit", "counting"),
        (2.45, 2.52, FLAT, Noise(counts={2: 0.011}), "unclear",
         r"counting reaches dev 2\.5000 \(bigram\), the model 2\.5200, .* error of 0\.011"),
        (2.45, 2.47, FLAT, Noise(counts={2: 0.016}), "unclear", "counting"),  # below, by chance
        (2.45, 2.47, FLAT, Noise(counts={2: 0.014}), "near capacity", ""),
        (2.0, 2.05, rows_of(np.linspace(3, 2, 20)), Noise(gap=1), "underfit", "still falls"),
    ],
)  # fmt: skip
def test_differences_below_two_standard_errors_decide_nothing(
    train, dev, rows, noise, kind, reason
):
    found = verdict(train, dev, rows, ngrams={2: 2.5}, noise=noise)
    assert found.kind == kind
    assert re.search(reason, found.reason)
    if kind == "unclear":
        assert str(found).startswith("unclear: too few dev rows to tell: ")


def test_the_errors_of_a_report_are_those_of_its_rows():
    """With one word in dev nothing is clear; the counts are compared row by row."""
    few = lm.build_dataset(make_words()[:10], block_size=3)
    model = lm.MLPLanguageModel(len(few.vocab), 3, 4, 16)
    assert lm.report_on(model, few, TrainConfig(), FLAT).verdict.kind == "unclear"


def test_a_fall_that_may_be_chance_is_none():
    falling = rows_of(np.linspace(3, 2, 100))
    fall = np.mean([r.train_loss for r in falling[80:90]])
    fall -= np.mean([r.train_loss for r in falling[90:]])
    assert still_falling(falling) == pytest.approx(fall)
    assert still_falling(falling, noise=fall / 2) == pytest.approx(fall)
    assert still_falling(falling, noise=2 * fall) == 0  # twice the deviation of a mean of ten
    assert still_falling(rows_of(np.linspace(2.05, 2, 100))) == 0  # less than 0.5 %
    assert still_falling(falling[::-1]) == 0
    assert still_falling(falling[:2]) == 0


def test_flat_curves_with_noise_are_rarely_called_falling():
    rng = np.random.default_rng(0)
    falls = [still_falling(rows_of(2 + 0.05 * rng.standard_normal(40)), 0.05) for _ in range(400)]
    assert np.mean(np.array(falls) > 0) < 0.05  # one side of two standard deviations: 2.3 %


# the command


@pytest.fixture
def run(words, tmp_path, capsys):
    out = tmp_path / "run"
    sizes = ["--hidden", "8", "--embedding-dim", "3", "--steps", "200", "--log-every", "10"]
    assert main(["train", words, *sizes, "--eval-every", "50", "--out", str(out)]) == 0
    capsys.readouterr()
    return out


def test_report_prints_the_tables_and_test_at_the_end(run, capsys):
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr().out
    found = lm.report(run)
    lines = printed.splitlines()
    assert lines[0].startswith(f"run     {run}: step 200 of 200, engine run, ")
    for name in ("train", "dev"):
        metrics = found.splits[name]
        assert f"loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.4f}" in printed
    assert f"bigram {found.ngrams[2]:.4f}, trigram {found.ngrams[3]:.4f}, 4-gram" in printed
    cells = re.findall(r"(\S+) +(\d+) [ ~](\d\.\d{4}) ±[\d.?]+ +(\d+\.\d) %", printed)
    groups = [*found.positions, *found.symbols]
    assert sorted(cells) == sorted(
        (g.label, str(g.rows), f"{g.loss:.4f}", f"{100 * g.share:.1f}") for g in groups
    )
    assert f"verdict {found.verdict} saved" in " ".join(printed.split())
    assert lines[-2:] == [
        f"saved {run / 'curves.png'}",
        f"test loss {found.splits['test'].loss:.4f} ({found.splits['test'].rows} rows, few: loss "
        f"±{found.errors['test']:.3f})",
    ]  # fmt: skip
    assert printed.count(f"{found.splits['test'].loss:.4f}") == 1
    few = [group for group in groups if group.few]
    assert printed.count(" ~") == len(few) > 0
    rows, error = found.splits["dev"].rows, found.errors["dev"]
    assert f"({rows} rows, few: loss ±{error:.3f})" in lines[2]
    assert lines[1].endswith(" rows)")  # train has more than 1,000
    assert max(map(len, lines[1:-2])) <= WIDTH
    assert png_size((run / "curves.png").read_bytes()) == (1650, 780)


def test_report_plot_shows_the_log_and_the_places(run):
    found = lm.report(run)
    most = replace(found.positions[0], rows=12_345)
    found = replace(found, positions=[most, *found.positions[1:]])
    figure = lm.plots.report_plot(found)
    draws(figure)
    curves, places = figure.axes
    assert curves.lines[0].get_ydata().tolist() == [row.train_loss for row in found.rows]
    bars = sorted(places.patches, key=lambda bar: bar.get_x())
    assert [bar.get_height() for bar in bars] == [g.loss for g in found.positions]
    hatched = [bar.get_hatch() is not None for bar in bars]
    assert hatched == [g.few for g in found.positions]
    assert 0 < sum(hatched) < len(hatched)
    assert [text.get_text() for text in places.texts] == [f"{g.rows:,}" for g in found.positions]
    texts_are_legible(figure)


def test_report_without_matplotlib_says_so_and_goes_on(run, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "no curves: plots need matplotlib, which is not installed" in printed
    assert printed.splitlines()[-1].startswith("test loss ")
    assert not (run / "curves.png").exists()


def test_a_run_without_steps_has_a_report_without_curves(words, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", words, "--steps", "0", "--out", str(out)]) == 0
    assert main(["report", str(out)]) == 0
    assert "no curves: the log has no rows yet" in capsys.readouterr().out
    assert "the log has no rows yet" in fails(capsys, "plot", out, "--what", "loss")
    assert [run.dev is not None for run in lm.compare([out, out]).runs] == [True, True]


def test_errors(run, words, tmp_path, capsys):
    assert "no such run folder" in fails(capsys, "report", tmp_path / "absent")
    out = tmp_path / "mine.png"
    out.write_bytes(b"mine")
    assert "exists; replace it with --force" in fails(capsys, "report", run, "--out", out)
    assert out.read_bytes() == b"mine"
    other = tmp_path / "other.txt"
    other.write_text("\n".join(make_words(alphabet="wxyz")))
    assert "another vocabulary" in fails(capsys, "report", run, other)
    with open(words, "a") as file:
        file.write("abba\n")
    assert "not the words this run was trained on" in fails(capsys, "report", run)
    log = (run / "log.csv").read_text()
    (run / "log.csv").write_text(log.replace("0.1,", "x,", 1))
    assert "log.csv, line 2: not a log row" in fails(capsys, "report", run)
    (run / "log.csv").write_bytes(b"\xff\n")
    assert "log.csv: cannot be read" in fails(capsys, "report", run)
    assert not (run / "curves.png").exists()
