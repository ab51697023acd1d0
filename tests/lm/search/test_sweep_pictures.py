"""The pictures of a sweep: which marks stand for which trials, and legible texts."""

from __future__ import annotations

import pytest
from support.pictures import draws, texts_are_legible

from mlpkern.lm.search.pictures import history_plot, parallel_plot
from mlpkern.lm.search.space import SearchSpace

optuna = pytest.importorskip("optuna")

SPACE = SearchSpace.from_json(
    {"lr": {"low": 0.01, "high": 1, "log": True}, "hidden": [4, 8, [8, 4]], "seed": [0, 1]}
)


def trial(number, steps, loss):
    state = optuna.trial.TrialState
    found = optuna.trial.create_trial(
        state=state.COMPLETE if steps == 40 else state.PRUNED, value=loss,
        intermediate_values={step: loss + (steps - step) for step in (10, 20, 40) if step <= steps},
        params={"lr": 0.01 * 1.1**number, "hidden": [4, 8, "8+4"][number % 3], "seed": number % 2},
        distributions=SPACE.distributions(),
    )  # fmt: skip
    found.number = number
    return found


# the last of 30 is far above the others
ENDS = [(10, 2.5), (20, 2.4), (40, 2.3), (10, 2.6), (40, 2.2), (40, 2.25)] * 5
TRIALS = [trial(k, steps, loss + k / 1000) for k, (steps, loss) in enumerate(ENDS)]
TRIALS[28:] = [trial(28, 40, 2.1), trial(29, 10, 1e30)]


def test_the_history_tells_pruned_trials_from_finished_ones():
    figure = history_plot(TRIALS, SPACE, "a $ sweep")
    draws(figure)
    texts_are_legible(figure)
    axes = figure.axes[0]
    title = axes.get_title(loc="left").replace("\n", " ")
    assert title == (
        r"Sweep a \$ sweep: dev loss of 30 trials, searching learning rate, hidden H, seed"
    )
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["pruned at step 10: 11", "pruned at step 20: 5", "trained to the end: 14",
                      "best so far, at last 2.1000", "above the axis: 1"]  # fmt: skip
    high = axes.get_ylim()[1]
    shown = {
        label: c.get_offsets().data.tolist() for c in axes.collections if (label := c.get_label())
    }
    for label, steps in zip(legend[:3], (10, 20, 40), strict=True):
        those = [t for t in TRIALS if max(t.intermediate_values) == steps]
        points = [[t.number, t.intermediate_values[steps]] for t in those]
        assert shown[label] == [point for point in points if point[1] <= high]
    above = [t.number for t in TRIALS if max(t.intermediate_values.items())[1] > high]
    assert [x for x, _ in shown["above the axis: 1"]] == above
    looks = [(c.get_facecolor().tolist(), len(c.get_paths()[0].vertices)) for c in axes.collections]
    assert len({str(look) for look in looks}) == len(looks)
    (best,) = axes.lines
    assert best.get_ydata()[-1] == 2.1
    assert best.get_xdata()[-1] == 29


def test_the_settings_of_each_trial_without_its_seed():
    figure = parallel_plot(TRIALS, SPACE, "runs")
    draws(figure)
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "Sweep runs: settings and dev loss of 30 trials"
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["learning rate", "hidden H", "dev loss"]
    assert len(axes.lines) == 30
