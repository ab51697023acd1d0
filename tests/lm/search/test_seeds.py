"""A sweep over seeds: everything else with each of them, judged by the mean; and the curves."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from support.lm.sweeps import NO_TEST, PLAN
from support.lm.words import make_words

from mlpkern.lm.many.population import Population
from mlpkern.lm.search.folder import SweepFolder
from mlpkern.lm.search.rungs import sweep
from mlpkern.lm.search.space import Choice, SearchSpace
from mlpkern.lm.search.study import best_trial, last_loss
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

optuna = pytest.importorskip("optuna")

SEEDS = Choice((3, 4, 9))
SEEDED = replace(PLAN, space=SearchSpace({**PLAN.space.entries, "seed": SEEDS}), trials=18,
                 batch=19, shapes=2)  # fmt: skip


def settings_of(trial):
    return {name: value for name, value in trial.params.items() if name != "seed"}


@pytest.fixture
def seeded(tmp_path):
    lines = []
    return sweep(SEEDED, NO_TEST, SweepFolder(tmp_path), report=lines.append), lines


def test_everything_else_is_trained_with_each_seed(seeded):
    done, _ = seeded
    trials = done.study.trials
    assert len(trials) == 18  # six settings, the most that fit into 19 trials
    assert [t.params["seed"] for t in trials] == list(SEEDS.values) * 6
    for k in range(0, 18, 3):
        assert settings_of(trials[k]) == settings_of(trials[k + 1]) == settings_of(trials[k + 2])
    assert len({t.params["lr"] for t in trials}) == 6
    assert len({(t.params["hidden"], t.params["block_size"]) for t in trials}) <= 2


def test_the_mean_over_the_seeds_decides(seeded):
    done, lines = seeded
    groups = [done.study.trials[k : k + 3] for k in range(0, 18, 3)]
    for step, going in ((10, 6), (20, 2), (40, 1)):
        here = [g for g in groups if step in g[0].intermediate_values]
        assert len(here) == going
        means = {g[0].number: sum(t.intermediate_values[step] for t in g) / 3 for g in here}
        ranked = sorted(here, key=lambda g: means[g[0].number])
        said = next(line for line in lines if f"step {step}" in line)
        assert f"best dev {means[ranked[0][0].number]:.4f}" in said
        assert f" {3 * going} in training" in said
        assert step == 40 or 2 * step in ranked[0][0].intermediate_values
    (best,) = [g for g in groups if g[0].state.name == "COMPLETE"]
    assert done.best.number == min(best, key=last_loss).number
    saved = json.loads((done.folder.best.config).read_text())
    assert saved["trial"] == done.best.number
    assert saved["config"]["seed"] == done.best.params["seed"]


def test_the_best_settings_have_the_lowest_mean_over_all_seeds():
    study = optuna.create_study()
    losses = {0.1: (2.0, 2.1, 2.2), 0.2: (1.0, 3.0, 3.0), 0.3: (1.5, 1.5)}  # 0.3 without a seed
    for lr, those in losses.items():
        for seed, loss in enumerate(those):
            fixed = optuna.distributions.CategoricalDistribution
            study.add_trial(optuna.create_trial(
                params={"lr": lr, "seed": seed}, value=loss, intermediate_values={1: loss},
                distributions={"lr": fixed((0.1, 0.2, 0.3)), "seed": fixed((0, 1, 2))},
            ))  # fmt: skip
    assert best_trial(study, (0, 1, 2)).number == 0
    assert best_trial(study, ()).number == study.best_trial.number == 3
    assert best_trial(optuna.create_study(), (0, 1)) is None


# curves


def rows_of(folder):
    with folder.curves.open() as file:
        return list(csv.DictReader(file))


def test_the_curve_of_every_trial_is_that_of_training_it_alone(tmp_path):
    folder = SweepFolder(tmp_path)
    done = sweep(replace(PLAN, trials=12), NO_TEST, folder)  # two batches
    rows = rows_of(folder)
    assert {int(row["trial"]) for row in rows} == set(range(12))
    for trial in done.study.trials:
        own = [row for row in rows if int(row["trial"]) == trial.number]
        assert [int(row["step"]) for row in own] == list(
            range(1, max(trial.intermediate_values) + 1)
        )
        dev = {int(row["step"]): float(row["dev_loss"]) for row in own if row["dev_loss"]}
        assert dev == pytest.approx(trial.intermediate_values, abs=1e-6)
        config = PLAN.space.config(PLAN.base, trial.params)
        words = build_dataset(make_words(), block_size=config.block_size)
        run = Trainer.start(config, words, RunEngine())
        losses = run.engine.run_chunk(run.state, len(own))
        found = [float(row["train_loss"]) for row in own]
        assert found == pytest.approx(losses.tolist(), abs=1e-6)


def test_a_rung_between_two_points_has_a_row_of_its_own(tmp_path):
    folder = SweepFolder(tmp_path)
    plan = replace(PLAN, base=replace(PLAN.base, steps=500), rungs=(0.5,))
    sweep(plan, NO_TEST, folder)
    rows = [row for row in rows_of(folder) if row["trial"] == "0"]
    assert rows[0]["step"] == "3"  # 500 steps in 200 points at most
    rung = next(row for row in rows if row["step"] == "250")
    assert rung["train_loss"] == "" != rung["dev_loss"]


def test_what_ended_before_ctrl_c_is_in_the_tables(tmp_path):
    class Interrupting(Population):
        def keep(self, members):
            raise KeyboardInterrupt

    folder = SweepFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep(PLAN, NO_TEST, folder, trainees=Interrupting)
    table = folder.table.read_text().splitlines()
    assert len(table) == 1 + 6
    assert {row["trial"] for row in rows_of(folder)} == {line.split(",")[0] for line in table[1:]}


def test_a_run_of_tensorboard_for_every_trial(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = SweepFolder(tmp_path)
    done = sweep(PLAN, NO_TEST, folder, tensorboard=True)
    names = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert names == [f"trial-{number}" for number in range(9)]
    rows = rows_of(folder)
    for trial in done.study.trials:
        events = EventAccumulator(str(folder.events(trial.number)))
        events.Reload()
        own = [row for row in rows if int(row["trial"]) == trial.number]
        train = [(e.step, e.value) for e in events.Scalars("loss/train")]
        assert [step for step, _ in train] == [int(row["step"]) for row in own]
        losses = [float(row["train_loss"]) for row in own]
        assert [loss for _, loss in train] == pytest.approx(losses, abs=1e-5)
        dev = {e.step: e.value for e in events.Scalars("loss/dev")}
        assert dev == pytest.approx(trial.intermediate_values, abs=1e-6)
        assert "hparams" in str(events.SummaryMetadata("_hparams_/session_start_info"))
