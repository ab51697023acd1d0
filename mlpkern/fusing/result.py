"""What ``fuse`` and ``unfuse`` return: the swaps, and the layers left alone with the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Swap:
    """One swap: the qualified names of the layers, their classes, and what replaces them."""

    names: tuple[str, ...]
    was: tuple[str, ...]
    now: str

    def __str__(self) -> str:
        return f"{' + '.join(self.names)}: {' + '.join(self.was)} -> {self.now}"


@dataclass(frozen=True)
class Refusal:
    """Layers left as they are, and the reason: a result could change, or nothing can be swapped."""

    names: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{' + '.join(self.names)}: left as is, {self.reason}"


class Fused(list[Swap]):
    """The swaps made; ``refused`` has the layers that were left alone, each with its reason."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[Refusal] = []

    def refuse(self, reason: str, *names: str) -> None:
        """Note that the layers ``names`` are left alone; the model itself has an empty name."""
        self.refused.append(Refusal(tuple(name or "model" for name in names), reason))

    def answered(self) -> set[str]:
        """The names of all layers that were swapped or refused."""
        return {name for entry in [*self, *self.refused] for name in entry.names}

    def __str__(self) -> str:
        return "\n".join(map(str, [*self, *self.refused]))
