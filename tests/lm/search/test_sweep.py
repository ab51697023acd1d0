"""Sweeps: what is trained and told, pruning, going on, the best run, what is refused."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import pytest
from support.lm.sweeps import NO_TEST, PLAN, states
from support.lm.words import make_words

from mlpkern.lm.errors import CheckpointError, ConfigError, MissingPackageError
from mlpkern.lm.many.population import Population, group_key
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.search.folder import SweepFolder
from mlpkern.lm.search.rungs import sweep
from mlpkern.lm.search.space import SearchSpace
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

optuna = pytest.importorskip("optuna")

# what is trained and told


def test_rungs_keep_the_best_and_every_loss_is_that_of_evaluate(tmp_path):
    lines = []
    done = sweep(PLAN, NO_TEST, SweepFolder(tmp_path), report=lines.append)
    trials = done.study.get_trials(deepcopy=False)
    assert sorted(states(done.study)) == ["COMPLETE"] + ["PRUNED"] * 8
    assert [line.split()[3:6] for line in lines] == [
        ["10", "9", "in"], ["20", "3", "in"], ["40", "1", "in"],
    ]  # fmt: skip
    for step, going in ((10, 9), (20, 3), (40, 1)):
        reached = [t for t in trials if step in t.intermediate_values]
        assert len(reached) == going
        best = sorted(reached, key=lambda t: t.intermediate_values[step])[: math.ceil(going / 3)]
        if step < 40:
            further = {t.number for t in trials if 2 * step in t.intermediate_values}
            assert {t.number for t in best} == further
    for trial in trials:
        config = PLAN.space.config(PLAN.base, trial.params)
        dataset = build_dataset(make_words(), block_size=config.block_size)
        run = Trainer.start(config, dataset, RunEngine())
        for step, loss in sorted(trial.intermediate_values.items()):
            run.engine.run_chunk(run.state, step - run.state.step)
            dev = evaluate(run.state.model, run.dataset.splits["dev"]).loss
            assert loss == pytest.approx(dev, rel=1e-6)
    assert done.study.best_value == min(
        t.intermediate_values[40] for t in trials if 40 in t.intermediate_values
    )


def test_rungs_ask_for_a_cool_down_and_the_end_does_not(tmp_path):
    asked = []

    class Asked(Population):
        def dev(self, cooldown=0):
            asked.append(cooldown)
            return super().dev(cooldown)

    sweep(replace(PLAN, cooldown=0.3), NO_TEST, SweepFolder(tmp_path), trainees=Asked)
    assert asked == [3, 6, 0]


def test_the_trials_of_a_batch_share_few_shapes(tmp_path):
    seen = []

    def trainees(configs, dataset):
        seen.append(configs)
        return Population(configs, dataset)

    plan = replace(PLAN, trials=14, batch=7, shapes=2, rungs=())
    sweep(plan, NO_TEST, SweepFolder(tmp_path), trainees=trainees)
    assert [len(configs) for configs in seen] == [7, 7]
    for configs in seen:
        assert len({group_key(config) for config in configs}) <= 2
        assert len({config.lr for config in configs}) == 7
    assert not {c.lr for c in seen[0]} & {c.lr for c in seen[1]}


@pytest.mark.parametrize("names", [("hidden", "block_size"), ("lr", "input_dropout")])
def test_a_space_of_shapes_alone_and_one_without(tmp_path, names):
    entries = {name: PLAN.space.entries[name] for name in names}
    plan = replace(PLAN, space=SearchSpace(entries), trials=5, batch=5)
    assert len(states(sweep(plan, NO_TEST, SweepFolder(tmp_path)).study)) == 5


def test_a_trial_that_diverges_is_pruned_and_never_the_best(tmp_path):
    space = SearchSpace.from_json({"lr": [0.05, 1e38]})
    plan = replace(PLAN, base=replace(PLAN.base, optimizer="sgd"), space=space, trials=6, batch=6,
                   rungs=(), seed=1)  # fmt: skip
    study = sweep(plan, NO_TEST, SweepFolder(tmp_path)).study
    for trial in study.get_trials(deepcopy=False):
        assert trial.state.name == ("COMPLETE" if trial.params["lr"] == 0.05 else "PRUNED")
    assert {t.params["lr"] for t in study.trials} == {0.05, 1e38}
    assert study.best_params == {"lr": 0.05}


@pytest.mark.parametrize("rates", [[0.05, 1e9], [1e8, 1e9]])
def test_a_trial_that_diverges_at_a_finite_loss_is_pruned_too(tmp_path, rates):
    space = SearchSpace.from_json({"lr": rates})
    plan = replace(PLAN, base=replace(PLAN.base, optimizer="sgd"), space=space, trials=6, batch=6,
                   rungs=(), seed=1)  # fmt: skip
    lines = []
    study = sweep(plan, NO_TEST, SweepFolder(tmp_path), report=lines.append).study
    for trial in study.get_trials(deepcopy=False):
        fine = trial.params["lr"] == 0.05
        assert trial.state.name == ("COMPLETE" if fine else "PRUNED")
        said = f"trial {trial.number} diverged: the train loss "
        assert any(line.startswith(said) for line in lines) is not fine
    assert (tmp_path / "best" / "model.safetensors").exists() is (rates[0] == 0.05)


def test_patience_is_not_for_sweeps():
    with pytest.raises(ConfigError, match="patience is for single runs, got 3; here the rungs end"):
        replace(PLAN, base=replace(PLAN.base, patience=3))
    assert "patience" not in PLAN.identity()["set"]  # a study of before goes on


# the best run


def test_the_best_is_a_run_that_can_be_evaluated_and_resumed(tmp_path):
    study = sweep(PLAN, NO_TEST, SweepFolder(tmp_path), data={"source": "test"}).study
    checkpoint = load_checkpoint(tmp_path / "best")
    assert checkpoint.config == PLAN.space.config(PLAN.base, study.best_params)
    assert (checkpoint.step, checkpoint.engine, checkpoint.data) == (40, "run", {"source": "test"})
    dataset = build_dataset(make_words(), block_size=checkpoint.config.block_size)
    dev = evaluate(checkpoint.make_model(), dataset.splits["dev"]).loss
    assert dev == pytest.approx(study.best_value, rel=1e-6)
    assert json.loads((tmp_path / "best" / "summary.json").read_text())["dev"]["loss"] == dev
    longer = replace(checkpoint.config, steps=60)
    rest = Trainer.resume(checkpoint, dataset, RunEngine(), config=longer)
    rest.train()
    whole = Trainer.start(longer, dataset, RunEngine())
    whole.train()
    for ours, theirs in zip(
        rest.state.model.parameters(), whole.state.model.parameters(), strict=True
    ):
        assert ours.equal(theirs)


# going on


def test_a_study_goes_on_up_to_the_number_of_trials(tmp_path):
    folder = SweepFolder(tmp_path)
    first = sweep(replace(PLAN, trials=4), NO_TEST, folder)
    before = [trial.params for trial in first.study.trials]
    again = sweep(replace(PLAN, trials=4), NO_TEST, folder)
    more = sweep(PLAN, NO_TEST, folder)
    assert (first.trained, again.trained, more.trained) == (4, 0, 5)
    assert len(states(more.study)) == 9
    assert [t.params for t in more.study.trials[:4]] == before


def test_ctrl_c_keeps_the_study_and_fails_what_was_under_way(tmp_path):
    class Interrupting(Population):
        def keep(self, members):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(PLAN, NO_TEST, SweepFolder(tmp_path), trainees=Interrupting)
    done = sweep(PLAN, NO_TEST, SweepFolder(tmp_path))
    first = states(done.study)[:9]
    assert (first.count("PRUNED"), first.count("FAIL")) == (6, 3)
    assert done.trained == 3  # those that failed are made up for
    assert "RUNNING" not in states(done.study)


def test_minutes_end_a_sweep_between_batches(tmp_path):
    lines = []
    plan = replace(PLAN, trials=1000, batch=3, minutes=1e-9)
    done = sweep(plan, NO_TEST, SweepFolder(tmp_path), report=lines.append)
    assert done.trained == 3
    assert lines[-1] == "stopping: 1e-09 minutes would not hold another batch"


def test_a_study_of_another_space_or_of_other_words_is_refused(tmp_path):
    folder = SweepFolder(tmp_path)
    small = replace(PLAN, trials=2, batch=2)
    sweep(small, NO_TEST, folder)
    before = folder.journal.read_bytes()
    other = SearchSpace({**PLAN.space.entries, **SearchSpace.from_json({"hidden": [4]}).entries})
    for plan, name in (
        (replace(small, space=other), "hidden"),
        (replace(small, base=replace(PLAN.base, steps=41)), "steps"),
    ):
        with pytest.raises(CheckpointError, match=rf"holds a sweep of other settings \({name}\)"):
            sweep(plan, NO_TEST, folder)
    words = build_dataset(make_words(seed=5), block_size=2)
    with pytest.raises(CheckpointError, match="holds a sweep of other words"):
        sweep(small, words, folder)
    assert folder.journal.read_bytes() == before
    folder.journal.write_text("not a journal\n")
    with pytest.raises(CheckpointError, match="not the journal of a sweep"):
        sweep(small, NO_TEST, folder)


# what is not installed


def test_without_optuna_or_yaml_the_error_says_what_to_install(tmp_path, monkeypatch):
    from mlpkern.lm.search.plan import read_plan

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackageError, match=r"optuna, .*: pip install 'mlpkern\[sweep\]'"):
        sweep(PLAN, NO_TEST, SweepFolder(tmp_path / "s"))
    assert not (tmp_path / "s").exists()
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingPackageError, match=r"needs pyyaml, .* pip install"):
        read_plan(tmp_path / "p.yaml")
