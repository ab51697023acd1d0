"""Whether Triton's interpreter works here; it is Python and depends on the NumPy beside it."""

from __future__ import annotations

import triton


@triton.jit
def loop(N):
    """A loop to a number that is known at run time only, as in most kernels."""
    for _ in range(N):
        pass


def fault() -> str:
    """What goes wrong in the smallest kernel with a loop, or an empty string.

    The interpreter of Triton 3.6 converts an array of one element to a number, which NumPy 2.4
    refuses.
    """
    try:
        loop[(1,)](1)
    except Exception as error:  # the interpreter wraps whatever it meets
        return str(error)
    return ""
