"""Level "word": tokens, counts and ids against texts made by hand."""

from __future__ import annotations

import hashlib
import importlib

import pytest
import torch
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.lm.analysis.sample import MAX_TOGETHER, NextSymbol
from mlpkern.lm.saved.checkpoint import check_vocab
from mlpkern.lm.words.data import windows
from mlpkern.lm.words.text import tokens
from mlpkern.lm.words.word_file import parse_words

WORD = lm.TextOptions("word")


def read(text, **options):
    return parse_words(text.encode(), "f", text=lm.TextOptions("word", **options))


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
