"""The command ``mlpkern report``: tables, the verdict, the curves, and the test loss at the end."""

from __future__ import annotations

import argparse
import textwrap

from mlpkern.cli.output import check_output
from mlpkern.cli.session import chosen_checkpoint, set_threads, torch_device
from mlpkern.lm import plots
from mlpkern.lm.analysis.ngram import ngram_name
from mlpkern.lm.analysis.report import Group, Report, report
from mlpkern.lm.atomic_write import write_bytes
from mlpkern.lm.errors import ConfigError, MissingPackageError
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.words.describe import WIDTH, in_columns
from mlpkern.lm.words.symbols import shown

__all__ = ["report_command", "report_text"]

MOST_SYMBOLS = 60  # lines of a table that is longer end here


def report_command(args: argparse.Namespace) -> int:
    """``mlpkern report``."""
    device = torch_device(args.device)
    set_threads(args.threads)
    folder = RunFolder.holding(args.run)
    own = not args.out
    out = check_output(folder.picture("curves") if own else args.out, force=args.force or own)
    checkpoint, which = chosen_checkpoint(args)
    found = report(
        args.run, args.file, args.data, kernels=args.kernels or "fused", device=device,
        checkpoint=args.checkpoint,
    )  # fmt: skip
    print(
        f"run     {folder.path}: step {checkpoint.step} of {checkpoint.config.steps}, engine "
        f"{checkpoint.engine}, {checkpoint.seconds:.1f} s"
    )
    if which:
        print(f"model   {which}")
    print(report_text(found))
    try:
        picture = plots.png(plots.report_plot(found))
    except (ConfigError, MissingPackageError) as error:
        print(f"no curves: {error}")
    else:
        write_bytes(out, picture)
        print(f"saved {out}")
    print(f"test loss {found.splits['test'].loss:.4f}")
    return 0


def report_text(found: Report) -> str:
    """The tables and the verdict, without the test loss."""
    train, dev = found.splits["train"], found.splits["dev"]
    lines = [
        f"train   loss {train.loss:.4f}  accuracy {train.accuracy:.4f}  ({train.rows} rows)",
        f"dev     loss {dev.loss:.4f}  accuracy {dev.accuracy:.4f}  ({dev.rows} rows)",
        "counts  dev loss "
        + ", ".join(f"{ngram_name(n)} {x:.4f}" for n, x in found.ngrams.items()),
        "dev loss by place in the word: rows, loss, share of the sum",
        *_table(found.positions),
        "dev loss by symbol, the largest share first",
        *_table(found.symbols[:MOST_SYMBOLS]),
    ]
    if rest := len(found.symbols) - MOST_SYMBOLS:
        lines += [f"  and {rest} more"] if rest > 0 else []
    lines += textwrap.wrap(f"verdict {found.verdict}", WIDTH, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _table(groups: list[Group]) -> list[str]:
    labels = [shown(group.label) for group in groups]
    wide = max(map(len, labels))
    digits = max(len(str(group.rows)) for group in groups)
    return in_columns(
        f"{label:<{wide}} {group.rows:>{digits}} {group.loss:.4f} {100 * group.share:>4.1f} %"
        for label, group in zip(labels, groups, strict=True)
    )
