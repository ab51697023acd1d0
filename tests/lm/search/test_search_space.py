"""The space and the plan of a sweep: what they mean, and every impossible one as one line."""

from __future__ import annotations

import pytest

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import SHAPE, TrainConfig
from mlpkern.lm.search.plan import DEFAULT_BASE, DEFAULT_SPACE, SweepPlan, read_plan
from mlpkern.lm.search.space import Choice, Range, SearchSpace, parse_entries

FORM = r"expected NAME=LOW:HIGH\[:log\], NAME=A,B,C or NAME=A\.\.B as in lr=0\.001:0\.03:log"


def space(**entries):
    return SearchSpace(entries)


def test_values_become_settings():
    everything = space(
        lr=Range(0.001, 0.1, log=True), hidden=Choice((64, "32+16")), block_size=Range(2, 5)
    )
    config = everything.config(TrainConfig(), {"lr": 0.01, "hidden": "32+16", "block_size": 4})
    assert (config.hidden, config.block_size) == ((32, 16), 4)
    assert config.lr == ((0, 0.01), (0.75, 0.001))  # the shape of the fixed settings
    assert everything.config(TrainConfig(), {"hidden": 64}).hidden == (64,)
    assert SearchSpace.from_json(everything.to_json()) == everything
    widths = SearchSpace.from_json({"hidden": [64, [32, 16]]})
    assert widths.entries["hidden"] == Choice((64, "32+16"))


def test_adamw_among_the_optimizers_goes_without_momentum():
    both = space(optimizer=Choice(("sgd", "adamw")), momentum=Range(0.1, 0.9))
    both.check(TrainConfig())
    for optimizer, momentum in (("adamw", 0.0), ("sgd", 0.5)):
        config = both.config(TrainConfig(), {"optimizer": optimizer, "momentum": 0.5})
        assert (config.optimizer, config.momentum) == (optimizer, momentum)


def test_the_default_space_holds_the_default_settings_and_shapes_train_together():
    plan = SweepPlan()
    assert plan.base == DEFAULT_BASE
    assert plan.space is DEFAULT_SPACE
    known = set(TrainConfig().to_json())
    assert set(SHAPE) | set(plan.space.entries) <= known
    assert max(plan.space.entries["block_size"].values) <= 10


