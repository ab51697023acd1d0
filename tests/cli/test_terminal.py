"""What a terminal shows of a training: the lines in their order, and the bar on a line of its own;
and what a shell completes.

Each test renders the bytes that a real process sends to a pseudo-terminal, or asks a real bash.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from support.command_line import FAST, train
from support.terminal import on_a_terminal, screen

from mlpkern.cli import main

SMALL = [*FAST, "--steps", "40", "--log-every", "20", "--threads", "1"]
BAR = re.compile(r"100%\|█+\| 40/40 \[\S+, +\d+\.\d\d/s, train=\d\.\d{4}, dev=\d\.\d{4}\]")


def words_of(lines):
    return [line.split(" ")[0] for line in lines]


def below_model(lines):
    """The lines below that of the model; a long path may take several above it."""
    return lines[words_of(lines).index("model") + 1 :]


def test_the_screen_of_the_tests():
    assert screen("ab\r\nabcdef\rx", 4) == ["ab", "abcd", "xf"]
    assert screen("one\r\n\x1b[A\rtw\r\n", 80) == ["twe", ""]


def test_the_bar_comes_after_the_header(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    footer = ["40", "saved", "train", "dev", ""]
    shown = on_a_terminal("train", "words.txt", *SMALL, "--out", "run", columns=80)
    engine, bar, *rest = below_model(shown)
    assert BAR.fullmatch(bar)
    assert len(bar) == 79
    assert words_of([engine, *rest]) == ["engine", *footer]
    assert train(words, *SMALL, "--steps", "30", "--out", "part") == 0
    shown = on_a_terminal("train", "--resume", "part", "--steps", "40", columns=120)
    engine, resumed, bar, *rest = below_model(shown)
    assert BAR.fullmatch(bar)
    assert words_of([engine, resumed, *rest]) == ["engine", "resumed", *footer]


def test_long_lines_and_a_bar_of_ten_million_steps_fit_into_80_columns(
    words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name = "-".join(["long"] * 9)
    shown = on_a_terminal(
        "train", shutil.copy(words, name), *FAST, "--steps", "10000000", "--log-every", "20",
        "--eval-every", "20", "--patience", "1", "--threads", "1", "--out", "run", columns=80,
    )  # fmt: skip
    assert shown[0].startswith(f"data    {name}: 300 words; rows: ")
    assert shown[1].startswith(" " * 8)
    assert shown[2].startswith("model ")
    _, bar, ended, *_ = below_model(shown)
    assert re.fullmatch(r" +0%\|.+/10000000 .*, train=\d\.\d{4}, dev=\d\.\d{4}\]", bar)
    assert ended.startswith("ended at step ")


def test_warnings_stand_above_the_bar(words, tmp_path, monkeypatch):
    """The checkpoints are too large for the disk, the log is not."""
    monkeypatch.chdir(tmp_path)
    saves = ["--hidden", "200", "--checkpoint-every", "10", "--eval-every", "20", "--out", "run"]
    shown = on_a_terminal(
        "train", "words.txt", *SMALL, *saves, columns=200, code=1, largest_file=10_000
    )
    *warnings, bar, error, end = below_model(shown)[1:]
    assert BAR.fullmatch(bar)
    for line, name in zip(warnings, ("model", "best"), strict=True):
        assert line.startswith(f"mlpkern train: warning: run/{name}.safetensors: cannot be written")
    assert error.startswith("mlpkern train: error: run/model.safetensors: cannot be written")
    assert end == ""


def test_a_shell_completes(tmp_path, capsys, monkeypatch):
    pytest.importorskip("shtab", reason="completion needs shtab")
    (tmp_path / "names.txt").touch()
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    lines = ["tr", "train --hid", "train --optimizer ad", "train nam", "evaluate ru", "zzz"]
    assert main(["completion", "bash"]) == 0
    script = (
        capsys.readouterr().out
        + """
        function=$(complete -p mlpkern | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        while read -r line; do
            COMP_WORDS=(mlpkern $line) COMPREPLY=()
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            $function mlpkern "${COMP_WORDS[COMP_CWORD]}"
            echo "${COMPREPLY[@]}"
        done"""
    )
    command = ["bash", "--norc", "--noprofile", "-c", script]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "train", "--hidden --hidden-dropout", "adamw", "names.txt", "runs", "",
    ]  # fmt: skip
    for shell in ("zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "hidden-dropout" in capsys.readouterr().out
