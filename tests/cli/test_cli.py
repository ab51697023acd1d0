"""The command line: whole runs, signals, pipes, help."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.command_line import FAST, fails, train

import mlpkern
from mlpkern.cli import main
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.saved.log import read_log
from mlpkern.lm.words.data import split_words


def last_losses(text):
    """(train, dev) from the last two lines of a training."""
    *_, train_line, dev_line = text.strip().splitlines()
    return (
        float(re.fullmatch(r"train loss (\d+\.\d{4})", train_line)[1]),
        float(re.fullmatch(r"dev loss   (\d+\.\d{4})", dev_line)[1]),
    )


# whole runs


@pytest.mark.parametrize("engine", ["stock", "ops", "run"])
def test_train_sample_evaluate(words, tmp_path, capsys, engine):
    out = tmp_path / "run"
    assert train(words, *FAST, "--steps", 300, "--engine", engine, "--out", out) == 0
    printed = capsys.readouterr().out
    losses = last_losses(printed)
    assert f"engine  {engine} on cpu" in printed
    assert sorted(os.listdir(out)) == [
        "best.safetensors", "config.json", "log.csv", "model.safetensors", "summary.json",
    ]  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert (round(summary["train"]["loss"], 4), round(summary["dev"]["loss"], 4)) == losses
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["hidden"] == [16]
    assert config["engine"] == engine
    assert config["versions"]["torch"] == torch.__version__

    assert main(["evaluate", str(out), "--checkpoint", "last", "--split", "train", "dev"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [float(line.split()[2]) for line in lines] == pytest.approx(losses, abs=1.01e-4)

    assert main(["sample", str(out), "-n", "7", "--prefix", "ab", "--seed", "1"]) == 0
    sampled = capsys.readouterr().out.splitlines()
    assert len(sampled) == 7
    assert all(word.startswith("ab") for word in sampled)
    assert main(["sample", str(out), "-n", "5", "--top-k", "1", "--checkpoint", "last"]) == 0
    printed, said = capsys.readouterr()
    likeliest = set(printed.splitlines())
    assert len(likeliest) == 1
    with open(words) as file:
        training = split_words(file.read().split())["train"]
    count = 5 * (likeliest <= set(training))
    line = f"{count} of 5 ({20 * count} %) occur in the training set"
    assert said.splitlines()[-1] == line  # below which model it is
    assert main(["sample", str(out), "-n", "9", "--seed", "2", "--new"]) == 0
    printed, said = capsys.readouterr()
    assert len(new := printed.splitlines()) == 9
    assert not {"", *training} & set(new)
    left_out = r"\d+ of \d+ drawn \(\d+ %\) occur in the training set or are empty, .*"
    assert re.fullmatch(left_out, said.splitlines()[-1])
    known = ["--prefix", training[0], "--max-length", str(len(training[0]))]
    assert main(["sample", str(out), "-n", "1", "--new", *known]) == 0
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.splitlines()[-1].startswith(
        "only 0 of 1 words are new, try another --temperature or --prefix; 100 of 100"
    )
    os.remove(words)
    assert main(["sample", str(out), "-n", "2"]) == 0
    source = config["data"]["source"]
    assert f"is unknown: {source}: no such file; a FILE" in capsys.readouterr().err
    assert f"{source}: no such file" in fails(capsys, "sample", out, "--new")


def test_lecture_preset_and_overrides(words, tmp_path, capsys):
    train(words, "--preset", "lecture", "--steps", 5, "--batch-size", 7, "--out", tmp_path / "r")
    config = load_checkpoint(tmp_path / "r").config
    assert (config.init, config.hidden, config.embedding_dim) == ("lecture", (200,), 10)
    assert config.lr == ((0, 0.1), (0.5, 0.01))
    assert (config.steps, config.batch_size) == (5, 7)


def test_every_setting_has_a_flag(words, tmp_path):
    train(
        words, "--block-size", 2, "--embedding-dim", 3, "--hidden", "8,4", "--init", "lecture",
        "--batch-size", 5, "--steps", 6, "--lr", "0.2,0.1@3", "--seed", 7, "--split-seed", 8,
        "--schedule", "cosine", "--warmup", 2, "--optimizer", "adamw", "--weight-decay", 0.1,
        "--input-dropout", 0.2, "--hidden-dropout", 0.3, "--max-grad-norm", 4,
        "--label-smoothing", 0.05, "--log-every", 2, "--eval-every", 3,
        "--checkpoint-every", 4, "--engine", "stock", "--kernels", "stock", "--device", "cpu",
        "--threads", 1, "--patience", 7, "--out", tmp_path / "r",
    )  # fmt: skip
    assert load_checkpoint(tmp_path / "r").config.to_json() == {
        "block_size": 2, "embedding_dim": 3, "hidden": (8, 4), "init": "lecture", "batch_size": 5,
        "steps": 6, "lr": ((0, 0.2), (3, 0.1)), "schedule": "cosine", "warmup": 2,
        "optimizer": "adamw", "momentum": 0.0, "weight_decay": 0.1, "input_dropout": 0.2,
        "hidden_dropout": 0.3, "max_grad_norm": 4.0, "label_smoothing": 0.05, "seed": 7,
        "split_seed": 8, "log_every": 2, "eval_every": 3, "checkpoint_every": 4,
        "patience": 7,
    }  # fmt: skip
    train(words, *FAST, "--steps", 6, "--momentum", 0.5, "--out", tmp_path / "s")
    assert load_checkpoint(tmp_path / "s").config.momentum == 0.5
    assert [row.step for row in read_log(tmp_path / "r" / "log.csv")] == [2, 3, 4, 6]


def test_without_a_file_the_embedded_names_and_a_dated_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train(*FAST, "--steps", 20) == 0
    printed = capsys.readouterr().out
    assert "data    embedded: " in printed
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"mlpkern sample runs/{folder.name}" in printed


def test_resume_goes_on_and_keeps_the_engine(words, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(words, *FAST, "--steps", 400, "--engine", "stock", "--out", whole)
    train(words, *FAST, "--steps", 200, "--engine", "stock", "--out", parts)
    capsys.readouterr()
    assert train("--resume", parts, "--steps", 400) == 0
    assert "resumed at step 200" in capsys.readouterr().out
    a, b = load_checkpoint(whole), load_checkpoint(parts)
    assert b.engine == "stock"
    assert a.parameters.keys() == b.parameters.keys()
    assert all(torch.equal(a.parameters[name], b.parameters[name]) for name in a.parameters)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_go_on(words, tmp_path, sent, code):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mlpkern", "train", words, *FAST, "--out", str(out)]
    options = ["--steps", "100000000", "--log-every", "50", "--threads", "1"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = out / "log.csv"
    for _ in range(600):
        if log.exists() and log.read_text().count("\n") > 3:
            break
        time.sleep(0.05)
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in error
    step = load_checkpoint(out).step
    name = signal.Signals(sent).name
    expected = f"{name} at step {step}; saved; continue with: mlpkern train --resume {out}\n"
    assert error == expected
    assert step > 0
    assert train("--resume", out, "--steps", step + 10) == 0
    assert load_checkpoint(out).step == step + 10


def test_a_reader_that_stops_early_is_no_error(words, tmp_path):
    train(words, *FAST, "--steps", 5, "--out", tmp_path / "r")
    long = ["-n", "4000", "--prefix", "abcdefgh" * 5]  # more than a pipe holds
    run = [sys.executable, "-m", "mlpkern", "sample", str(tmp_path / "r"), *long]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_pipe_shows_lines(words, tmp_path):
    command = [sys.executable, "-m", "mlpkern", "train", words, *FAST, "--steps", "40"]
    options = ["--log-every", "20", "--out", str(tmp_path / "r"), "--threads", "1"]
    piped = subprocess.run([*command, *options], capture_output=True, text=True)
    assert "step 20/40  lr 0.1  train " in piped.stdout
    assert piped.stderr == ""


def test_a_terminal_marks_the_samples_of_the_training_set(words, tmp_path):
    out = tmp_path / "r"
    assert train(words, *FAST, "--steps", 300, "--out", out) == 0
    with open(words) as file:
        training = set(split_words(file.read().split())["train"])
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "mlpkern", "sample", str(out), "-n", "60", "--seed", "1"]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    lines = os.read(ours, 100_000).decode().splitlines()
    os.close(ours)
    assert {line.endswith("  *") for line in lines} == {True, False}
    assert all((line.removesuffix("  *") in training) == line.endswith("  *") for line in lines)
    marked = sum(line.endswith("*") for line in lines)
    assert f"* {marked} of 60 (" in done.stderr


# help and versions


def test_info_and_version(capsys):
    assert main(["info"]) == 0
    assert "cpu" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"mlpkern {mlpkern.__version__}\n"
