"""Level "word": tokens, counts and ids against texts made by hand, and what a run keeps of them."""

from __future__ import annotations

import hashlib
import importlib
import json

import pytest
import safetensors
import torch
from support.command_line import fails, words  # noqa: F401
from support.lm_words import make_words, one_thread  # noqa: F401

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.analysis.sample import MAX_TOGETHER, NextSymbol
from mlpkern.lm.saved.checkpoint import check_vocab
from mlpkern.lm.words.data import parse_words, windows
from mlpkern.lm.words.text import tokens

WORD = lm.TextOptions("word")
ANIMALS = ("cat", "dog", "bird", "Fish")
TEXT = "".join(f"The {a} sees the {b}, it's {'here' * (i % 3 == 0)}.\n"
               for i, a in enumerate(ANIMALS * 4) for b in ANIMALS[:3])  # fmt: skip


def read(text, **options):
    return parse_words(text.encode(), "f", text=lm.TextOptions("word", **options))


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


# tokens and sequences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop -- a well-known 'name'.", "Don't stop - - a well-known ' name ' ."),
        ("3.14 x_y\t<unk>\u00a0<s>", "3 . 14 x _ y <unk> < s >"),
        ("हिन्दी में। Ёлка «да» 你好，世界。", "हिन्दी में । Ёлка « да » 你好 ， 世界 。"),
        (
            "e\u0301t\u0301e \u2764\ufe0fok \U0001f600!",
            "e\u0301t\u0301e \u2764\ufe0f ok \U0001f600 !",
        ),
    ],
)
def test_tokens(text, expected):
    assert tokens(text) == expected.split(" ")


def test_lines_and_paragraphs():
    text = "\ufeffA b\r\nc, d\r\n\r\n \t\r\ne\rf\n\n"
    assert read(text) == ["A b", "c , d", "e", "f"]
    assert read(text, running=True) == ["A b c , d", "e f"]
    assert read(text, lower=True)[0] == "a b"
    assert parse_words(b"Emma\nAVA", "f", text=lm.TextOptions(lower=True)) == ["emma", "ava"]


def test_lines_have_no_limit_and_boundaries_of_words_are_tokens():
    assert read("a. " * 500) == [" ".join(["a", "."] * 500)]


# vocabulary and windows


def test_min_count_counts_the_train_split_alone():
    sequences = [f"a b{i % 2} c{i}" for i in range(20)]
    for n in (1, 2, 16, 17):
        options = lm.TextOptions("word", min_count=n)
        if n == 17:
            with pytest.raises(lm.DataError, match=r"no word occurs 17 .* 'a' is there 16 times"):
                lm.build_dataset(sequences, block_size=2, text=options)
            continue
        dataset = lm.build_dataset(sequences, block_size=2, text=options)
        train = " ".join(dataset.words["train"]).split()
        kept = sorted(t for t in set(train) if train.count(t) >= n)
        assert dataset.vocab.symbols == ("<s>", "<unk>", *kept)
        for name, split in dataset.splits.items():
            unknown = sum(t not in kept for s in dataset.words[name] for t in s.split())
            assert int((split.targets == 1).sum()) == unknown


def test_ids_of_a_text_by_hand():
    vocab = lm.Vocab.from_sequences(["b a , a b", "a , <unk> z"], WORD)
    assert vocab.symbols == ("<s>", "<unk>", ",", "a", "b")
    split = windows(["a b", "z a ,"], vocab, 2)
    assert split.targets.tolist() == [3, 4, 0, 1, 3, 2, 0]
    assert split.inputs.tolist() == [[0, 0], [0, 3], [3, 4], [0, 0], [0, 1], [1, 3], [3, 2]]
    assert split.targets.dtype == torch.uint8
    assert vocab.decode([0, 3, 1, 2, 0]) == "a <unk> ,"
    assert vocab.as_read("a z , b") == "a <unk> , b"
    assert lm.show_windows(["a z"], vocab, 2).splitlines() == [
        "a <unk>", "<s> <s> ---> a", "<s> a ---> <unk>", "a <unk> ---> <s>",
    ]  # fmt: skip


def test_a_long_paragraph_is_several_sequences():
    long = " ".join(f"w{i}" for i in range(600))
    pieces = read(f"a b\n\n{long}\n\nc\n", running=True)
    assert [len(piece.split()) for piece in pieces] == [2, 256, 256, 88, 1]
    assert " ".join(pieces[1:4]) == long
    assert read(long) == [long]  # a line is one sequence


