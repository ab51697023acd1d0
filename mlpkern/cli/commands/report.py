"""``mlpkern report``: tables, the verdict, the curves, and the test loss at the end."""

from __future__ import annotations

import argparse
import math
import textwrap
from typing import TYPE_CHECKING

from mlpkern.cli.flags import add_device, add_picture, add_run

if TYPE_CHECKING:
    from mlpkern.lm.analysis.report import Group, Report

SUMMARY = "print losses, baselines and a verdict on a run, and draw its curves"
EPILOG = """\
examples:
  mlpkern report RUN                    on the words it was trained on
  mlpkern report RUN other.txt          on other words, split the same way

Losses of the splits beside those of counting n-grams of the same words, the dev loss by place of
the target and by symbol (with ~ where it is of less than 100 rows), and whether the model is
overfit (dev more than 5 % above train, or risen by 1 %), underfit (not better than counting with
the same context, or still falling) or near capacity; unclear where dev has too few rows to tell.
The curves go into RUN/curves.png. The last line is the test loss.
"""
MOST_SYMBOLS = 60  # lines of a table that is longer end here


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda _: True)
    add_run(parser, help="run folder")
    add_picture(parser, "file for the curves (default RUN/curves.png, replaced)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import check_output
    from mlpkern.cli.session import chosen_checkpoint, chosen_device
    from mlpkern.lm.analysis.report import report
    from mlpkern.lm.atomic_write import write_bytes
    from mlpkern.lm.errors import ConfigError, MissingPackageError
    from mlpkern.lm.plots import png, report_plot, run_caption
    from mlpkern.lm.saved.run_folder import RunFolder
    from mlpkern.lm.training.evaluation import FEW_ROWS

    device = chosen_device(args)
    folder = RunFolder.holding(args.run)
    own = not args.out
    out = check_output(folder.picture("curves") if own else args.out, force=args.force or own)
    checkpoint, which = chosen_checkpoint(args)
    found = report(
        args.run, args.file, args.data, kernels=args.kernels or "fused", device=device,
        checkpoint=args.checkpoint, show=True,
    )  # fmt: skip
    print(
        f"run     {folder.path}: step {checkpoint.step} of {checkpoint.config.steps}, engine "
        f"{checkpoint.engine}, {checkpoint.seconds:.1f} s"
    )
    if which:
        print(f"model   {which}")
    print(report_text(found))
    try:
        title = run_caption(folder, checkpoint, found.splits["dev"].loss)
        picture = png(report_plot(found, title=title))
    except (ConfigError, MissingPackageError) as error:
        print(f"no curves: {error}")
    else:
        write_bytes(out, picture)
        print(f"saved {out}")
    few = found.splits["test"].rows < FEW_ROWS
    print(f"test loss {found.splits['test'].loss:.4f}" + f" ({_rows_of(found, 'test')})" * few)
    return 0


def report_text(found: Report) -> str:
    """The tables and the verdict, without the test loss."""
    from mlpkern.lm.analysis.ngram import ngram_name
    from mlpkern.lm.words.describe import WIDTH

    lines = [
        f"{name:<7} loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.4f}  "
        f"({_rows_of(found, name)})"
        for name, metrics in found.splits.items()
        if name != "test"
    ]
    lines += [
        "counts  dev loss "
        + ", ".join(f"{ngram_name(n)} {x:.4f}" for n, x in found.ngrams.items()),
        "dev loss by place of the target: rows, loss ± standard error, share of the sum",
        *_table(found.positions),
        "dev loss by symbol, the largest share first",
        *_table(found.symbols[:MOST_SYMBOLS]),
    ]
    if (rest := len(found.symbols) - MOST_SYMBOLS) > 0:
        lines.append(f"  and {rest} more")
    lines += textwrap.wrap(f"verdict {found.verdict}", WIDTH, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _rows_of(found: Report, name: str) -> str:
    from mlpkern.cli.output import rows_text
    from mlpkern.lm.training.evaluation import FEW_ROWS

    rows = found.splits[name].rows
    return rows_text(rows, found.errors[name] if rows < FEW_ROWS else None)


def _table(groups: list[Group]) -> list[str]:
    from mlpkern.lm.words.describe import in_columns
    from mlpkern.lm.words.symbols import shown

    labels = [shown(group.label) for group in groups]
    wide = max(map(len, labels))
    digits = max(len(str(group.rows)) for group in groups)
    return in_columns(
        f"{label:<{wide}} {group.rows:>{digits}} {'~' if group.few else ' '}{group.loss:.4f} "
        f"±{_error(group)} {100 * group.share:>4.1f} %"
        for label, group in zip(labels, groups, strict=True)
    )


def _error(group: Group) -> str:
    return "?   " if math.isnan(group.error) else f"{group.error:.2f}"
