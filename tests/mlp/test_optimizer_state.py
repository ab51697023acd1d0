"""``OptimizerState``: its initial values, saving, restoring and errors."""

from __future__ import annotations

import pytest
import torch
from support.train_problems import problem

from mlpkern import OptimizerState


def test_zeros():
    params = problem(M=3).params
    plain = OptimizerState.zeros(params)
    assert (plain.step, plain.first, plain.second) == (0, None, None)
    assert plain.stopped.tolist() == [-1, -1, -1]
    assert OptimizerState.zeros(problem().params).stopped.tolist() == [-1]
    assert OptimizerState.zeros(params, momentum=0.9).second is None
    for name, moments in vars(OptimizerState.zeros(params, "adamw")).items():
        if name in ("first", "second"):
            for key, tensor in moments.named_tensors().items():
                assert tensor.shape == params.named_tensors()[key].shape
                assert not tensor.any()
    with pytest.raises(ValueError, match="optimizer must be 'sgd' or 'adamw', got 'adam'"):
        OptimizerState.zeros(params, "adam")


def used_state() -> OptimizerState:
    case = problem(M=2)
    state = OptimizerState.zeros(case.params, "adamw")
    case.run(optimizer="adamw", state=state)
    state.stopped[1] = 17
    return state


def test_state_dict_goes_through_a_file(tmp_path):
    from safetensors.torch import load_file, save_file

    state = used_state()
    save_file(state.state_dict(), tmp_path / "state")
    other = OptimizerState.zeros(problem(M=2).params, "adamw")
    places = [tensor.data_ptr() for tensor in other.tensors()]
    other.load_state_dict(load_file(tmp_path / "state"))
    assert other.step == 30
    assert [tensor.data_ptr() for tensor in other.tensors()] == places
    for name, tensor in state.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_clone_of_a_state_is_a_copy():
    state = used_state()
    copy = state.clone()
    copy.first.embedding.fill_(7.0)
    copy.stopped.fill_(0)
    assert not (state.first.embedding == 7.0).any()
    assert state.stopped.tolist() == [-1, 17]
    assert copy.step == 30


def test_load_state_dict_refuses_other_states_and_copies_nothing():
    state = used_state()
    fresh = OptimizerState.zeros(problem(M=2).params, "adamw")
    good = state.state_dict()
    missing = {name: tensor for name, tensor in good.items() if name != "second.output.bias"}
    for bad, message in (
        (missing, "state_dict misses second.output.bias$"),
        (good | {"third": good["step"]}, "state_dict has unexpected third$"),
        (good | {"stopped": torch.zeros(3).long()}, r"stopped must be \(2,\), got \(3,\)$"),
        (
            good | {"first.embedding": torch.zeros(11, 4)},
            r"first.embedding must be \(2, 11, 4\),",
        ),
    ):
        with pytest.raises(ValueError, match=f"^OptimizerState: {message}"):
            fresh.load_state_dict(bad)
    assert fresh.step == 0
    assert not any(tensor.any() for tensor in fresh.tensors()[1:])
