"""What a population trains, and on which words: by this its folder knows it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpkern.lm.atomic_write import write_json
from mlpkern.lm.errors import CheckpointError, LMError
from mlpkern.lm.model.config import SETTINGS, TrainConfig
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.words.word_file import shareable


@dataclass(frozen=True)
class PopulationRecord:
    """What decides the models of a population.

    Attributes:
        configs: the settings of each model
        data: the record of the words, as in a checkpoint; "digest" is that of the words
        max_points: the largest number of points in a loss curve
        keep_best: whether the best model of each is kept too
    """

    configs: tuple[TrainConfig, ...]
    data: dict[str, Any]
    max_points: int
    keep_best: bool

    def difference(self, other: PopulationRecord) -> str | None:
        """The first thing that makes ``other`` another population, in words; None: it is the same.

        Words are the same if their digest is, wherever they come from.
        """
        ours, theirs = str(self.data.get("digest")), str(other.data.get("digest"))
        if ours != theirs:
            return f"other words (SHA-256 {ours[:12]}…, not {theirs[:12]}…)"
        if len(self.configs) != len(other.configs):
            return f"{len(self.configs)} models, not {len(other.configs)}"
        for i, (one, two) in enumerate(zip(self.configs, other.configs, strict=True)):
            for name in SETTINGS:
                own, given = getattr(one, name), getattr(two, name)
                if own != given:
                    return f"model {i} with {name} {setting_text(own)}, not {setting_text(given)}"
        for name in ("max_points", "keep_best"):
            if getattr(self, name) != getattr(other, name):
                return f"{name} {getattr(self, name)}, not {getattr(other, name)}"
        return None

    def varying(self) -> list[str]:
        """The settings that are not the same in all models."""
        return [n for n in SETTINGS if len({getattr(config, n) for config in self.configs}) > 1]

    def write(self, path: Path) -> None:
        """Replaces the file ``path``; what all models share stands there once."""
        varying = self.varying()
        common = self.configs[0].to_json() if self.configs else {}
        value = {
            "data": shareable(self.data),
            "max_points": self.max_points,
            "keep_best": self.keep_best,
            "settings": {name: one for name, one in common.items() if name not in varying},
            "models": [
                {name: getattr(config, name) for name in varying} for config in self.configs
            ],
        }
        write_json(path, value)

    @classmethod
    def read(cls, path: Path) -> PopulationRecord:
        """The record that `write` wrote; CheckpointError if it is damaged."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            common = value["settings"]
            return cls(
                tuple(TrainConfig.from_json({**common, **own}) for own in value["models"]),
                dict(value["data"]),
                int(value["max_points"]),
                bool(value["keep_best"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = str(error) if isinstance(error, LMError) else type(error).__name__
            raise CheckpointError(f"{path}: damaged or no record of a population ({why})") from None
