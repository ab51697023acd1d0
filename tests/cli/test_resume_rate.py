"""What --resume says of the learning rate, and which rise it refuses."""

from __future__ import annotations

import dataclasses

import pytest
from support.command_line import fails

from mlpkern.cli import main
from mlpkern.lm.saved.checkpoint import load_checkpoint, save_checkpoint
from mlpkern.lm.saved.resumed import resumed_config
from mlpkern.lm.saved.run_folder import RunFolder

FAST = ["--hidden", "8", "--embedding-dim", "3", "--steps", "40", "--lr", "0.1@0"]


@pytest.fixture
def run(words, tmp_path, capsys):
    """Trains, and gives back the folder."""

    def train(*arguments):
        out = str(tmp_path / "run")
        assert main(["train", words, *FAST, "--out", out, "--force", *arguments]) == 0
        capsys.readouterr()
        return out

    return train


def resumed(capsys, out, *arguments):
    """The line about the learning rate that a resumed training prints, None if it prints none."""
    assert main(["train", "--resume", out, *arguments]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("lr  ")]
    return lines[0] if lines else None


def test_a_stretched_cosine_is_asked_for(run, capsys):
    out = run("--schedule", "cosine")
    error = fails(capsys, "train", "--resume", out, "--steps", 80)
    assert "--steps 80 stretches the cosine: the learning rate would rise from 0 to 0.05" in error
    assert "accept that with --schedule cosine, or choose rates with --schedule staged" in error
    assert load_checkpoint(out).step == 40
    line = resumed(capsys, out, "--steps", "80", "--schedule", "cosine")
    assert line == (
        "lr      0.05 from step 40 on, where the run had planned 0: cosine over 80 steps; "
        "--lr and --schedule choose others"
    )
    assert load_checkpoint(out).config.learning_rates(40, 1).item() == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--schedule", "staged", "--lr", "0.01"], "0.01 from step 40 on, where the run had plann"),
        (["--lr", "0.02"], "0.01 from step 40 on, where the run had planned 0: cosine over 80"),
    ],
)
def test_other_rates_after_a_cosine_are_said(run, capsys, arguments, says):
    out = run("--schedule", "cosine")
    assert says in resumed(capsys, out, "--steps", "80", *arguments)


def test_stages_that_have_passed_do_not_come_again_in_a_longer_run(run, capsys):
    out = run("--lr", "0.1,0.01@50%,0.001@75%")
    assert resumed(capsys, out, "--steps", "80") is None
    assert load_checkpoint(out).config.lr == ((0, 0.1), (20, 0.01), (30, 0.001))


def test_stages_to_come_move_with_the_end_of_the_run(run, capsys):
    out = run("--lr", "0.1,0.01@50%,0.001@75%", "--warmup", "25%")
    half = load_checkpoint(out)
    earlier = dataclasses.replace(half, step=26)
    for steps, place in ((200, 0.75), (27, 26)):
        config = resumed_config(earlier, {"steps": steps}, out)
        assert (config.lr, config.warmup) == (((0, 0.1), (20, 0.01), (place, 0.001)), 10)
    at_once = dataclasses.replace(half, step=10)  # both stages are due where it goes on
    assert resumed_config(at_once, {"steps": 12}, out).lr == ((0, 0.1), (10, 0.001))
    assert resumed_config(half, {"lr": 0.5}, out).lr == ((0, 0.5),)


def test_a_stage_that_no_step_reaches_is_said(words, tmp_path, capsys):
    for lr, says in (("0.1,0.01@40,0.001@75", True), ("0.1,0.01@39", False), ("0.1@0", False)):
        command = ["train", words, *FAST, "--lr", lr, "--out", str(tmp_path / "run"), "--force"]
        assert main(command) == 0
        line = "lr      0.01@40,0.001@75 is never reached: the run has 40 steps\n"
        assert (line in capsys.readouterr().out) is says


def test_stages_say_only_what_changes(run, capsys):
    out = run()
    assert resumed(capsys, out, "--steps", "50") is None
    assert resumed(capsys, out, "--steps", "60", "--lr", "0.1") is None
    assert "0.03 from step 60 on, where the run had planned 0.1: staged over 70 steps" in resumed(
        capsys, out, "--steps", "70", "--lr", "0.03"
    )
    line = resumed(capsys, out, "--steps", "80", "--warmup", "140")
    assert "0.0152 from step 70 on" in line
    assert "staged over 80 steps, warm-up 140;" in line
    assert resumed(capsys, out, "--eval-every", "5") is None  # no step is left


def test_a_run_cut_short_falls_faster_and_says_so(run, capsys):
    out = run("--schedule", "cosine")
    checkpoint = load_checkpoint(out)
    unfinished = dataclasses.replace(
        checkpoint, config=dataclasses.replace(checkpoint.config, steps=80)
    )
    save_checkpoint(RunFolder.open(out).checkpoint, unfinished)  # as after Ctrl-C at step 40 of 80
    error = fails(capsys, "train", "--resume", out, "--steps", 160)
    assert "would rise from 0.05 to 0.0854 at step 40" in error
    line = resumed(capsys, out, "--steps", "60")
    assert "0.025 from step 40 on, where the run had planned 0.05: cosine over 60 steps" in line
