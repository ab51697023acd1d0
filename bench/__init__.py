"""The benchmark: one timer, one provider table per op, limits of the machine measured alongside."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the repository
