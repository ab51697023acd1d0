"""The lowest dev loss of a run, and the number of dev losses since then.

>>> best = Best()
>>> [best.take(step, loss) for step, loss in [(100, 2.5), (200, 2.3), (300, 2.4)]]
[True, True, False]
>>> best.step, best.dev_loss, best.waited, best.ends(patience=2)
(200, 2.3, 1, False)
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Best:
    """The lowest dev loss so far.

    Attributes:
        step: its step; None: no dev loss was finite yet
        dev_loss: that dev loss
        waited: dev losses since then
    """

    step: int | None = None
    dev_loss: float = math.inf
    waited: int = 0

    def take(self, step: int, dev_loss: float) -> bool:
        """Counts a dev loss; returns whether it is lower than all before.

        A run resumed from a checkpoint before the best step repeats the steps up to it; those are
        not counted in ``waited``.
        """
        lower = dev_loss < self.dev_loss
        if lower:
            self.step, self.dev_loss = step, dev_loss
        reached = self.step is None or step > self.step
        self.waited = self.waited + 1 if reached else 0
        return lower

    def ends(self, patience: int) -> bool:
        """Whether a run with this ``patience`` (see `TrainConfig`) has ended."""
        return 0 < patience <= self.waited
