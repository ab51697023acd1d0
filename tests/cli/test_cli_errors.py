"""The errors of the commands: one line, an exit code, and no file written or lost."""

from __future__ import annotations

import re

import pytest
from support.command_line import FAST, fails, train
from support.lm.words import make_words

from mlpkern.lm.saved.checkpoint import load_checkpoint


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--lr", "fast", "as in 0.1, 0.1,0.01@75% or 0.1,0.01@10k, got 'fast'"),
        ("--lr", "0.1,0.2", "lr must have rising steps"),
        ("--lr", "nan", "lr from step 0 must be finite"),
        ("--hidden", "a", "expected widths as in 200 or 300,100, got 'a'"),
        ("--hidden", "0", "hidden must be one width or more"),
        ("--steps", "-1", "steps must be at least 0, got -1"),
        ("--threads", "0", "--threads must be 1 to 1024, got 0"),
        ("--device", "tpu", "--device must be cpu, cuda or cuda:N, got 'tpu'"),
        ("--device", "cuda:99", "--device cuda:99: torch sees"),
        ("--seed", "-1", "seed must be at least 0, got -1"),
        ("--hidden", "1000000000000", "not fit into memory"),
    ],
)
def test_bad_values_exit_with_2_and_write_nothing(words, tmp_path, capsys, flag, value, message):
    try:
        code = train(words, "--out", tmp_path / "r", f"{flag}={value}")
    except SystemExit as stopped:  # from argparse
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [(None, "no such file"), (b"", "no words"), (b"a\n\xff\n", "line 2"), (b"ab\n", "too few")],
)
def test_bad_files_exit_with_2_and_write_nothing(tmp_path, capsys, raw, message):
    path = tmp_path / "w.txt"
    if raw is not None:
        path.write_bytes(raw)
    error = fails(capsys, "train", path, "--out", tmp_path / "r")
    assert message in error
    assert str(path) in error
    assert not (tmp_path / "r").exists()


def test_an_existing_run_is_kept_unless_forced(words, tmp_path, capsys):
    out = tmp_path / "r"
    train(words, *FAST, "--steps", 5, "--out", out)
    before = (out / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert "--force" in fails(capsys, "train", words, "--out", out)
    assert (out / "model.safetensors").read_bytes() == before
    # a run that cannot start does not remove the old one either
    fails(capsys, "train", tmp_path / "absent", "--out", out, "--force")
    assert (out / "model.safetensors").read_bytes() == before
    assert train(words, *FAST, "--steps", 6, "--out", out, "--force") == 0
    assert load_checkpoint(out).step == 6


def test_resume_refuses_what_would_change_the_run(words, tmp_path, capsys):
    out = tmp_path / "r"
    train(words, *FAST, "--steps", 5, "--out", out)
    capsys.readouterr()
    error = fails(capsys, "train", "--resume", out, "--hidden", 17)
    assert f"--hidden 17: {out} was begun with 16" in error
    assert "is at step 5" in fails(capsys, "train", "--resume", out, "--steps", 4)
    assert "--out does not go with" in fails(capsys, "train", "--resume", out, "--out", out)
    assert "--preset does not" in fails(capsys, "train", "--resume", out, "--preset", "quick")
    with open(words, "a") as file:
        file.write("abba\n")
    assert "not the words this run was trained on" in fails(capsys, "train", "--resume", out)
    assert "no such run folder" in fails(capsys, "train", "--resume", tmp_path / "absent")


def test_sample_and_evaluate_errors(words, tmp_path, capsys):
    out = tmp_path / "r"
    train(words, *FAST, "--steps", 5, "--out", out)
    capsys.readouterr()
    assert "no such run folder" in fails(capsys, "sample", tmp_path / "absent")
    assert "symbol 'X'" in fails(capsys, "sample", out, "--prefix", "aX")
    assert "temperature" in fails(capsys, "sample", out, "--temperature", "0")
    assert "--top-k must be at least 1" in fails(capsys, "sample", out, "--top-k", "0")
    other = tmp_path / "other.txt"
    other.write_text("\n".join(make_words(alphabet="wxyz")))
    assert "another vocabulary" in fails(capsys, "evaluate", out, other)
    (out / "model.safetensors").write_bytes(b"\x00" * 50)
    assert "damaged" in fails(capsys, "evaluate", out)


def test_a_loss_that_is_not_finite_exits_with_1(words, tmp_path, capsys):
    out = tmp_path / "r"
    error = fails(capsys, "train", words, "--lr", "1e38", "--steps", 50, "--out", out, code=1)
    assert re.search(r"step \d: the loss is (nan|inf); training stopped, no checkpoint", error)
