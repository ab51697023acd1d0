"""``train_steps``: a training run, or a piece of one, as one call over arrays."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mlpkern.mlp.arguments import require_params, require_split, with_model_axis
from mlpkern.mlp.optimizer_state import OPTIMIZERS, OptimizerState
from mlpkern.mlp.params import MLPParams
from mlpkern.mlp.training_arguments import (
    learning_rates,
    per_model,
    random_streams,
    require_batches,
    require_options,
    require_state,
)
from mlpkern.mlp.training_call import TrainingCall
from mlpkern.mlp.written_memory import require_writable
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
    tensors = require_params(_OP, params)
    require_split(_OP, params, inputs, targets)
    batches = require_batches(params, batches)  # (M, S, N)
    steps = batches.shape[1]
    rates = learning_rates(params, lr, steps)  # (M, S)
    require_options(optimizer, momentum, nesterov, betas, eps, max_grad_norm, label_smoothing)
    decay = per_model(params, "weight_decay", weight_decay, math.inf)
    dropouts = [
        per_model(params, name, value, 1.0)
        for name, value in (("input_dropout", input_dropout), ("hidden_dropout", hidden_dropout))
    ]
    seeds, streams = random_streams(params, seed)
    if state is None:
        state = OptimizerState.zeros(params, optimizer, momentum)
    else:
        require_state(params, state, optimizer, momentum)
    numbers = {
        "lr": (lr, rates),
        "weight_decay": (weight_decay, decay),
        "input_dropout": (input_dropout, dropouts[0]),
        "hidden_dropout": (hidden_dropout, dropouts[1]),
    }
    read = {"inputs": inputs, "targets": targets, "batches": batches}
    # the tensor of a float is made for this call
    read |= {name: made for name, (x, made) in numbers.items() if not isinstance(x, float)}
    written = require_writable(_OP, params, state, read)
    if steps == 0:
        return params.embedding.new_empty((0,) if params.models is None else (params.models, 0))
    adamw = optimizer == "adamw"
    first = with_model_axis(state.first) if state.first and (adamw or momentum) else []
    second = with_model_axis(state.second) if state.second else []
    stopped_before, step_before = state.stopped.tolist(), state.step
    options = (
        OPTIMIZERS.index(optimizer),
        float(momentum),
        bool(nesterov),
        float(betas[0]),
        float(betas[1]),
        float(eps),
        math.inf if max_grad_norm is None else float(max_grad_norm),
        float(label_smoothing),
        decay,
        *dropouts,
        seeds,
        streams,
    )
    given = (tensors, first, second)
    frozen = params.is_frozen()
    call = TrainingCall(given, frozen, inputs, targets, batches, rates, state, options)
    try:
        losses = call.run(select(_OP, tensors[0]))
    finally:
        if state.step != step_before:
            torch.autograd.graph.increment_version(written)
    _report(stopped_before, state.stopped.tolist())
    return losses[0] if params.models is None else losses


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