def test_entries_from_text():
    assert parse_entries(["lr=0.001:0.01:log", "hidden=128,32+16", "lr=1:2", "init=scaled"]) == {
        "lr": Range(1.0, 2.0), "hidden": Choice((128, "32+16")), "init": Choice(("scaled",)),
    }  # fmt: skip
    assert parse_entries(["seed=0..2", "block-size=2,4..6"]) == {
        "seed": Choice((0, 1, 2)), "block_size": Choice((2, 4, 5, 6)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=3,4", "width cannot be searched; the names are block_size, "),
        ("steps=3,4", "steps cannot be searched"),
        ("lr=0.1:0.01", "lr: expected finite bounds low < high, got 0.1:0.01"),
        ("lr=0:1:log", "lr: a logarithmic range must begin above 0, got 0"),
        ("lr=nan:1", "lr: expected finite bounds"),
        ("lr=-1:1", "lr=-1.0: lr from step 0 must be finite and at least 0"),
        ("lr=a:b", f"{FORM}, got 'lr=a:b'"),
        ("lr=1:2:3:4", f"{FORM}, got 'lr=1:2:3:4'"),
        ("lr", f"{FORM}, got 'lr'"),
        ("=3", f"{FORM}, got '=3'"),
        ("block_size=5..3", f"{FORM}, got 'block_size=5..3'"),
        ("lr=0..3", f"{FORM}, got 'lr=0..3'"),
        ("hiden=3,4", "hiden cannot be searched; the names are .*; did you mean hidden?"),
        ("seed=0:4", r"seed must be a list of choices as in seed=0\.\.4"),
        ("seed=0,1", "seed alone makes all trials the same but for chance"),
        ("input_dropout=0:1", "input_dropout=1.0: input_dropout must be at least 0 and below 1"),
        ("hidden=0:8", "hidden=0.0: hidden must be one width or more, each at least 1"),
        ("hidden=a,b", "hidden=a: expected a width, or widths as in 200[+]100, got 'a'"),
        ("block_size=1.5:4", "block_size is a whole number, got 1.5:4"),
        ("block_size=2.5,3", f"{FORM}, got 'block_size=2.5,3'"),
        ("optimizer=1:2", "optimizer must be a list of choices"),
        ("optimizer=adam,sgd", "optimizer=adam: optimizer must be one of sgd, adamw"),
        ("hidden=8,8", r"hidden has a choice twice: \[8, 8\]"),
    ],
)
def test_impossible_bounds_are_named(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        SweepPlan(space=SearchSpace(parse_entries([text])))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (7, r"lr must be a list of choices or \{low, high, log\}, got 7"),
        ({"low": 1}, "lr must be a list"),
        ({"low": 1, "high": "x"}, "lr: low and high must be numbers"),
        ([], "lr has no choices"),
        (["a"], "lr: 'a' is not a value it can have"),
        ([True], "lr: True is not a value"),
    ],
)
def test_impossible_entries_of_a_file_are_named(entry, message):
    with pytest.raises(ConfigError, match=message):
        SearchSpace.from_json({"lr": entry})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"batch": 1.5}, "batch must be at least 1, got 1.5"),
        ({"keep": 0.5}, "keep must be at least 1, got 0.5"),
        ({"minutes": 0}, "minutes must be above 0, got 0"),
        ({"rungs": (0.5, 0.2)}, r"rungs must rise and lie between 0 and 1, got \[0.5, 0.2\]"),
        ({"rungs": (1.0,)}, "rungs must rise"),
        ({"cooldown": 1.5}, r"cooldown must be 0 to 1, got 1\.5"),
        ({"base": TrainConfig(steps=0)}, "steps must be at least 1"),
        ({"space": SearchSpace({"lr": Choice((0.1,))}), "seed": -1}, "seed must be at least 0"),
    ],
)
def test_impossible_plans_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        SweepPlan(**settings)


# the plan file


def written(path, text):
    path.write_text(text)
    return path


def test_a_plan_file_fixes_searches_and_budgets(tmp_path):
    pytest.importorskip("yaml")
    plan = read_plan(written(tmp_path / "p.yaml", """
trials: 7
rungs: [0.5]
minutes: null
set: {steps: 100, lr: 0.01, hidden: 32, weight_decay: 0.1}
"""))  # fmt: skip
    assert (plan.trials, plan.rungs, plan.minutes, plan.batch) == (7, (0.5,), None, 16)
    assert (plan.base.steps, plan.base.lr, plan.base.hidden) == (100, ((0, 0.01),), (32,))
    assert not {"lr", "hidden", "weight_decay"} & set(plan.space.entries)
    assert "hidden_dropout" in plan.space.entries
    text = "search: {lr: {low: 0.1, high: 1, log: true}, hidden: [8, [4, 4]]}"
    plan = read_plan(written(tmp_path / "p.yaml", text))
    assert plan.space.entries == {"lr": Range(0.1, 1.0, log=True), "hidden": Choice((8, "4+4"))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails: 7", "unknown keys trails; the keys are batch, cooldown, keep, minutes, rungs"),
        ("- 3", "expected keys such as set, got list"),
        ("search: {lr: [0.1]}\nset: {lr: 0.1}", "lr: both set and searched"),
        ("set: {width: 3}", "unknown settings: width"),
        ("set: 3", "set must map names"),
        ("search: 3", "search must map names"),
        ("search: {}", "the search space is empty"),
        ("a: b: c", "no YAML"),
        ("trials: many", "trials must be at least 1, got 'many'"),
    ],
)
def test_a_bad_plan_file_is_one_line_with_its_name(tmp_path, text, message):
    pytest.importorskip("yaml")
    path = written(tmp_path / "p.yaml", text)
    with pytest.raises(ConfigError, match=message) as error:
        read_plan(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(tmp_path / "absent.yaml")
