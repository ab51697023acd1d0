"""A plan in a YAML file: the keys of a search or of a population."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlpkern.lm.errors import ConfigError, MissingPackageError


def read_plan_file(path: str | Path) -> dict[str, Any]:
    """The keys of the YAML file ``path`` and their values. ConfigError for a file that is no such
    thing, MissingPackageError without pyyaml."""
    try:
        import yaml
    except ImportError as error:
        raise MissingPackageError.of("a plan in YAML needs", "pyyaml", "sweep", error) from None
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys such as set, got {type(values).__name__}")
    return values
