"""A setting is declared once: its field gives the flag, the help, the checks and the search."""

from __future__ import annotations

import dataclasses
import math

import pytest
from support.command_line import parsers

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import PRESETS, SETTINGS, SHAPE, TrainConfig
from mlpkern.lm.model.setting import OneOf, Rates, Real, Seed, Steps, Whole, Widths, setting_text
from mlpkern.lm.search.space import Choice, Range, SearchSpace
from mlpkern.lm.training.options import common_options

EVERY = pytest.mark.parametrize("name", SETTINGS)
DIFFERENT = {  # a value other than the default
    "hidden": (64, 32), "lr": ((0, 0.2), (7, 0.1)), "init": "lecture", "schedule": "cosine",
    "optimizer": "adamw",
}  # fmt: skip
IMPOSSIBLE = {Whole: -1, Seed: -1, Real: -1.0, OneOf: "absent", Widths: (), Rates: (), Steps: -1}


def another(name):
    """The default settings with another value of one."""
    if (value := DIFFERENT.get(name)) is None:
        default = getattr(TrainConfig, name) or 0
        value = 0.5 if isinstance(SETTINGS[name].kind, Real) else default + 1
    return dataclasses.replace(TrainConfig(), **{name: value})


def test_every_field_is_a_setting():
    assert list(SETTINGS) == [field.name for field in dataclasses.fields(TrainConfig)]
    assert all(f"    {name}: " in TrainConfig.__doc__ for name in SETTINGS)


@EVERY
def test_every_setting_has_a_flag_of_train_that_takes_its_text(name):
    (action,) = (a for a in parsers()["train"]._actions if a.dest == name)
    assert action.option_strings == [f"--{name.replace('_', '-')}"]
    assert action.help % {} == SETTINGS[name].told(getattr(TrainConfig, name))
    for config in (TrainConfig(), *PRESETS.values(), another(name)):
        value = getattr(config, name)
        if value is not None:
            text = setting_text(value)
            parsed = action.type(text) if action.type else text
            assert getattr(dataclasses.replace(config, **{name: parsed}), name) == value
            assert action.choices is None or value in action.choices


@EVERY
def test_an_impossible_value_is_named_and_none_is_lost_in_json(name):
    with pytest.raises(ConfigError, match=rf"^{name} must "):
        dataclasses.replace(TrainConfig(), **{name: IMPOSSIBLE[type(SETTINGS[name].kind)]})
    assert TrainConfig.from_json(another(name).to_json()) == another(name)
    if isinstance(SETTINGS[name].kind, (Whole, Steps, Real, Seed)):
        for value in ("many", math.nan):
            with pytest.raises(ConfigError, match=rf"^{name} must be "):
                dataclasses.replace(TrainConfig(), **{name: value})


@EVERY
def test_every_searchable_setting_can_be_searched_and_no_other(name):
    kind = SETTINGS[name].kind
    values = {int: (1, 2), float: (0.25, 0.5), str: getattr(kind, "values", ())}[kind.searched]
    if not SETTINGS[name].searchable:
        with pytest.raises(ConfigError, match=f"{name} cannot be searched; the names are block_"):
            SearchSpace({name: Choice(values)})
        return
    space = SearchSpace({name: Choice(values)})
    space.check(TrainConfig())
    found = {getattr(space.config(TrainConfig(), {name: value}), name) for value in values}
    assert len(found) == len(values)
    if kind.searched is not str and not isinstance(kind, Seed):  # a seed is no quantity
        SearchSpace({name: Range(*values)}).check(TrainConfig())


def test_the_shape_holds_the_options_that_a_call_has_once():
    assert set(common_options(TrainConfig())) == {
        name for name in SHAPE if SETTINGS[name].group == "optimizer"
    }
    assert {name for name in SETTINGS if SETTINGS[name].group == "optimizer"} == {
        next(iter(another(name).beyond_plain_sgd())) for name in SETTINGS
        if another(name).beyond_plain_sgd()
    }  # fmt: skip
