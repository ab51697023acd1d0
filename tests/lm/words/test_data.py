"""Words, vocabulary, splits and windows: against the lecture's own loops, and every bad file."""

from __future__ import annotations

import hashlib
import os
import random

import pytest
import torch
from support.lm.words import make_words, makemore_names

from mlpkern.lm.errors import ConfigError, DataError
from mlpkern.lm.words import download
from mlpkern.lm.words.data import SPLITS, Vocab, build_dataset, split_words, windows
from mlpkern.lm.words.word_file import BOUNDARY, embedded_names, parse_words, read_words


def lecture_dataset(words, stoi, block_size):
    """build_dataset of the lecture."""
    inputs, targets = [], []
    for word in words:
        context = [0] * block_size
        for symbol in word + ".":
            inputs.append(context)
            targets.append(stoi[symbol])
            context = [*context[1:], stoi[symbol]]
    return torch.tensor(inputs), torch.tensor(targets)


# equals the lecture


@pytest.mark.parametrize("block_size", [1, 2, 3, 8, 13])
def test_windows_equal_the_loop_of_the_lecture(block_size):
    words = make_words(57, seed=block_size)
    vocab = Vocab.from_words(words)
    stoi = {symbol: i for i, symbol in enumerate(vocab.symbols)}
    split = windows(words, vocab, block_size)
    inputs, targets = lecture_dataset(words, stoi, block_size)
    assert split.inputs.dtype == split.targets.dtype == torch.uint8
    assert torch.equal(split.inputs.long(), inputs)
    assert torch.equal(split.targets.long(), targets)
    assert split.inputs.is_contiguous()


def test_split_has_the_order_of_the_lecture():
    words = make_words(101)
    shuffled = list(words)
    random.seed(42)
    random.shuffle(shuffled)
    state = random.getstate()
    parts = split_words(words, seed=42)
    assert random.getstate() == state
    assert [*parts["train"], *parts["dev"], *parts["test"]] == shuffled
    assert [len(parts[name]) for name in SPLITS] == [80, 10, 11]


def test_makemore_rows_are_those_of_the_lecture():
    words = read_words(makemore_names())
    dataset = build_dataset(words, block_size=3)
    shapes = {name: tuple(split.inputs.shape) for name, split in dataset.splits.items()}
    assert shapes == {"train": (182625, 3), "dev": (22655, 3), "test": (22866, 3)}
    assert "".join(dataset.vocab.symbols) == ".abcdefghijklmnopqrstuvwxyz"
    shown = [
        "".join(dataset.vocab.symbols[i] for i in row) for row in dataset.splits["train"].inputs[:4]
    ]
    assert shown == ["...", "..y", ".yu", "yuh"]  # "yuheng" comes first after the shuffle


# vocabulary


def test_vocab_is_sorted_with_the_boundary_first_and_inverts():
    vocab = Vocab.from_words(["zé", "añ", "zz"])
    assert vocab.symbols == (BOUNDARY, "a", "z", "é", "ñ")
    assert vocab.encode("zéña") == [2, 3, 4, 1]
    assert vocab.decode([0, *vocab.encode("zéña"), 0]) == "zéña"


def test_vocab_names_an_unknown_symbol():
    vocab = Vocab.from_words(["abc"])
    with pytest.raises(DataError, match=r"'abX': symbol 'X' at position 2 .* knows: abc"):
        vocab.encode("abX")
    with pytest.raises(DataError, match=r"symbol '\.' at position 1"):
        vocab.encode("a.")


@pytest.mark.parametrize(
    ("symbols", "dtype"), [(255, torch.uint8), (256, torch.int16), (40_000, torch.int32)]
)
def test_ids_have_the_smallest_type_that_holds_them(symbols, dtype):
    # code points beyond the surrogates and the basic plane too
    words = [chr(0x10000 + i) for i in range(symbols)]
    vocab = Vocab.from_words(words)
    assert len(vocab) == symbols + 1
    split = windows(words, vocab, 2)
    assert split.inputs.dtype == split.targets.dtype == dtype
    assert split.targets[::2].tolist() == list(range(1, symbols + 1))


# files


def test_blank_lines_line_endings_spaces_and_byte_order_mark_are_dropped():
    raw = "\ufeffemma\r\n\r\n  olivia \rava\n\n\nsœur\u2028x\n".encode()
    assert parse_words(raw, "f") == ["emma", "olivia", "ava", "sœur\u2028x"]


