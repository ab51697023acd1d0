"""A mark for tests that need the compiled kernels, and Python in a new process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import mlpkern

needs_native = pytest.mark.skipif(
    not mlpkern.backends()["cpu"].available, reason=mlpkern.backends()["cpu"].reason
)


def run_python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``python`` with these arguments, and with more environment variables than this process."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
