"""The command ``find-lr``: its lines, its files, and the command that it says is next."""

from __future__ import annotations

import os
import re
import shlex

import pytest
import torch
from support.command_line import fails

from mlpkern import lm
from mlpkern.cli import _parser, main
from mlpkern.cli.session import chosen_config
from mlpkern.lm.model.config import settings_of

SMALL = ["--hidden", "16", "--embedding-dim", "3", "--steps", "400"]
GIVEN = [
    "--preset", "best", "--level", "char", "--lower", "--block-size", "4", "--embedding-dim", "3",
    "--hidden", "12,9", "--init", "lecture", "--batch-size", "9", "--steps", "120",
    "--schedule", "cosine", "--warmup", "2.5%", "--optimizer", "adamw", "--weight-decay",
    "0.0123456789", "--input-dropout", "0.1", "--hidden-dropout", "0.2", "--max-grad-norm", "0.5",
    "--label-smoothing", "0.05", "--seed", "3", "--split-seed", "0", "--threads", "1",
]  # fmt: skip


def next_config(line):
    """The settings of the run that the last line starts, and its arguments."""
    command, *arguments = shlex.split(line.removeprefix("next: "))
    assert command == "mlpkern"
    args = _parser().parse_args(arguments)
    assert args.command == "train"
    return chosen_config(args), args


def test_it_prints_one_rate_and_the_command_that_takes_it(words, tmp_path, capsys):
    out = tmp_path / "curves" / "lr.csv"
    options = [*SMALL, "--seeds", "3", "--sweep-steps", "300"]
    assert main(["find-lr", words, *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "sweep   300 steps, 3 seeds, learning rate 0.0001 to 10; diverged" in printed
    assert f"saved in {out}" in printed
    rounds = re.findall(r"^trials  (\d+) steps, dev loss (.*); best \S+$", printed, re.M)
    assert [int(steps) for steps, _ in rounds] == [100, 400]
    assert all(" at 0." in losses for _, losses in rounds)
    *_, steepest, valley, recommended, following = printed.strip().splitlines()
    assert 0.003 < float(re.match(r"steepest descent (\S+): ", steepest)[1]) < 3
    assert 0.001 < float(re.match(r"valley           (\S+): ", valley)[1]) < 3
    rate = re.match(r"recommended      (\S+): ", recommended)[1]
    assert following == f"next: mlpkern train {words} {shlex.join(SMALL)} --lr {rate}"
    table = out.read_text().splitlines()
    assert table[0] == "lr,smoothed,loss_0,loss_1,loss_2"
    assert len(table) == 301
    assert (table[1][:7], table[-1][:3]) == ("0.0001,", "10,")
    assert os.listdir(out.parent) == ["lr.csv"]

    error = fails(capsys, "find-lr", words, "--out", out)
    assert f"{out}: exists; replace it with --force" in error
    assert main(["find-lr", words, *options, "--out", str(out), "--force"]) == 0
    assert out.read_text().splitlines() == table
    assert following in capsys.readouterr().out


@pytest.mark.parametrize("lr", [None, "0.5", "0.5@0", "0.3,0.1@50%,0.07@90"])
def test_every_flag_of_the_run_is_in_the_next_command(words, capsys, monkeypatch, lr):
    found, real = [], lm.find_lr

    def find_lr(*arguments, **options):
        found.append(real(*arguments, **options))
        return found[0]

    monkeypatch.setattr("mlpkern.lm.many.found_lr.find_lr", find_lr)
    assert main(["find-lr", words, *GIVEN, *([f"--lr={lr}"] if lr else [])]) == 0
    config, args = next_config(capsys.readouterr().out.splitlines()[-1])
    assert config == found[0].config
    assert config.lr[0][1] == found[0].recommended
    assert len(config.lr) == (3 if "," in (lr or "") else 1)
    plain = lm.TrainConfig()
    for name in {*settings_of("model"), *settings_of("training"), *settings_of("optimizer")}:
        assert name == "momentum" or getattr(config, name) != getattr(plain, name)
    assert (args.file, args.preset, args.level, args.lower) == (words, "best", "char", True)
    assert args.threads == 1


def test_without_flags_the_next_command_has_the_rate_alone(capsys, monkeypatch):
    config = lm.TrainConfig()
    curve = lm.LRCurve(*[torch.ones(2, dtype=torch.float64)] * 3, 1, 0.2, 0.1, 0)
    found = lm.FoundLR(0.123, config.with_settings(lr=0.123), curve, ())
    monkeypatch.setattr("mlpkern.lm.many.found_lr.find_lr", lambda *_, **__: found)
    assert main(["find-lr"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: mlpkern train --lr 0.123"
    assert next_config(last)[0] == found.config


def test_errors(words, capsys):
    assert "--seeds must be at least 1" in fails(capsys, "find-lr", words, "--seeds", "0")
    assert "--steps must be at least 1, got 0" in fails(capsys, "find-lr", words, "--steps", "0")
    error = fails(capsys, "find-lr", words, "--sweep-steps", "1")
    assert "--sweep-steps must be at least 2, got 1" in error
    error = fails(capsys, "find-lr", words, "--low", "2", "--high", "1")
    assert "low and high must be 0 < low < high, both finite in float32, got 2.0 and 1.0" in error
    error = fails(capsys, "find-lr", words, "--low", "1e30", "--high", "1e38", *SMALL)
    assert "the loss never falls between the learning rates 1e+30 and 1e+38 of the sweep" in error
