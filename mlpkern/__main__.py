"""``python -m mlpkern``: the same as the command ``mlpkern``."""

from __future__ import annotations

import sys

from mlpkern.cli import main

sys.exit(main())
