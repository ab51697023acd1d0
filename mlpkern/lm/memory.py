"""Whether sizes fit into this machine, asked before any memory is.

A system hands out more memory than there is and ends the process when it is used: no error would
tell which setting was too large.
"""

from __future__ import annotations

import os

from mlpkern.lm.errors import ConfigError

__all__ = ["check_fits", "out_of_memory"]


def check_fits(what: str, size: int) -> None:
    """ConfigError, beginning with ``what``, where the machine has less than ``size`` bytes."""
    if size > (there := _total()):
        raise ConfigError(
            f"{what} would not fit into memory: {size / 2**30:,.1f} GiB, this machine has "
            f"{there / 2**30:,.1f}"
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out; torch raises RuntimeError on a CPU."""
    return isinstance(error, MemoryError) or "memory" in str(error)


def _total() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return 2**62
