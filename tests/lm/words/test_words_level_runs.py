"""Level "word" in the commands: what a run keeps of its text, pictures, errors."""

from __future__ import annotations

import json

import pytest
import safetensors
import torch
from support.command_line import fails

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.words.data import windows
from mlpkern.lm.words.text import tokens

ANIMALS = ("cat", "dog", "bird", "Fish")
TEXT = "".join(f"The {a} sees the {b}, it's {'here' * (i % 3 == 0)}.\n"
               for i, a in enumerate(ANIMALS * 4) for b in ANIMALS[:3])  # fmt: skip


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def run(text, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["--level", "word", "--lower", "--steps", "60", "--hidden", "8", "--lr", "0.2"]
    assert main(["train", str(text), *arguments, "--out", str(out)]) == 0
    capsys.readouterr()
    return out


# a run


def test_a_run_keeps_how_its_text_was_read(run, capsys):
    vocab = lm.load_checkpoint(run).vocab
    assert (vocab.level, vocab.lower, vocab.symbols[:2]) == ("word", True, ("<s>", "<unk>"))
    assert set(vocab.symbols[2:]) == {
        ",", ".", "bird", "cat", "dog", "fish", "here", "it's", "sees", "the",
    }  # fmt: skip
    record = json.loads((run / "config.json").read_text())["data"]["text"]
    assert record == lm.TextOptions("word", lower=True).to_json()

    assert main(["sample", str(run), "-n", "3", "--prefix", "THE Cat", "--max-length", "5"]) == 0
    printed = capsys.readouterr()
    assert "occur in the training set" in printed.err
    for line in printed.out.splitlines():
        assert line.startswith("the cat")
        assert len(line.split(" ")) <= 5
        assert set(line.split(" ")) <= set(vocab.symbols)
    for command in ("evaluate", "report"):
        assert main([command, str(run)]) == 0
    assert "test  loss" in capsys.readouterr().out


def test_resume_reads_the_text_as_before(run, text, capsys):
    assert main(["train", "--resume", str(run), "--steps", "70"]) == 0
    assert "resumed at step 60" in capsys.readouterr().out
    for flags in (["--level", "word"], ["--min-count", "0"], ["--running"], ["--lower"]):
        assert f"{flags[0]} does not go" in fails(capsys, "train", "--resume", run, *flags)
    text.write_text(TEXT + "one more line\n")
    assert "not the words this run was trained on" in fails(capsys, "evaluate", run)


def test_another_text_has_unknown_words_and_no_new_ids(run, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("the cat meets the dog.\n" * 20)
    assert main(["evaluate", str(run), str(other), "--split", "dev"]) == 0
    model, vocab = lm.load_model(run)
    split = windows(["the cat <unk> the dog ."] * 2, vocab, 3)
    expected = lm.evaluate(model, split).loss
    assert float(capsys.readouterr().out.split()[2]) == pytest.approx(expected, abs=5.1e-5)


def test_checkpoints_of_level_char_are_as_before(words, tmp_path):
    out = str(tmp_path / "run")
    assert main(["train", words, "--steps", "5", "--hidden", "4", "--out", out]) == 0
    with safetensors.safe_open(f"{out}/model.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["mlpkern"])
    assert not {"level", "lower"} & set(header)
    assert set(header["data"]) == {"source", "words", "max_word_length", "digest"}
    assert lm.load_checkpoint(out).vocab == lm.Vocab(tuple("." + "abcdefgh"))


def test_pictures_of_words(run, capsys, monkeypatch):
    assert main(["plot", str(run), "--what", "embedding"]) == 0
    weight, vocab = lm.load_checkpoint(run).parameters["embedding.weight"], lm.load_model(run)[1]
    axes = lm.plots.embedding_plot(weight, vocab).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["word", "boundary"]
    assert {"the", "<unk>", "<s>"} <= {text.get_text() for text in axes.texts}
    shares = torch.eye(112, dtype=torch.float64)
    many = lm.Vocab(("<s>", "<unk>", "other", *(f"w{i}" for i in range(109))), "word")
    ticks = lm.plots.confusion_plot(shares, many).axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks][:3] == ["<s>", "<unk>", "other"]
    assert ticks[-1].get_text() == "(others)"
    capsys.readouterr()
    monkeypatch.setattr("mlpkern.lm.plots.confusion.MAX_VOCAB", 11)
    expected = "confusion: a matrix has at most 11 symbols, the model 12; confused_pairs takes any"
    assert expected in fails(capsys, "plot", run, "--what", "confusion")
    monkeypatch.setattr("mlpkern.cli.commands.plot.MOST_IN_MATRIX", 11)
    assert main(["plot", str(run), "--what", "confusion"]) == 0  # its most frequent mistakes


# commands before a run


def test_data_and_ngram(text, capsys):
    assert main(["data", str(text), "--level", "word", "--lower", "--show", "1"]) == 0
    printed = capsys.readouterr().out
    count = len(" ".join(tokens(TEXT)).split())
    assert f"48 lines, {count} tokens, 0.0 % of them <unk>" in printed
    assert "the cat sees the cat , it's here ." in printed.splitlines()
    assert f" the   {TEXT.lower().count('the ')} " in " ".join(printed.splitlines()) + " "
    arguments = ["--level", "word", "-n", "1..5", "--sample", "2"]
    assert main(["ngram", str(text), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [int(line.split()[1]) for line in lines[2:7]]
    assert cells == [cells[0] ** n for n in range(1, 6)]
    assert len(lines) == 9


# errors


def test_errors(run, words, tmp_path, capsys):
    text = tmp_path / "t"
    level = ("--level", "word")

    def data_fails(content, *flags):
        text.write_bytes(content)
        return fails(capsys, "data", text, *flags)

    assert "t: holds no words" in data_fails(b" \n\n", *level)
    assert "line 2: control character U+0000" in data_fails(b"a\nb\0", *level)
    assert "line 2: not UTF-8" in data_fails(b"a\n\xff", *level)
    assert "too few paragraphs (1)" in data_fails(b"a b\nc d", *level, "--running")
    assert "too few lines (2)" in data_fails(b"a b\nc d", *level)
    assert "no word occurs 2 times in the train split (--min-count)" in data_fails(
        b"".join(b"w%d\n" % i for i in range(10)), *level
    )
    assert "--min-count must be at least 1" in fails(
        capsys, "data", words, *level, "--min-count", "0"
    )
    assert "--min-count needs --level word" in fails(capsys, "data", words, "--min-count", "3")
    assert "--running needs --level word" in fails(capsys, "ngram", words, "--running")
    assert "--max-word-length is for --level char" in fails(
        capsys, "train", words, *level, "--max-word-length", "7"
    )
    message = fails(capsys, "sample", run, "--prefix", "the Whale")
    assert "'the Whale': word 'whale' at position 1 is not one of the 11 the model" in message
    assert "--max-length must be at least 2 here" in fails(
        capsys, "sample", run, "--prefix", "the cat", "--max-length", "1"
    )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Alice sat by the bank.", "contains '.', which marks the boundary of a word"),
        ("and so " * 20, "one word a line is expected"),
    ],
)
def test_prose_at_level_char_points_at_level_word(tmp_path, capsys, line, why):
    hint = "; --level word reads a text word by word, with --running paragraph by paragraph"
    (path := tmp_path / "book.txt").write_text(f"{line}\n" * 20)
    assert f"{why}{hint}\n" in fails(capsys, "train", path)
    path.write_text("Mrs. Bell\n" * 20)  # a name, not a text
    assert "marks the boundary of a word\n" in fails(capsys, "train", path)
    path.write_text("Alice sat by the bank\n" * 20)
    assert main(["data", str(path), "--show", "0"]) == 0
    warning = f"warning: {path}: most lines hold several words, each line is read as one{hint}\n"
    assert warning in capsys.readouterr().err
    assert main(["data", str(path), "--show", "0", "--level", "word"]) == 0
    assert capsys.readouterr().err == ""
