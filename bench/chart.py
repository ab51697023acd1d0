"""Draws a result of bench/run.py: how many times faster than stock PyTorch each case is.

python bench/chart.py RESULT.json CHART.png
python bench/chart.py RESULT.json LADDER.png --ladder    the lecture's training step
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.core.case import Unavailable
from bench.report import load
from bench.shown.charts import chart_png, ladder_png


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draws a result of bench/run.py.")
    parser.add_argument("result", type=Path, help="JSON file that bench/run.py wrote")
    parser.add_argument("png", type=Path, help="picture to write")
    parser.add_argument("--ladder", action="store_true", help="steps per second of one model")
    options = parser.parse_args(arguments)
    try:
        picture = (ladder_png if options.ladder else chart_png)(load(options.result))
    except Unavailable as error:
        raise SystemExit(f"no chart: {error}") from None
    options.png.write_bytes(picture)


if __name__ == "__main__":
    main()
