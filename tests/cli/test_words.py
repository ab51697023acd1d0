"""The commands ``data`` and ``ngram``: what they print, and their errors."""

from __future__ import annotations

import pytest
from support.command_line import fails, refused
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.cli import main

DATASET = lm.build_dataset(make_words(), block_size=3)


def test_data_prints_counts_splits_and_the_first_windows(words, capsys):
    assert main(["data", words, "--block-size", "2", "--show", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    every = make_words()
    assert printed[1] == f"words    300, {len(set(every))} of them distinct"
    text = " ".join(printed)
    for symbol in "abcdefgh":
        assert f" {symbol} {''.join(every).count(symbol):>3} " in f"{text} "
    table = [line.split() for line in printed if line.startswith(("train", "dev", "test"))]
    assert table == [
        [name, str(len(DATASET.words[name])), str(len(split))]
        for name, split in DATASET.splits.items()
    ]
    first = every[0]
    padded = ".." + first + "."
    examples = [f"{padded[i : i + 2]} ---> {padded[i + 2]}" for i in range(len(first) + 1)]
    assert printed[-len(examples) - 1 :] == [first, *examples]


def test_windows_of_symbols_without_a_picture():
    vocab = lm.Vocab((".", " ", "\u0301", "é"))
    assert lm.show_windows([" é\u0301"], vocab, 2).splitlines() == [
        "␣é◌\u0301", ".. ---> ␣", ".␣ ---> é", "␣é ---> ◌\u0301", "é◌\u0301 ---> .",
    ]  # fmt: skip


def test_ngram_prints_a_line_per_n_and_draws_words(words, capsys):
    assert main(["ngram", words, "-n", "1..3", "--sample", "4", "--seed", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("data ")
    for n, line in enumerate(printed[2:5], 1):
        counted = lm.ngram(DATASET, n)
        name, cells, empty, _, k, *losses = line.split()
        assert name == ("unigram", "bigram", "trigram")[n - 1]
        assert int(cells) == 9**n
        assert float(empty) == pytest.approx(100 * counted.empty_share, abs=0.006)
        assert float(k) == pytest.approx(counted.k, rel=1e-3)
        expected = [counted.loss(split) for split in DATASET.splits.values()]
        assert list(map(float, losses)) == pytest.approx(expected, abs=5.1e-5)
    assert printed[5:] == lm.sample(lm.ngram(DATASET, 3), DATASET.vocab, 4, seed=2)


def test_the_split_is_that_of_the_seed(words, capsys):
    outputs = []
    for seed in ("42", "7"):
        assert main(["ngram", words, "-n", "2", "--split-seed", seed]) == 0
        outputs.append(capsys.readouterr().out.splitlines()[-1])
    main(["ngram", words, "-n", "2"])
    assert capsys.readouterr().out.splitlines()[-1] == outputs[0] != outputs[1]


def test_errors(words, tmp_path, capsys):
    assert "-n must be 1 to 5, got 6" in fails(capsys, "ngram", words, "-n", "6")
    assert "-n must be 1 to 5, got 0" in fails(capsys, "ngram", words, "-n", "0..2")
    assert "k must be a number above 0, got -1" in fails(capsys, "ngram", words, "--k", "-1")
    assert "--sample must be at least 0" in fails(capsys, "ngram", words, "--sample", "-1")
    assert "no such file" in fails(capsys, "ngram", tmp_path / "absent")
    assert "--block-size must be at least 1" in fails(capsys, "data", words, "--block-size", "0")
    assert "--show must be at least 0" in fails(capsys, "data", words, "--show", "-1")
    for bad in ("x", "3..1", "1..2..3", ""):
        expected = f"expected a number or a range as in 2 or 1..5, got {bad!r}"
        assert expected in refused(capsys, "ngram", words, "-n", bad)
