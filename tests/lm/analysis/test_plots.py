"""Pictures of losses, rates and predictions: what they show, legible texts, no matplotlib."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from support.lm.words import make_words
from support.pictures import draws, texts_are_legible

from mlpkern import lm
from mlpkern.lm import plots
from mlpkern.lm.errors import ConfigError, MissingPackageError
from mlpkern.lm.many.found_lr import FoundLR, Trials
from mlpkern.lm.many.lr_finder import LRCurve
from mlpkern.lm.plots.end_labels import spread_out
from mlpkern.lm.plots.style import LINES
from mlpkern.lm.saved.log import LogRow

ROWS = [
    LogRow(1000 * i, 0.1, 2 + 5 / i**2, 2.1 + 1 / i if i % 4 == 0 else None, 0.02 * i)
    for i in range(1, 21)
]


# titles


def test_every_picture_of_a_run_can_say_of_which():
    dataset = lm.build_dataset(make_words(), block_size=3)
    model = lm.MLPLanguageModel(len(dataset.vocab), 3, 4, 16)
    title = f"a_run $5{'n' * 22}: T=3 D=4 H=16+16 V=9, step 200,000 of 400,000, dev 2.1586"
    vocab = dataset.vocab
    figures = [
        plots.loss_plot(ROWS, {"bigram": 2.45}, title=title),
        plots.lr_plot(lm.TrainConfig(), title=title),
        plots.embedding_plot(model.embedding.weight, vocab, title=title),
        plots.confusion_plot(torch.eye(9, dtype=torch.float64), vocab, title=title),
    ]
    for figure in figures:
        texts_are_legible(figure)
        assert figure.get_suptitle() == title.replace("$", r"\$")
    assert plots.loss_plot(ROWS).get_suptitle() == ""


# curves


def test_loss_plot_is_the_log_with_the_baselines():
    figure = plots.loss_plot(ROWS, {"bigram": 2.45, "trigram": 2.2})
    draws(figure)
    train, dev, bigram, trigram = figure.axes[0].lines
    assert train.get_xydata().tolist() == [[r.step, r.train_loss] for r in ROWS]
    assert dev.get_xydata().tolist() == [[r.step, r.dev_loss] for r in ROWS[3::4]]
    assert (bigram.get_ydata(), trigram.get_ydata()) == ([2.45, 2.45], [2.2, 2.2])
    assert bigram.get_linestyle() != trigram.get_linestyle()
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["train (batches)", "dev", "bigram 2.4500", "trigram 2.2000"]
    texts_are_legible(figure)


def test_the_first_losses_do_not_flatten_the_rest():
    rows = [LogRow(10, 0.1, 30.0, None, 0.1), *ROWS]
    low, high = plots.loss_plot(rows).axes[0].get_ylim()
    assert low < 2
    assert 7 < high < 8


def test_curves_need_rows():
    with pytest.raises(ConfigError, match="the log has no rows yet"):
        plots.loss_plot([])
    with pytest.raises(ConfigError, match="no log has rows yet"):
        plots.comparison_plot({"a": []})
    with pytest.raises(ConfigError, match="no steps"):
        plots.lr_plot(lm.TrainConfig(steps=0))
    plots.loss_plot(ROWS[:1]).draw_without_rendering()


@pytest.mark.parametrize(
    "config",
    [
        lm.PRESETS["lecture"],
        lm.TrainConfig(steps=700, lr=((0, 0.1),)),
        lm.TrainConfig(steps=900, schedule="cosine", warmup=100),
    ],
)
def test_lr_plot_is_the_schedule(config):
    figure = plots.lr_plot(config)
    (line,) = figure.axes[0].lines
    steps, rates = line.get_xydata().T
    expected = config.learning_rates(0, config.steps).numpy()
    np.testing.assert_array_equal(rates, expected[steps.astype(int)])
    assert (steps[0], steps[-1]) == (0, config.steps - 1)
    texts_are_legible(figure)


def test_axes_have_round_steps_and_the_rates_themselves():
    (axes,) = plots.lr_plot(lm.PRESETS["lecture"]).axes
    axes.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.01", "0.1"]
    steps = [int(step) for step in axes.get_xticks() if step <= 210_000]
    assert steps == [0, 50_000, 100_000, 150_000, 200_000]
    (axes,) = plots.lr_plot(lm.TrainConfig(schedule="cosine", lr=((0, 0.002),))).axes
    axes.figure.draw_without_rendering()
    assert "0.002" in [label.get_text() for label in axes.get_yticklabels()]


def test_comparison_has_a_line_of_its_own_for_every_run():
    logs = {f"run{i}": ROWS[: 20 - i] for i in range(9)} | {"_odd $name$": ROWS[:6]}
    figure = plots.comparison_plot(logs)
    draws(figure)
    for axes, key in zip(figure.axes, ("step", "seconds"), strict=True):
        dev = [line for line in axes.lines if not line.get_label().startswith(("_", "thin"))]
        assert len(dev) == len(logs)
        assert len({(line.get_color(), line.get_linestyle()) for line in dev}) == len(logs)
        for line, rows in zip(dev, logs.values(), strict=True):
            expected = [[getattr(r, key), r.dev_loss] for r in rows if r.dev_loss is not None]
            assert line.get_xydata().tolist() == expected
    texts_are_legible(figure)
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert len(names) == len(logs) + 1
    assert names[-2].endswith(r"odd \$name\$")


def test_the_last_dev_losses_stand_at_the_ends_and_cover_nothing():
    ends = [2.1500, 2.1501, 2.1502, 2.3, 2.1501]
    logs = {
        f"run{i}": [*ROWS[:19], LogRow(20_000, 0.1, 2.1, end, 1.0)] for i, end in enumerate(ends)
    }
    figure = plots.comparison_plot(logs, title="5 runs, differing in $lr")
    draws(figure)
    texts_are_legible(figure)
    assert figure.get_suptitle() == r"5 runs, differing in \$lr"
    for axes in figure.axes:
        shown = sorted(axes.texts, key=lambda text: text.get_position()[1])
        assert [text.get_text() for text in shown] == sorted(f"{end:.4f}" for end in ends)
        for text in shown:
            above = axes.transData.transform((0, float(text.get_text())))[1]
            assert abs(axes.transData.transform(text.get_position())[1] - above) < 60
    crowd = {f"run{i}": logs["run0"] for i in range(40)}
    figure = plots.comparison_plot(crowd)  # more than there is room for
    texts_are_legible(figure)
    assert 5 < len(figure.axes[0].texts) < 40


@pytest.mark.parametrize("count", [1, 7, 40])
def test_heights_are_spread_no_further_than_they_must(count):
    rng = np.random.default_rng(count)
    heights = rng.uniform(0, 100, count).round()
    spread = spread_out(heights, 2.5, 0, 100)
    assert np.diff(np.sort(spread)).min(initial=2.5) >= 2.5 - 1e-9
    assert (spread.min(), spread.max()) >= (0, 0)
    assert spread.max() <= 100
    assert (np.argsort(spread) == np.argsort(heights, kind="stable")).all()
    alone = np.abs(heights[:, None] - heights + 1e9 * np.eye(count)).min(1) > 100
    assert (spread[alone] == heights[alone]).all()


def test_lines_differ_without_colour_once_the_colours_repeat():
    assert len(set(LINES)) == len(LINES) == 28


# the finder


def test_band_holds_the_quantiles_and_lines_mark_the_suggestions():
    lrs = torch.logspace(-4, 1, 30, dtype=torch.float64)
    losses = 3 + torch.rand(11, 30)
    losses[:, 5] = torch.arange(11) / 10.0  # quantiles 0.1 and 0.9
    losses[0, 20:] = torch.nan
    smoothed = losses.nanmedian(0).values.double()[:25]
    curve = LRCurve(lrs, losses, smoothed, 3, 0.2, 0.03, 1)
    window = len(smoothed) // 10 | 1
    assert window == 3
    band = curve.band()
    assert band.shape == (2, 25)
    worst = losses.clone()
    worst[0, 20:] = losses[1:, 20:].amax(0)
    raw = np.quantile(worst[:, :25].double(), [0.1, 0.9], axis=0)
    mean = np.stack([np.convolve(np.pad(r, 1, "edge"), np.ones(3) / 3, "valid") for r in raw])
    twice = np.stack([np.convolve(np.pad(r, 1, "edge"), np.ones(3) / 3, "valid") for r in mean])
    np.testing.assert_allclose(band[:, 2:-2], twice[:, 2:-2])  # the ends have shorter windows

    figure = plots.finder_plot(curve)
    draws(figure)
    (axes,) = figure.axes
    labels = {line.get_label(): line for line in axes.lines}
    assert labels["valley 0.2"].get_xdata() == [0.2, 0.2]
    assert labels["steepest descent 0.03"].get_xdata() == [0.03, 0.03]
    assert labels["median, smoothed"].get_ydata().tolist() == smoothed.tolist()
    texts_are_legible(figure)


def test_trials_stand_below_the_sweep_above_the_lowest_of_their_round():
    lrs = torch.logspace(-4, 1, 30, dtype=torch.float64)
    losses = 3 + torch.rand(2, 30)
    curve = LRCurve(lrs, losses, losses[0].double(), 3, 0.2, 0.03, 0)
    rounds = Trials(100, {0.1: 2.5, 0.2: 2.25, 0.4: torch.inf}, 0.2), Trials(400, {0.1: 2.0}, 0.1)
    figure = plots.finder_plot(curve, FoundLR(0.123, lm.TrainConfig(lr=0.123), curve, rounds))
    draws(figure)
    sweep, trials = figure.axes
    for axes in figure.axes:
        assert [0.123, 0.123] in [list(line.get_xdata()) for line in axes.lines]
    assert "recommended 0.123" in [line.get_label() for line in sweep.lines]
    lines = {line.get_label(): line for line in trials.lines}
    assert list(lines["100 steps"].get_xdata()) == [0.1, 0.2, 0.4]
    assert list(lines["100 steps"].get_ydata()) == [0.25, 0.0, torch.inf]
    assert list(lines["400 steps"].get_ydata()) == [0.0]
    assert trials.get_ylim()[1] == pytest.approx(0.2)
    texts_are_legible(figure)


def test_finder_plot_of_one_seed_and_of_none_that_lives():
    lrs = torch.logspace(-4, 1, 30, dtype=torch.float64)
    losses = 3 + torch.rand(1, 30)
    curve = LRCurve(lrs, losses, losses[0].double(), 3, None, None, 0)
    figure = plots.finder_plot(curve)
    figure.draw_without_rendering()
    assert [line.get_label() for line in figure.axes[0].lines] == ["each step", "smoothed"]
    dead = LRCurve(lrs, losses * torch.nan, losses[0, :0].double(), 1, None, None, 1)
    with pytest.raises(ConfigError, match="not finite"):
        plots.finder_plot(dead)


# matplotlib


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'mlpkern\[plots\]'"):
        plots.loss_plot(ROWS)