def test_last_line_needs_no_end_and_words_repeat(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"a\nb\na")
    assert read_words(path) == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "holds no words"),
        (b"\n  \n\r\n", "holds no words"),
        (b"anna\nren\xe9\n", r"line 2: not UTF-8: 0xe9 at byte 4 of the line"),
        (b"\xef\xbb\xbf\xff", r"line 1: not UTF-8: 0xff at byte 4"),
        (b"anna\n\nj.r\n", r"line 3: 'j.r' contains '.'"),
        (b"anna\nb\x00b\n", r"line 2: control character U\+0000"),
        (b"ok\n" + b"x" * 101, r"line 2: a word of 101 symbols is longer than the limit of 100"),
    ],
)
def test_bad_content_names_file_and_line(tmp_path, raw, message):
    path = tmp_path / "names.txt"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message) as error:
        read_words(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_missing_file_folder_and_unreadable_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_words(tmp_path / "absent")
    with pytest.raises(DataError, match="is a directory"):
        read_words(tmp_path)
    (tmp_path / "file").write_text("a")
    with pytest.raises(DataError, match="cannot be read"):
        read_words(tmp_path / "file" / "below")


def test_word_limit_can_be_raised(tmp_path):
    path = tmp_path / "w"
    path.write_text("x" * 101)
    assert read_words(path, max_word_length=101) == ["x" * 101]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_words_to_split(count):
    with pytest.raises(DataError, match=rf"file: too few words \({count}\)"):
        split_words(["ab"] * count, source="file")


@pytest.mark.parametrize("count", [10, 11, 19])
def test_ten_words_are_enough(count):
    assert all(split_words(["ab"] * count).values())


def test_block_size_below_one():
    with pytest.raises(ConfigError, match="block_size must be at least 1, got 0"):
        windows(["ab"], Vocab.from_words(["ab"]), 0)


def test_windows_refuse_a_symbol_outside_the_vocabulary():
    with pytest.raises(DataError, match="symbol 'z' is not in the vocabulary"):
        windows(["az"], Vocab.from_words(["ab"]), 2)


def test_digest_tells_word_lists_apart():
    words = make_words(20)
    digest = build_dataset(words, block_size=2).digest
    assert digest == build_dataset(words, block_size=5).digest
    assert digest != build_dataset(words[::-1], block_size=2).digest


def test_embedded_names_are_distinct_lowercase_words():
    words = embedded_names()
    assert len(words) == len(set(words)) >= 3000
    assert set("".join(words)) == set("abcdefghijklmnopqrstuvwxyz")


# the makemore download, from a file:// address


@pytest.fixture
def offered(tmp_path, monkeypatch):
    """A list at a local address, its digest the expected one, and an empty cache."""
    source = tmp_path / "offered.txt"
    source.write_bytes(b"emma\nolivia\n")
    monkeypatch.setattr(download, "MAKEMORE_URL", source.as_uri())
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setattr(download, "MAKEMORE_SHA256", digest)
    monkeypatch.setenv("MLPKERN_CACHE", str(tmp_path / "cache"))
    return source


def test_download_is_kept_and_used_again(offered):
    path = download.makemore_names()
    assert path.read_bytes() == offered.read_bytes()
    offered.unlink()
    assert download.makemore_names() == path
    assert os.listdir(path.parent) == ["makemore-names.txt"]  # no temporary file stays


def test_damaged_cache_is_replaced(offered):
    path = download.makemore_names()
    path.write_bytes(b"emma")
    assert download.makemore_names().read_bytes() == offered.read_bytes()


def test_offline_says_which_file_to_put_where(offered, tmp_path):
    offered.unlink()
    with pytest.raises(DataError, match="without a network, put that file at") as error:
        download.makemore_names()
    assert str(tmp_path / "cache" / "makemore-names.txt") in str(error.value)
    assert download.MAKEMORE_URL in str(error.value)


def test_wrong_content_is_refused_and_not_kept(offered, tmp_path):
    offered.write_bytes(b"<html>")
    with pytest.raises(DataError, match="not the expected list"):
        download.makemore_names()
    assert not (tmp_path / "cache").exists()


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MLPKERN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / "mlpkern"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert download.cache_folder().parts[-2:] == (".cache", "mlpkern")
    monkeypatch.setenv("MLPKERN_CACHE", str(tmp_path / "own"))
    assert download.cache_folder() == tmp_path / "own"
