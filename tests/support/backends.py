"""What tests of the backends share: a mark, and programs in a process of their own."""

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
    """``python`` with arguments, and with environment variables beside those of this process."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
