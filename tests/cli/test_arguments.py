"""Nasty values of every argument of every command: one line that names it, no traceback."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from support.command_line import fails, parsers, refused

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.search.rungs import Sweep
from mlpkern.lm.training.trainer import Trainer

NASTY = ["", "-1", "nan", "9" * 25, "10000000000", "x", "\udcff", "words.txt/x", "--"]
# what a good value leads to: --resume beside --out, a learning rate not found in three steps
OTHER = re.compile("--out does not go with --resume|the loss never falls")
SMALL = ["--hidden", "4", "--embedding-dim", "2", "--steps", "3"]
COMMANDS = {
    "info": [],
    "completion": ["bash"],
    "data": ["words.txt"],
    "ngram": ["words.txt", "-n", "1"],
    "train": ["words.txt", *SMALL, "--out", "new", "--force"],
    "find-lr": ["words.txt", *SMALL],
    "sample": ["run", "-n", "1"],
    "evaluate": ["run", "--split", "dev"],
    "plot": ["run", "--what", "lr"],
    "report": ["run"],
    "compare": ["run", "run"],
    "runs": ["."],
    "population": ["plan.yaml", "--out", "many"],
    "sweep": ["words.txt", *SMALL, "--block-size", "2", "--out", "sweep"],
}


@pytest.fixture
def folder(words, tmp_path, monkeypatch, capsys):
    """A folder with words and a run, in which commands do all but the long work."""
    monkeypatch.chdir(tmp_path)
    small = "set: {hidden: [4], embedding_dim: 2, steps: 3}"
    Path("plan.yaml").write_text(f"file: words.txt\n{small}\ngrid: {{seed: 0..1}}")
    assert main(["train", "words.txt", *SMALL, "--out", "run"]) == 0
    monkeypatch.setattr(Trainer, "train", lambda _: None)
    monkeypatch.setattr(Sweep, "run_batch", lambda *_: pytest.fail("no trial is to run"))
    monkeypatch.setattr("mlpkern.lm.search.rungs.sweep", lambda *_, **__: sys.exit(0))
    monkeypatch.setattr("mlpkern.lm.many.found_lr.find_lr", lambda *_, **__: sys.exit(0))
    monkeypatch.setattr("mlpkern.lm.plots.png", lambda _: b"")
    capsys.readouterr()
    return tmp_path


def test_every_command_is_here_and_has_an_example():
    assert set(COMMANDS) == set(parsers())
    for name, parser in parsers().items():
        assert re.search(rf"examples?:\n  mlpkern {name}\b", parser.format_help())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_with_nasty_values(folder, monkeypatch, capsys, command):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    for action in parsers()[command]._actions:
        if action.nargs == 0:
            continue
        flag = action.option_strings[-1] if action.option_strings else None
        for value in NASTY:
            if flag:
                given = [*COMMANDS[command], f"{flag}={value}"]
            else:
                before = action.dest == "file" and command in ("evaluate", "plot", "report")
                given = COMMANDS[command].copy()
                given[before:1] = [value]
            told = f"{command} {flag or action.dest} {value!r}"
            try:
                code = main([command, *given])
            except SystemExit as stopped:
                code = stopped.code
            except Exception as error:
                raise AssertionError(told) from error
            error = capsys.readouterr().err
            assert code in (0, 2), told
            if code == 2:
                assert error.count("\n") == 1, told + error
                assert error.startswith(f"mlpkern {command}: error: "), told
                named = (flag or action.dest) in error or repr(value)[1:-1] in error
                assert named or value in error or OTHER.search(error), told + error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --seed 9999999999999999999999999", "--seed: expected a whole number below 2**63"),
        ("train --seed -1", "--seed must be at least 0, got -1"),
        ("train --threads 1000000000", "--threads must be 1 to 1024, got 1000000000"),
        ("train --lr nan", "--lr from step 0 must be finite and at least 0, in float32, got nan"),
        ("train --momentum inf", "--momentum: expected a finite number, got 'inf'"),
        ("train --out=", "--out: expected the name of a file or folder, got ''"),
        ("train --device cuda:99", "--device cuda:99: torch sees"),
        ("train --block-size 10000000000", "--block-size 10000000000: the array of contexts would"),
        ("train --batch-size 1000000000000", "--batch-size 1000000000000: one batch would not fit"),
        ("train --hidden 1000000000000", "would not fit into memory: "),
        ("train --max-word-length 0", "--max-word-length must be at least 1, got 0"),
        ("find-lr --seeds 10000000000", "error: 10000000000 models of "),
        (
            "find-lr --sweep-steps 100000000000",
            "a sweep of 100000000000 steps, 32 rows each, 1",
        ),
        ("sample run -n -1", "--count must be at least 0, got -1"),
        ("sample run -n 10000000000000", "--count 10000000000000: the list of words would not fit"),
        ("sample run --top-k 0", "--top-k must be at least 1, got 0"),
        ("sample run --temperature=--", "--temperature: expected a value, got '--'"),
        ("ngram --sample -1", "--sample must be at least 0, got -1"),
        ("ngram -n 1..10000000000", "-n: expected a number or a range as in 2 or 1..5"),
        ("sweep --trials 0", "--trials must be at least 1, got 0"),
        ("evaluate run --split", "--split: expected at least one argument"),
    ],
)
def test_the_line_names_the_flag_and_what_it_takes(folder, capsys, arguments, message):
    try:
        code = main(arguments.split())
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_model_that_no_machine_holds():
    with pytest.raises(ConfigError, match="not fit into memory"):
        lm.MLPLanguageModel(2**40, 2**40, 2**40, 2**40)


def test_a_failed_allocation_is_one_line(folder, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("mlpkern.lm.training.evaluation.evaluate", fail)
    error = fails(capsys, "evaluate", "run", code=1)
    assert "not enough memory for these sizes: " in error


def test_machines_without_a_home_or_a_sane_environment(folder, monkeypatch, capsys):
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "MLPKERN_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def no_home(_=None):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert "MLPKERN_CACHE" in fails(capsys, "data", "--data", "makemore")
    for columns in ("", "wide", "0", "1", "-5", "9" * 30):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit) as stopped:
            main(["train", "--help"])
        assert stopped.value.code == 0
        assert "--steps" in capsys.readouterr().out
    assert "(see mlpkern train --help)" in refused(capsys, "train", "--absent")
