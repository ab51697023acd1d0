"""What the charts of the benchmark have in common: a plain frame, title, footer, PNG bytes."""

from __future__ import annotations

import io
from typing import Any


def finished_png(figure: Any, axes: Any, title: str, footer: str) -> bytes:
    """The picture of a horizontal chart whose bars and ticks are drawn; closes ``figure``."""
    import matplotlib.pyplot as plt

    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, fontsize=11, loc="left", pad=10)
    axes.set_xlabel(footer, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
