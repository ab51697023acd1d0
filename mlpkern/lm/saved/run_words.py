"""The words of a run: loaded for a new run, and loaded again from the record in its checkpoint."""

from __future__ import annotations

from typing import Any

from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.checkpoint import Checkpoint
from mlpkern.lm.words.data import Dataset, build_dataset
from mlpkern.lm.words.download import makemore_names
from mlpkern.lm.words.text import TextOptions
from mlpkern.lm.words.vocab import Vocab
from mlpkern.lm.words.word_file import (
    MAX_WORD_LENGTH,
    check_readable_again,
    embedded_names,
    read_words,
    recorded_source,
)


def load_words(
    file: str | None, data: str, limit: int, text: TextOptions
) -> tuple[list[str], dict[str, Any]]:
    """The words of ``file``, or of the list ``data``, and the record of them for a checkpoint.

    Args:
        data: "embedded" or "makemore".
        limit: the longest word accepted.
    """
    if file is None and data == "embedded":
        words, source = embedded_names(text=text), data
    else:
        path = makemore_names() if file is None else file
        words = read_words(path, max_word_length=limit, text=text)
        source = data if file is None else recorded_source(file)
    record = {"source": source, "words": len(words), "max_word_length": limit}
    return words, record if text == TextOptions() else {**record, "text": text.to_json()}


def make_dataset(
    words: list[str], config: TrainConfig, data: dict[str, Any], vocab: Vocab | None = None
) -> Dataset:
    """The dataset of ``words``; adds its digest to their record ``data``.

    ``vocab``: at level "word" the vocabulary of a model; None: a new one.
    """
    dataset = build_dataset(
        words, block_size=config.block_size, split_seed=config.split_seed, source=data["source"],
        text=TextOptions.from_json(data.get("text", {})), vocab=vocab,
    )  # fmt: skip
    data["digest"] = dataset.digest
    return dataset


def dataset_of_run(
    checkpoint: Checkpoint,
    file: str | None = None,
    data: str | None = None,
    *,
    same_words: bool = False,
) -> tuple[Dataset, dict[str, Any]]:
    """The words that a checkpoint was trained on, or those named by ``file`` or ``data``, read with
    the options of its text and, at level "word", with its vocabulary; and the record of them.

    DataError if the words came through a pipe. CheckpointError if the recorded words have changed
    since, and with ``same_words`` also if the named ones are others.
    """
    return dataset_of_record(
        checkpoint.data, checkpoint.config, checkpoint.vocab, file, data, same_words=same_words
    )


def dataset_of_record(
    recorded: dict[str, Any],
    config: TrainConfig,
    vocab: Vocab | None = None,
    file: str | None = None,
    data: str | None = None,
    *,
    same_words: bool = False,
) -> tuple[Dataset, dict[str, Any]]:
    """As `dataset_of_run`, from the record of the words; ``vocab``: that of a model, if any."""
    named = file or data
    source = str(recorded.get("source", "embedded"))
    limit = int(recorded.get("max_word_length", MAX_WORD_LENGTH))
    # for a checkpoint without a record
    own = {"level": vocab.level, "lower": vocab.lower} if vocab else {}
    text = TextOptions.from_json(recorded.get("text", own))
    if not named:
        if source in ("embedded", "makemore"):
            data = source
        else:
            check_readable_again(source)
            file = source
    words, record = load_words(file, data or "embedded", limit, text)
    dataset = make_dataset(words, config, record, vocab)
    if dataset.digest != recorded.get("digest") and (same_words or not named):
        raise CheckpointError(
            f"{record['source']}: not the words this run was trained on (SHA-256 of the words "
            f"{dataset.digest[:12]}…, then {str(recorded.get('digest'))[:12]}…)"
        )
    return dataset, record
