"""Runs the notebooks without Jupyter, and writes their outputs into them.

    python notebooks/execute.py                       needs the package and matplotlib, nothing else
    python notebooks/execute.py exercises.ipynb       this one alone

They use no magics, so a cell is Python, executed as a notebook does: in one namespace, with what it
prints and the value of its last line as its outputs.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
LECTURE, EXERCISES = FOLDER / "makemore_mlp.ipynb", FOLDER / "exercises.ipynb"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(cell: dict[str, Any], namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of a code cell: what it prints, then the value of a last expression."""
    name, tree = f"cell {cell['id']}", ast.parse("".join(cell["source"]))
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        lines = text.splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if hasattr(value, "_repr_png_"):
        data = {"image/png": base64.b64encode(value._repr_png_()).decode() + "\n"}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    elif value is not None:
        result = {"data": {"text/plain": [repr(value)]}, "metadata": {}}
        outputs.append({"execution_count": None, **result, "output_type": "execute_result"})
    return outputs


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Executes every code cell and keeps its outputs in it; returns the names that are left."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for count, cell in enumerate(code_cells(notebook), 1):
        cell["outputs"] = execute(cell, namespace)
        cell["execution_count"] = count
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = count
    return namespace


if __name__ == "__main__":
    for path in [FOLDER / name for name in sys.argv[1:]] or [LECTURE, EXERCISES]:
        executed = read(path)
        run(executed)
        text = json.dumps(executed, ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
