"""Whether sizes fit into the memory of this machine, checked before memory is allocated.

An operating system hands out more memory than there is, and ends the process when that is used:
no error would name the setting that is too large.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlpkern.lm.errors import ConfigError


def check_fits(what: str, size: int) -> None:
    """ConfigError, beginning with ``what``, if the machine has less than ``size`` bytes."""
    if size > (there := _total()):
        raise ConfigError(
            f"{what} would not fit into memory: {size / 2**30:,.1f} GiB, this machine has "
            f"{there / 2**30:,.1f}"
        )


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """ConfigError, beginning with ``what``, if an allocation in the block fails."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(f"{what} does not fit into memory") from None


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` reports a failed allocation; on a CPU torch raises RuntimeError."""
    return isinstance(error, MemoryError) or "memory" in str(error)


def _total() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # unknown on this system
        return 2**62
