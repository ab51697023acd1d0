"""The lecture's model where a learner would start: NumPy by hand, scikit-learn, torch, mlpkern.

    python bench/learners.py [--steps 5000] [--repeat 3]      about half a minute on one core

Each trains V=27 T=3 D=10 H=200 N=32 by plain SGD at rate 0.1 on the embedded names with one thread.
scikit-learn has no embedding layer: its `MLPClassifier(activation="tanh")` gets the 81 one-hot
numbers of a row, so its first layer holds 81·200 weights in place of 27·10 + 30·200; it is a
related model, not the same one. It is called as `partial_fit` of a minibatch, its own loop.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from bench.core import machine
from bench.core.providers import with_backend
from bench.core.timer import timed
from bench.shown.text import Column, markdown_table, per_second, seconds
from bench.training.case import LECTURE
from bench.training.step import Run
from bench.training.stock_loops import StockRun, lecture_loop

Arrays = list[np.ndarray]


def numpy_step(p: Arrays, ids: np.ndarray, targets: np.ndarray, rate: float) -> float:
    """Forward, backward and update as one writes them from the formulas; returns the loss."""
    embedding, weight1, bias1, weight2, bias2 = p
    rows = np.arange(len(targets))
    x = embedding[ids].reshape(len(ids), -1)  # (N, T*D)
    h = np.tanh(x @ weight1.T + bias1)  # (N, H)
    logits = h @ weight2.T + bias2  # (N, V)
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    loss = -np.log(chances[rows, targets]).mean()
    dlogits = chances
    dlogits[rows, targets] -= 1
    dlogits /= len(targets)
    dz = (dlogits @ weight2) * (1 - h * h)  # (N, H)
    dx = dz @ weight1  # (N, T*D)
    dembedding = np.zeros_like(embedding)
    np.add.at(dembedding, ids.ravel(), dx.reshape(-1, embedding.shape[1]))
    grads = (dembedding, dz.T @ x, dz.sum(0), dlogits.T @ h, dlogits.sum(0))
    for value, grad in zip(p, grads, strict=True):
        value -= rate * grad
    return float(loss)


def numpy_loop(run: StockRun, steps: int) -> list[float]:
    """Steps from the parameters of `run`, whose memory the arrays share, on its minibatches."""
    parameters = [value.numpy() for value in run.values]
    ids, targets = (drawn.numpy() for drawn in run.draw_chunk(steps))
    return [numpy_step(parameters, *one, LECTURE.rate) for one in zip(ids, targets, strict=True)]


def by_sklearn(steps: int) -> None:
    from sklearn.neural_network import MLPClassifier

    run, sizes = StockRun(LECTURE), LECTURE.sizes
    model = MLPClassifier(
        (sizes["H"],), activation="tanh", solver="sgd", learning_rate_init=LECTURE.rate,
        momentum=0.0, alpha=0.0, batch_size=sizes["N"],
    )  # fmt: skip
    identity = np.eye(sizes["V"], dtype=np.float32)
    classes = np.arange(sizes["V"])
    ids, targets = (drawn.numpy() for drawn in run.draw_chunk(steps))
    for some, wanted in zip(ids, targets, strict=True):
        model.partial_fit(identity[some].reshape(len(some), -1), wanted, classes=classes)


def by_mlpkern(steps: int) -> None:
    run = Run(LECTURE)
    run.take(run.draw(steps))


LEARNERS: dict[str, Callable[[int], object]] = {
    "scikit-learn, `MLPClassifier.partial_fit`, one-hot": by_sklearn,
    "NumPy, by hand": lambda steps: numpy_loop(StockRun(LECTURE), steps),
    "PyTorch, the lecture's loop": lambda steps: lecture_loop([StockRun(LECTURE)], steps),
    "mlpkern, `train_steps`": by_mlpkern,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The lecture's model by what learners use.")
    parser.add_argument("--steps", type=int, default=5000, help="of a training (5000)")
    parser.add_argument("--repeat", type=int, default=3, help="times each is timed (3)")
    options = parser.parse_args(arguments)
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    times: dict[str, list[float]] = {name: [] for name in LEARNERS}
    with threadpool_limits(1), with_backend("cpu", 1):
        for turn in range(options.repeat + 1):  # the first to warm up
            for name, train in LEARNERS.items():
                steps = options.steps if turn else 50
                took = timed(lambda train=train, steps=steps: train(steps))[0] / steps
                times[name] += [took] if turn else []
    medians = {name: statistics.median(several) for name, several in times.items()}
    first = max(medians.values())
    columns = [
        Column("one thread", "<", lambda row: row[0]),
        Column("a step", ">", lambda row: seconds(row[1])),
        Column("steps/s", ">", lambda row: per_second(1 / row[1])),
        Column("speedup", ">", lambda row: f"{first / row[1]:.1f}x"),
    ]
    versions = {name: machine.version(name) for name in ("numpy", "scikit-learn", "torch")}
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    cpu = f"{machine.cpu_model()}, mlpkern {machine.mlpkern_isa()}"
    print(f"{cpu}, {used}, {machine.now()[:10]}\n")
    print("\n".join(markdown_table(columns, sorted(medians.items(), key=lambda row: -row[1]))))


if __name__ == "__main__":
    main()