def test_running_text_gives_windows_over_line_ends():
    text = "".join(f"one {i}\ntwo\n\n" for i in range(10))
    dataset = lm.build_dataset(
        read(text, running=True), block_size=2, text=lm.TextOptions("word", running=True)
    )
    symbols = dataset.vocab.symbols
    rows = [[symbols[i] for i in row] for row in dataset.splits["train"].inputs[:4].tolist()]
    assert rows == [["<s>", "<s>"], ["<s>", "one"], ["one", "<unk>"], ["<unk>", "two"]]


def test_many_words_have_wider_ids():
    sequences = [" ".join(f"w{i}" for i in range(40_000))]
    vocab = lm.Vocab.from_sequences(sequences, lm.TextOptions("word", min_count=1))
    split = windows(sequences, vocab, 3)
    assert split.targets.dtype == torch.int32
    assert torch.equal(split.targets[:-1].sort().values, torch.arange(2, 40_002).int())


def test_level_char_gives_the_bits_it_always_gave():
    dataset = lm.build_dataset(make_words(), block_size=3)
    assert dataset.digest.startswith("bb5fa4c9998547f4")
    digest = hashlib.sha256()
    for split in dataset.splits.values():
        digest.update(split.inputs.numpy().tobytes())
        digest.update(split.targets.numpy().tobytes())
    assert digest.hexdigest().startswith("ca68e3accb28a174")


def test_the_digest_tells_the_options_apart():
    sequences = ["a b", "b a"] * 10
    made = [
        lm.build_dataset(sequences, block_size=1, text=text).digest
        for text in (WORD, lm.TextOptions("word", min_count=1), lm.TextOptions("word", lower=True))
    ]
    assert len(set(made)) == 3


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


def test_checkpoints_of_level_char_are_as_before(words, tmp_path):  # noqa: F811
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
    assert axes.get_legend_handles_labels()[1] == ["other symbol", "boundary"]
    assert {"the", "<unk>", "<s>"} <= {text.get_text() for text in axes.texts}
    shares = torch.eye(112, dtype=torch.float64)
    many = lm.Vocab(("<s>", "<unk>", "other", *(f"w{i}" for i in range(109))), "word")
    ticks = lm.plots.confusion_plot(shares, many).axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks][:3] == ["<s>", "<unk>", "other"]
    assert ticks[-1].get_text() == "(others)"
    capsys.readouterr()
    monkeypatch.setattr("mlpkern.lm.plots.confusion.MAX_VOCAB", 11)
    expected = "confusion: at most 11 symbols, the model has 12; a larger --min-count gives fewer"
    assert expected in fails(capsys, "plot", run, "--what", "confusion")


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


def test_from_many_words_it_draws_in_smaller_batches(monkeypatch):
    class Uniform(NextSymbol):
        block_size, device = 1, torch.device("cpu")

        def __call__(self, ids, /):
            assert len(ids) <= 3
            return torch.zeros(len(ids), 5)

    vocab = lm.Vocab.from_sequences(["a b c"] * 2, WORD)
    module = importlib.import_module("mlpkern.lm.analysis.sample")  # `lm.sample` is the function
    monkeypatch.setattr(module, "MAX_LOGITS", 3 * len(vocab))
    assert len(lm.sample(Uniform(), vocab, 10, max_length=4)) == 10 < MAX_TOGETHER


# errors


def test_errors(run, words, tmp_path, capsys):  # noqa: F811
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
    assert "running text needs level word" in fails(capsys, "ngram", words, "--running")
    assert "--max-word-length is for --level char" in fails(
        capsys, "train", words, *level, "--max-word-length", "7"
    )
    message = fails(capsys, "sample", run, "--prefix", "the Whale")
    assert "'the Whale': word 'whale' at position 1 is not one of the 11 the model" in message
    assert "--max-length must be at least 2 here" in fails(
        capsys, "sample", run, "--prefix", "the cat", "--max-length", "1"
    )


def test_vocabularies_of_other_levels_do_not_fit():
    char, word = lm.Vocab((".", "a")), lm.Vocab(("<s>", "<unk>", "a"), "word")
    with pytest.raises(lm.CheckpointError, match="read at level char, the model is one of level w"):
        check_vocab(word, char)
    with pytest.raises(lm.CheckpointError, match="level word, the model is one of level char, in"):
        check_vocab(lm.Vocab((".", "a"), lower=True), word)
    with pytest.raises(lm.CheckpointError, match="they differ in a b"):
        check_vocab(word, lm.Vocab(("<s>", "<unk>", "b"), "word"))
    with pytest.raises(lm.DataError, match="symbol 1 must be '<unk>'"):
        lm.Vocab(("<s>", "a"), "word")
    with pytest.raises(lm.ConfigError, match="level must be one of char, word, got 'line'"):
        lm.Vocab((".",), "line")
