"""State of ``train_steps`` from call to call: chunks, threads, models that were stopped."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from support.train_problems import OPTIONS, Problem, problem

import mlpkern
from mlpkern import MLPParams, OptimizerState

pytestmark = pytest.mark.usefixtures("one_thread")


def zeros(params: MLPParams, options: dict) -> OptimizerState:
    kept = {name: options[name] for name in ("optimizer", "momentum") if name in options}
    return OptimizerState.zeros(params, **kept)


def assert_equal(one: MLPParams, other: MLPParams) -> None:
    for name, tensor in one.named_tensors().items():
        assert torch.equal(tensor, other.named_tensors()[name]), name


def in_chunks(case: Problem, ends: list[int], options: dict, reload: bool = False):
    """The losses, parameters and state of a run that is cut at the steps ``ends``."""
    params = case.params.clone()
    state = zeros(params, options)
    lr = torch.as_tensor(case.lr).expand(case.batches.shape[-2])
    losses = []
    for start, end in zip([0, *ends], [*ends, len(lr)], strict=True):
        batches = case.batches[..., start:end, :]
        data = (case.inputs, case.targets, batches, lr[start:end])
        losses.append(mlpkern.train_steps(params, *data, state=state, **options))
        if reload:
            saved = {name: tensor.clone() for name, tensor in state.state_dict().items()}
            state = zeros(params, options)
            state.load_state_dict(saved)
    return torch.cat(losses, -1), params, state


@pytest.mark.parametrize("models", [None, 2])
@pytest.mark.parametrize("name", OPTIONS)
def test_chunks_equal_one_call_bit_for_bit(backend, device, name, models):
    case = problem(M=models, hidden=(16, 5), device=device)
    options = dict(OPTIONS[name])
    case.lr = torch.linspace(options.pop("lr", 0.2), 0.0, 30, device=device)
    whole, trained, after = in_chunks(case, [], options)
    assert torch.equal(whole, case.run(**options)[0])
    for ends, reload in (([1, 2, 17], False), ([13, 13], True)):
        losses, params, state = in_chunks(case, ends, options, reload)
        assert torch.equal(losses, whole)
        assert_equal(params, trained)
        assert state.step == after.step == 30
        for key, tensor in after.state_dict().items():
            assert torch.equal(state.state_dict()[key], tensor), key


def test_a_later_start_is_another_run(backend, device):
    case = problem(device=device)
    for options in ({"hidden_dropout": 0.5}, {"optimizer": "adamw"}):
        state = zeros(case.params, options)
        state.step = 7
        later, _ = case.run(state=state, **options)
        assert not torch.equal(later, case.run(**options)[0])


def test_steps_beyond_32_bits(backend, device):
    case = problem(device=device, S=3)
    runs = []
    for step in (2**32 + 5, 5):  # the generator counts modulo 2^32
        state = OptimizerState.zeros(case.params)
        state.step = step
        runs.append(case.run(state=state, hidden_dropout=0.5)[0])
        assert state.step == step + 3
    assert torch.equal(*runs)


@pytest.mark.parametrize("models", [None, 5])
@pytest.mark.parametrize("hidden", [(16,), (300, 40)])
def test_bits_do_not_depend_on_the_number_of_threads(models, hidden):
    if not mlpkern.backends()["cpu"].available:
        pytest.skip(mlpkern.backends()["cpu"].reason)
    case = problem(V=200, D=16, hidden=hidden, N=700, rows=900, S=4, M=models)
    runs = []
    with mlpkern.use_backend("cpu"):
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            losses, params = case.run(momentum=0.9, max_grad_norm=0.5, hidden_dropout=0.2)
            split = mlpkern.evaluate(params, case.inputs, case.targets)
            runs.append((losses, params, split))
    for losses, params, split in runs[1:]:
        assert torch.equal(losses, runs[0][0])
        assert_equal(params, runs[0][1])
        assert torch.equal(split.loss, runs[0][2].loss)
        assert torch.equal(split.accuracy, runs[0][2].accuracy)


# Models whose loss is not finite.


def exploding(device: str, M: int | None, **options) -> Problem:
    """A problem in which model 1, or the only one, diverges at step 3."""
    case = problem(M=M, S=12, device=device, **options)
    lr = torch.full((M or 1, 12), 0.1, device=device)
    lr[0 if M is None else 1, 1:3] = 3e38
    case.lr = lr if M else lr[0]
    return case


def stopping_step(losses: torch.Tensor) -> int:
    return int((~losses.isfinite()).nonzero()[0])


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"hidden_dropout": 0.3}])
def test_a_model_that_leaves_the_numbers_is_stopped_and_the_others_go_on(backend, device, options):
    case = exploding(device, 3)
    state = zeros(case.params, options)
    params = case.params.clone()
    data = (case.inputs, case.targets, case.batches)
    options = options | {"seed": [4, 5, 6]}
    with pytest.warns(RuntimeWarning) as caught:
        losses = mlpkern.train_steps(params, *data, case.lr, state=state, **options)
    at = stopping_step(losses[1])
    assert 1 < at < 12
    assert len(caught) == 1
    assert f"train_steps: the loss is not finite in model 1 at step {at};" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert losses[1, at + 1 :].isnan().all()
    assert state.stopped.tolist() == [-1, at, -1]
    assert state.step == 12

    # it keeps its state of before that step
    before = Problem(case.params.model(1), *data[:2], case.batches[:at], case.lr[1, :at])
    expected, stopped_params = before.run(**options | {"seed": [5]})
    assert torch.equal(losses[1, :at], expected)
    assert_equal(params.model(1), stopped_params)

    # the others are trained as without it
    pair = MLPParams.stack([case.params.model(0), case.params.model(2)])
    expected, others = Problem(pair, *data, case.lr[[0, 2]]).run(**options | {"seed": [4, 6]})
    assert torch.equal(losses[[0, 2]], expected)
    assert_equal(params.model(0), others.model(0))
    assert_equal(params.model(2), others.model(1))

    # it stays stopped, and no second warning is given
    kept = params.model(1).clone()
    again = mlpkern.train_steps(params, *data, 0.01, state=state, **options)
    assert again[1].isnan().all()
    assert again[[0, 2]].isfinite().all()
    assert state.stopped.tolist() == [-1, at, -1]
    assert_equal(params.model(1), kept)


def test_a_single_model_is_stopped(backend, device):
    case = exploding(device, None)
    state = OptimizerState.zeros(case.params)
    state.step = 1000
    with pytest.warns(RuntimeWarning, match="in model 0 at step 10[0-9]+; stopped there"):
        losses, _ = case.run(state=state)
    assert state.stopped.tolist() == [1000 + stopping_step(losses)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parameters_that_are_no_numbers_stop_at_once(backend, device, value):
    case = problem(device=device, M=2)
    case.params.output[1][0, 3] = value
    kept = case.params.clone()
    with pytest.warns(RuntimeWarning, match="in model 0 at step 0;"):
        losses, params = case.run(weight_decay=0.1)
    assert losses[0].isfinite().tolist() == [False] * 30
    assert losses[0, 1:].isnan().all()
    assert losses[1].isfinite().all()
    for one, other in zip(params.model(0).tensors(), kept.model(0).tensors(), strict=True):
        assert torch.equal(one.nan_to_num(9.0), other.nan_to_num(9.0))


def test_many_stopped_models_are_counted(backend, device):
    case = problem(device=device, M=20, S=2)
    case.params.output[1][:, 0] = math.nan
    with pytest.warns(RuntimeWarning, match="model 7 at step 0 and 12 more; stopped there"):
        case.run()


def test_a_warning_as_an_error_leaves_a_state_that_is_complete(backend, device):
    case = exploding(device, 2)
    state = OptimizerState.zeros(case.params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            case.run(state=state)
    assert state.step == 12
    assert state.stopped[1] >= 0
