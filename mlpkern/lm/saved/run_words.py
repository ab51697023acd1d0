"""The words of a run: loaded for a new run, and loaded again from the record in its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlpkern.lm.errors import CheckpointError, DataError, LMError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.checkpoint import Checkpoint
from mlpkern.lm.words.data import Dataset, build_dataset, digest_of
from mlpkern.lm.words.download import makemore_names
from mlpkern.lm.words.text import TextOptions
from mlpkern.lm.words.vocab import Vocab
from mlpkern.lm.words.word_file import (
    MAX_WORD_LENGTH,
    embedded_names,
    places_of,
    read_words,
    recorded_source,
)

FILE_MAY_FOLLOW = "a FILE with its words may follow RUN, as in mlpkern evaluate RUN FILE"


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

    DataError if its words came through a pipe or are not found (`places_of`). CheckpointError if
    they have changed since, and with ``same_words`` also if the named ones are others.
    """
    return dataset_of_record(
        checkpoint.data, checkpoint.config, checkpoint.vocab, file, data, same_words=same_words,
        folder=checkpoint.path.parent if checkpoint.path else None,
    )  # fmt: skip


def dataset_of_record(
    recorded: dict[str, Any],
    config: TrainConfig,
    vocab: Vocab | None = None,
    file: str | None = None,
    data: str | None = None,
    *,
    same_words: bool = False,
    folder: Path | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """As `dataset_of_run`, from the record of the words in ``folder``; ``vocab``: that of a model,
    if any."""
    limit = int(recorded.get("max_word_length", MAX_WORD_LENGTH))
    # for a checkpoint without a record
    own = {"level": vocab.level, "lower": vocab.lower} if vocab else {}
    text = TextOptions.from_json(recorded.get("text", own))
    if file or data:
        words, record = load_words(file, data or "embedded", limit, text)
        if same_words:
            _check_same(words, text, recorded, record["source"])
    else:
        words = _recorded_words(recorded, folder, limit, text)
        usual = {"source": "embedded", "words": len(words), "max_word_length": limit}
        record = usual | recorded
    return make_dataset(words, config, record, vocab), record


def _recorded_words(
    recorded: dict[str, Any], folder: Path | None, limit: int, text: TextOptions
) -> list[str]:
    """The words that the record in ``folder`` names."""
    source = str(recorded.get("source", "embedded" if "digest" in recorded else ""))
    if source in ("embedded", "makemore"):
        words, _ = load_words(None, source, limit, text)
        _check_same(words, text, recorded, source)
        return words
    wrong: LMError | None = None
    for place in places_of(source, folder):
        try:
            words = read_words(place, max_word_length=limit, text=text)
            _check_same(words, text, recorded, str(place))
        except LMError as error:
            wrong = wrong or error
        else:
            return words
    what = f"{source}: no such file" if source else "the run does not name its words"
    raise wrong or DataError(f"{what}; {FILE_MAY_FOLLOW}")


def _check_same(words: list[str], text: TextOptions, recorded: dict[str, Any], source: str) -> None:
    """CheckpointError unless ``words``, of ``source``, are those of the record."""
    found, then = digest_of(words, text), str(recorded.get("digest"))
    if found != then:
        raise CheckpointError(
            f"{source}: not the words this run was trained on (SHA-256 of the words "
            f"{found[:12]}…, then {then[:12]}…); {FILE_MAY_FOLLOW}"
        )
