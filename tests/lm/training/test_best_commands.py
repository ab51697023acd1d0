"""The commands and the best model of a run: which one they take and say, and patience."""

from __future__ import annotations

import json

import pytest
from support.command_line import fails
from support.lm.training import same_bits
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.saved.checkpoint import load_checkpoint, load_model, read_best
from mlpkern.lm.saved.log import read_log


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(make_words(80)) + "\n")
    return str(path)


SIZES = ["--embedding-dim", "4", "--hidden", "32", "--batch-size", "16", "--lr", "0.3",
         "--log-every", "50", "--eval-every", "50"]  # fmt: skip


def test_the_commands_take_the_best_and_say_so(words, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", words, *SIZES, "--steps", "1000", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    best = read_best(out / "best.safetensors")
    assert best.step < 1000
    kept = f"{best.dev_loss:.4f} at step {best.step}, kept as best.safetensors"
    assert lines[-3] == f"best dev loss {kept}; at the last step:"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["best"] == {"step": best.step, "dev_loss": best.dev_loss}
    assert lines[-1] == f"dev loss   {summary['dev']['loss']:.4f}"
    which = f"the best model, of step {best.step} (dev loss {best.dev_loss:.4f}); the last, of step"
    for flags, loss, said in (
        ([], best.dev_loss, f"{which} 1000: --checkpoint last\n"),
        (["--checkpoint", "best"], best.dev_loss, f"{which} 1000: --checkpoint last\n"),
        (["--checkpoint", "last"], summary["dev"]["loss"],
         f"the last model, of step 1000; the best is of step {best.step}\n"),
    ):  # fmt: skip
        assert main(["evaluate", str(out), "--split", "dev", *flags]) == 0
        printed, error = capsys.readouterr()
        assert float(printed.split()[2]) == pytest.approx(loss, abs=5.1e-5)
        assert error == said
    assert main(["compare", str(out), str(out / "model.safetensors")]) == 0
    heads, *runs = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    assert [h.strip() for h in heads if h.strip()][3:5] == ["best dev", "at step"]
    for run in runs:
        cells = [cell.strip() for cell in run if cell.strip()]
        assert cells[2:5] == [
            f"{summary['dev']['loss']:.4f}", f"{best.dev_loss:.4f}", str(best.step),
        ]  # fmt: skip
    drawn = []
    for flags in ([], ["--checkpoint", "last"]):
        assert main(["sample", str(out), "-n", "30", *flags]) == 0
        printed, error = capsys.readouterr()
        model, vocab = load_model(out, checkpoint=flags[-1] if flags else "best")
        assert printed.splitlines() == lm.sample(model, vocab, 30)
        assert error.startswith("the last model" if flags else which)
        drawn.append(printed)
        assert main(["report", str(out), *flags]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[1].startswith("model   the " + ("last" if flags else "best"))
        dev = lm.report(out, checkpoint=flags[-1] if flags else "best").splits["dev"].loss
        assert f"dev     loss {dev:.4f}" in printed[3]
        assert "verdict overfit: " in " ".join(printed)
        assert main(["plot", str(out), "--what", "embedding", *flags]) == 0
        assert capsys.readouterr().out.startswith("the last model" if flags else which)
    assert drawn[0] != drawn[1]
    error = fails(capsys, "evaluate", out / "model.safetensors", "--checkpoint", "best")
    assert "--checkpoint chooses in a run folder; " in error
    (out / "best.safetensors").unlink()
    error = fails(capsys, "sample", out, "--checkpoint", "best")
    assert f"{out}: no best.safetensors in it" in error


def test_patience_ends_a_run_and_resuming_goes_on(words, tmp_path, capsys):
    out = tmp_path / "run"
    train = ["train", words, *SIZES, "--steps", "4000", "--patience", "4", "--out", str(out)]
    assert main(train) == 0
    printed = capsys.readouterr().out
    rows = [row for row in read_log(out / "log.csv") if row.dev_loss is not None]
    losses = [row.dev_loss for row in rows]
    at = losses.index(min(losses))
    assert len(losses) == at + 1 + 4
    end, best = rows[-1].step, rows[at].step
    assert (
        f"ended at step {end}: no dev loss below that of step {best} 4 times in a row; go on with: "
        f"mlpkern train --resume {out}\n"
    ) in printed
    assert load_checkpoint(out).step == end < 4000
    assert load_checkpoint(out, checkpoint="best").step == best
    # asked to go on, it waits as long again
    assert main(["train", "--resume", str(out), "--steps", str(end + 100)]) == 0
    assert "ended at step" not in capsys.readouterr().out
    assert load_checkpoint(out).step == end + 100
    # and without patience to the end
    assert main(["train", "--resume", str(out), "--patience", "0", "--steps", "3000"]) == 0
    assert load_checkpoint(out).step == 3000
    found = load_checkpoint(out)
    dataset = lm.build_dataset(make_words(80), block_size=3)
    whole = lm.Trainer.start(found.config, dataset, lm.RunEngine())
    whole.train()
    assert same_bits(found.parameters, whole.state.model.state_dict())
    assert "patience 4 needs dev losses on the way, got eval_every 0" in fails(
        capsys, "train", words, "--patience", "4", "--eval-every", "0", "--out", tmp_path / "r"
    )
