"""Arguments from text, and what is said of a mistyped flag, command or value."""

from __future__ import annotations

import argparse

import pytest
from support.command_line import refused

from mlpkern.cli import values


@pytest.mark.parametrize(
    ("text", "number"),
    [("10k", 10_000), ("1.5k", 1_500), ("2M", 2_000_000), ("-1k", -1_000), ("1_000", 1_000)],
)
def test_thousands_and_millions(text, number):
    assert values.whole(text) == number
    assert type(values.whole(text)) is int
    assert values.widths(f"{text},7") == (number, 7)


@pytest.mark.parametrize("text", ["1.2345k", "1.5", "k", "nank", "1e3k", "9" * 400 + "k", "10K%"])
def test_what_is_no_whole_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number"):
        values.whole(text)


def test_rates_begin_at_a_step_or_at_a_share_of_the_steps():
    assert values.schedule("0.1") == 0.1
    assert values.schedule("0.1,0.01@10k") == ((0, 0.1), (10_000, 0.01))
    assert values.schedule("0.1,0.01@33.3%") == ((0, 0.1), (0.333, 0.01))
    for text in ("0.1@100%", "0.1@-1%", "0.1@nan%", "0.1@1.5", "0.1@1@2", "0.1@"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected learning rates as in"):
            values.schedule(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "mlpkern: error: no command 'trian'; did you mean train?"),
        ("zzz", "mlpkern: error: no command 'zzz'"),
        ("--versoin", "mlpkern: error: no flag --versoin; did you mean --version?"),
        ("train --hiden 3", "mlpkern train: error: no flag --hiden; did you mean --hidden?"),
        ("train --zzz=3", "mlpkern train: error: no flag --zzz"),
        # the flag, not the RUN that is missing without it
        ("sample --tempratur 2", "no flag --tempratur; did you mean --temperature?"),
        ("train --optimizer adam",
         "argument --optimizer: expected sgd or adamw, got 'adam'; did you mean adamw?"),
        ("train --schedule zzz", "argument --schedule: expected staged or cosine, got 'zzz'"),
    ],
)  # fmt: skip
def test_a_mistyped_name_is_answered_with_the_nearest(capsys, arguments, message):
    line = refused(capsys, *arguments.split())
    program = line.partition(": error: ")[0]
    assert line.endswith(f"{message} (see {program} --help)")


def test_what_follows_two_dashes_is_no_flag(capsys):
    assert "unrecognized arguments: --zzz" in refused(capsys, "train", "a", "--", "--zzz")
