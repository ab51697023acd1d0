"""What a command imports: its start takes time for what it needs and for nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from support.lm.words import make_words

# optional packages, and those that only a terminal or a GPU needs
ABSENT = {"triton", "optuna", "matplotlib", "yaml", "tensorboard", "tqdm", "scipy"}
PARSING = {
    "mlpkern.lm", "mlpkern.lm.errors", "mlpkern.lm.model", "mlpkern.lm.model.config",
    "mlpkern.lm.model.schedule", "mlpkern.lm.model.setting", "mlpkern.lm.plan_file",
    "mlpkern.lm.search", "mlpkern.lm.search.plan", "mlpkern.lm.search.space",
}  # fmt: skip
CODE = """
import json, sys
from contextlib import suppress
before = set(sys.modules)
from mlpkern.cli import main
for arguments in json.loads(sys.argv[1]):
    if arguments[-1] == "run":  # what torch imports does not count
        import torch
        before |= {name for name in sys.modules if not name.startswith("mlpkern")}
    with suppress(SystemExit):
        main(arguments)
    print("modules:", json.dumps(sorted(set(sys.modules) - before)))
"""


def test_help_imports_the_settings_alone_and_a_training_no_other_command(tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(make_words()), encoding="utf-8")
    small = ["--hidden", "4", "--steps", "3", "--threads", "1", "--out", "run"]
    given = [["--help"], ["train", "--help"], ["train", "--stepz"], ["train", "words.txt", *small]]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(given)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (tmp_path / "run" / "summary.json").is_file()
    lines = [line for line in done.stdout.splitlines() if line.startswith("modules: ")]
    *parsed, trained = (set(json.loads(line.partition(" ")[2])) for line in lines)
    assert len(parsed) == 3
    for modules in parsed:
        assert {name for name in modules if name.startswith("mlpkern.lm")} == PARSING
        assert not {"torch", "numpy", "mlpkern.registry", "mlpkern.cli.session"} & modules
    assert not ABSENT & {name.partition(".")[0] for name in trained}
    parts = {".".join(name.split(".")[:3]) for name in trained}
    assert {name for name in parts if name.startswith("mlpkern.lm.")} == {
        "mlpkern.lm.arguments", "mlpkern.lm.atomic_write", "mlpkern.lm.errors",
        "mlpkern.lm.memory", "mlpkern.lm.model", "mlpkern.lm.plan_file", "mlpkern.lm.saved",
        "mlpkern.lm.search", "mlpkern.lm.training", "mlpkern.lm.words",
    }  # fmt: skip
    assert {name for name in trained if name.startswith("mlpkern.lm.search")} < PARSING
    assert not {"mlpkern.triton_kernels", "mlpkern.info"} & parts


def test_help_takes_a_small_part_of_the_time_of_torch():
    """At most half of it, in the better of two runs of each."""

    def seconds(*command):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return time.perf_counter() - began

    both = [(seconds("-m", "mlpkern", "--help"), seconds("-c", "import torch")) for _ in range(2)]
    assert min(ours for ours, _ in both) < 0.5 * min(torch for _, torch in both)
