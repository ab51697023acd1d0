"""``train_steps``: a training run, or a part of one, as one call over arrays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mlpkern.mlp.arguments import Arguments
from mlpkern.mlp.optimizer_state import OptimizerState
from mlpkern.mlp.params import MLPParams
from mlpkern.mlp.training_arguments import ADAMW, TrainingArguments
from mlpkern.mlp.training_call import train
from mlpkern.registry import select

_OP = "train_steps"


def train_steps(
    params: MLPParams,
    inputs: Tensor,
    targets: Tensor,
    batches: Tensor,
    lr: float | Tensor | Sequence[float],
    momentum: float = 0.0,
    weight_decay: float | Tensor | Sequence[float] = 0.0,
    optimizer: str = "sgd",
    state: OptimizerState | None = None,
    *,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    max_grad_norm: float | None = None,
    label_smoothing: float = 0.0,
    input_dropout: float | Tensor | Sequence[float] = 0.0,
    hidden_dropout: float | Tensor | Sequence[float] = 0.0,
    seed: int | Tensor | Sequence[int] = 0,
) -> Tensor:
    """The loss of each of S optimizer steps, (S,), or (M, S) for M models; trains ``params``.

    Equals the loop, for step s of model m:

        rows = batches[m, s]
        x = F.dropout(F.embedding(inputs[rows], E).flatten(1), input_dropout[m])
        x = F.dropout(torch.tanh(F.linear(x, W, b)), hidden_dropout[m])  # each hidden layer
        loss = F.cross_entropy(F.linear(x, W, b), targets[rows], label_smoothing=label_smoothing)
        optimizer.zero_grad(); loss.backward()
        torch.nn.utils.clip_grad_norm_(trained parameters of the model, max_grad_norm)
        optimizer.step()  # with learning rate lr[m, s]

    to rounding, except that the dropout masks are those of `mlpkern.reference.philox.dropout_mask`.
    The models do not see one another. Parameters and state are updated in place, except for what
    ``params.frozen`` names: these tensors and their moments are only read, do not decay, and count
    for nothing in the norm of the gradients, as if the optimizer did not have them.

    Args:
        params: see `mlpkern.MLPParams`; of one model, or of M side by side.
        inputs: (rows, T) ids below V, the whole training set: uint8, int16, int32 or int64, device
            of the parameters, any strides.
        targets: (rows,) ids below C, likewise.
        batches: (S, N) row numbers, or (M, S, N): the rows of each step, likewise. N >= 1; with
            S = 0 nothing happens.
        lr: learning rate, finite and not negative: one, (S,), or (M, S).
        momentum: of sgd, as in ``torch.optim.SGD`` with dampening 0.
        weight_decay: one, or (M,). sgd: added to the gradient of every parameter. adamw: decoupled,
            on the embedding and the weights, not on the biases.
        optimizer: "sgd" or "adamw", as in torch.optim.
        state: an `mlpkern.OptimizerState` of these parameters to continue from and to update; None
            starts from zeros. With it, a run cut into several calls gives the bits of one call.
        nesterov: for sgd with momentum.
        betas: of adamw, the decay rates of both moments.
        eps: of adamw, added to the root of the second moment.
        max_grad_norm: bound of the 2-norm of all gradients of a model together; None for none.
        label_smoothing: 0 to 1, as in ``F.cross_entropy``.
        input_dropout: probability of a zero in the embedded input, 0 <= p < 1; one, or (M,).
        hidden_dropout: the same for the output of each hidden layer.
        seed: of the dropout masks, 64 bits: one, then model m draws from its stream m; or (M,),
            then every model draws from stream 0 of its own.

    The loss, in nats, is that of the batch before the update, in the dtype of the parameters. If it
    is not finite, it is returned, but the model is stopped: its parameters stay as they were before
    the step, its later losses are nan, ``state.stopped`` holds the number of the step, and a
    RuntimeWarning names model and step. The other models go on.

    A handler of a signal (Ctrl-C, a timer) runs within 0.3 s, or once the step under way has ended.
    If it raises, parameters and state are those of ``state.step`` whole steps, the same for all
    models; the losses of this call are lost. See docs/guide/interrupting.md.

    Raises:
        TypeError: a wrong dtype or kind.
        ValueError: a wrong shape, device, or option; a learning rate that is negative or not
            finite; a tensor to be updated that shares memory with another one of the call.
        IndexError: a row number out of range; an id or a target out of range in a row that a batch
            names (one in another row may be found as well).
        RuntimeError: under a transform of torch.func.

    An error is raised before anything is touched.
    """
    check = Arguments(_OP, params)
    check.split(inputs, targets)
    batches = check.batches(batches)  # (M, S, N)
    steps = batches.shape[1]
    rates = check.learning_rates(lr, steps)  # (M, S)
    rule = check.rule(optimizer, momentum, nesterov, betas, eps, max_grad_norm, label_smoothing)
    decay = check.per_model("weight_decay", weight_decay, math.inf)
    on_input = check.per_model("input_dropout", input_dropout, 1.0)
    on_hidden = check.per_model("hidden_dropout", hidden_dropout, 1.0)
    seeds, streams = check.random_streams(seed)
    if state is None:
        state = OptimizerState.zeros(params, optimizer, rule.momentum)
    else:
        state = check.state(state, rule)
    read = {"inputs": inputs, "targets": targets, "batches": batches}
    for name, given, made in (
        ("lr", lr, rates),
        ("weight_decay", weight_decay, decay),
        ("input_dropout", input_dropout, on_input),
        ("hidden_dropout", hidden_dropout, on_hidden),
    ):
        if not isinstance(given, float):  # whose tensor is made for this call
            read[name] = made
    written = check.written(state, read)
    if steps == 0:
        return params.embedding.new_empty((0,) if check.models is None else (check.models, 0))
    first = state.first if rule.optimizer == ADAMW or rule.momentum else None
    arguments = TrainingArguments(
        parameters=check.tensors,
        frozen=check.frozen,
        first=check.with_model_axis(first.tensors()) if first else None,
        second=check.with_model_axis(state.second.tensors()) if state.second else None,
        inputs=inputs,
        targets=targets,
        batches=batches,
        rates=rates,
        stopped=state.stopped,
        step=state.step,
        rule=rule,
        weight_decay=decay,
        input_dropout=on_input,
        hidden_dropout=on_hidden,
        seeds=seeds,
        streams=streams,
    )
    before = state.stopped.tolist()
    try:
        losses = train(select(_OP, check.tensors[0]), arguments, state)
    finally:
        if state.step != arguments.step:
            torch.autograd.graph.increment_version(written)
    _report(before, state.stopped.tolist())
    return losses[0] if check.models is None else losses


def _report(before: list[int], after: list[int]) -> None:
    """Warn of the models that were stopped in this call."""
    stopped = [
        f"model {m} at step {step}" for m, step in enumerate(after) if step >= 0 and before[m] < 0
    ]
    if stopped:
        more = f" and {len(stopped) - 8} more" if len(stopped) > 8 else ""
        warnings.warn(
            f"{_OP}: the loss is not finite in {', '.join(stopped[:8])}{more}; stopped there, "
            "see state.stopped",
            RuntimeWarning,
            stacklevel=3,
        )
