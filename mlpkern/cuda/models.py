"""``train_steps`` and ``evaluate`` of the backend ``cuda``: which kernels run a call.

Our kernels hold a whole model in the shared memory of one multiprocessor, in float32. The fused ops
run what does not fit there, and float64: a training step captured in a CUDA graph, an evaluation
in blocks of rows. They also run a few models with so much work in a step that the whole card, one
model after another, is faster than one multiprocessor for each.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mlpkern import _C
from mlpkern.cuda import graphed_train_steps
from mlpkern.cuda.precision import tf32
from mlpkern.functional import cross_entropy
from mlpkern.mlp.params import MLPParams
from mlpkern.mlp.pieces import pieces
from mlpkern.mlp.training_arguments import TrainingArguments
from mlpkern.ops.mlp_loss import mlp_logits, transposed
from mlpkern.reference.bounds import check_ids_together

_WAYS = {
    "narrow": "one block per model, its hidden units dealt out to warps",
    "block": "one block per model, each product by the whole block",
}
_GRAPH = "the ops in a captured CUDA graph, one model after another"
_ROWS = "the ops, one model after another"

# Arithmetic, not measured: what a multiprocessor computes in a second of dependent small products,
# what the whole card does, and how long the twenty-odd kernels of a replayed step take at least.
_BLOCK_FLOPS = 3e11
_CARD_FLOPS = 2e13
_REPLAY_SECONDS = 5e-5

_PIECE_SECONDS = 0.1  # the longest that one of our kernels should run: no signal can stop it

_BLOCK = 1 << 24  # activations and logits of the ops in memory at a time: 64 MB of float32


def train_steps(arguments: TrainingArguments) -> Tensor:
    """The losses (M, S); obeys torch's float32 matmul precision."""
    a, embedding = arguments, arguments.parameters[0]
    sizes, rows = _sizes(a.parameters, a.inputs.shape[1]), a.batches.shape[2]
    options = (a.rule.optimizer, a.rule.momentum != 0, a.rule.max_grad_norm != math.inf)
    wide = _card_is_faster(embedding, sizes, len(embedding), rows)
    if wide or not _training_path(embedding, sizes, rows, *options):
        return graphed_train_steps.train_steps(a)
    precision, count, losses = tf32(embedding), a.rates.shape[1], []
    for begin, end in pieces(count, _PIECE_SECONDS):
        losses.append(_C.train_steps(a.steps(begin, end), precision))
        if end < count:
            a.stopped.tolist()  # waits for the kernel
    return torch.cat(losses, 1)


def evaluate(parameters: list[Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """See ``mlpkern.reference.evaluate``; obeys torch's float32 matmul precision."""
    check_ids_together(
        "evaluate",
        [
            ("inputs", inputs, parameters[0].shape[-2], "id"),
            ("targets", targets, parameters[-1].shape[-1], "target"),
        ],
    )
    if _evaluation_path(parameters[0], _sizes(parameters, inputs.shape[1])):
        return _C.evaluate(parameters, inputs, targets, tf32(parameters[0]))
    widest = max(parameter.shape[-1] for parameter in parameters)
    sums = torch.zeros(2, len(parameters[0]), dtype=torch.float64, device=inputs.device)
    with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
        for m in range(len(parameters[0])):
            _add_rows(sums[:, m], [p[m] for p in parameters], inputs, targets, widest)
    mean = sums / len(targets)
    return mean[0], mean[1]


def which_way(op: str, params: MLPParams, arguments: dict[str, Any]) -> str:
    """How a call of ``op`` on these parameters would run; ``arguments``: those given, by name."""
    fallback = _ROWS if op == "evaluate" else _GRAPH
    if params.dtype != torch.float32:
        return f"float64: {fallback}"
    sizes = _sizes(params.tensors(), params.context)
    if op == "evaluate":
        path = _evaluation_path(params.embedding, sizes)
    elif "batches" not in arguments:
        return "with batches among the arguments it can be said how"
    elif _card_is_faster(
        params.embedding, sizes, params.models or 1, arguments["batches"].shape[-1]
    ):
        return f"a step is so large that the whole card is faster: {fallback}"
    else:
        bound = arguments.get("max_grad_norm")
        path = _training_path(
            params.embedding,
            sizes,
            arguments["batches"].shape[-1],
            int(arguments.get("optimizer", "sgd") == "adamw"),
            arguments.get("momentum", 0.0) != 0,
            bound is not None and bound != math.inf,
        )
    if not path:
        return f"the model does not fit into one multiprocessor's shared memory: {fallback}"
    precision = "TF32" if tf32(params.embedding) else "float32"
    return f"{_WAYS[path]}, products in {precision}"


Sizes = tuple[int, int, int, int, list[int]]  # V, T, D, C and the hidden widths


def _sizes(parameters: list[Tensor], context: int) -> Sizes:
    embedding, *layers = parameters
    hidden = [bias.shape[-1] for bias in layers[1:-2:2]]
    return embedding.shape[-2], context, embedding.shape[-1], layers[-1].shape[-1], hidden


def _card_is_faster(embedding: Tensor, sizes: Sizes, models: int, rows: int) -> bool:
    """Whether M models one after another on all multiprocessors beat one on each."""
    _, context, width, classes, hidden = sizes
    widths = [context * width, *hidden, classes]
    flops = 6 * rows * sum(a * b for a, b in pairwise(widths))
    turns = -(-models // _multiprocessors(embedding.device))
    together = models * (_REPLAY_SECONDS + flops / _CARD_FLOPS)
    return together < turns * flops / _BLOCK_FLOPS


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _training_path(
    embedding: Tensor, sizes: Sizes, rows: int, optimizer: int, momentum: bool, clips: bool
) -> str:
    """The kernel of ours that trains a model of this kind, or nothing."""
    if embedding.dtype != torch.float32:
        return ""
    return _C.train_steps_path(
        embedding.device.index, *sizes, rows, optimizer, momentum, clips, tf32(embedding)
    )


def _evaluation_path(embedding: Tensor, sizes: Sizes) -> str:
    if embedding.dtype != torch.float32:
        return ""
    return _C.evaluate_path(embedding.device.index, *sizes, tf32(embedding))


def _add_rows(
    sums: Tensor, model: list[Tensor], inputs: Tensor, targets: Tensor, widest: int
) -> None:
    """Adds the losses and the hits of one model to ``sums`` (2,)."""
    rows = max(1, _BLOCK // widest)
    for ids, labels in zip(inputs.split(rows), targets.split(rows), strict=True):
        logits = mlp_logits(transposed(model), ids)  # (rows, C)
        sums[0] += cross_entropy(logits, labels, reduction="none").double().sum()
        sums[1] += (logits.argmax(1) == labels).sum()
