"""``fuse`` of the code of a module: what is done to the model later counts as in stock code."""

from __future__ import annotations

import copy

import pytest
import torch
from support.fuse_functional import Loss, Method, Net, Statements, check, fused, ops
from support.fuse_models import IDS
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from mlpkern import unfuse

WIDTH = 30  # which a test changes


class LoRA(nn.Module):
    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.more = base, nn.Linear(30, 8, bias=False)

    def forward(self, x):
        return self.base(x) + self.more(x)


def _lora(model: nn.Module) -> None:
    torch.manual_seed(0)
    model.l1 = LoRA(model.l1)


def _forward(model: nn.Module) -> None:
    model.l1.forward = lambda x: x[:, :8]


AFTER = {
    "lora": _lora,
    "forward": _forward,
    "hook": lambda m: m.l1.register_forward_hook(lambda *args: args[2] * 2),
    "pre_hook": lambda m: m.l1.register_forward_pre_hook(lambda _, args: (args[0] * 2,)),
    "backward_hook": lambda m: m.l1.register_full_backward_hook(lambda _, g, __: (g[0] * 2,)),
    "weight_norm": lambda m: parametrizations.weight_norm(m.l1),
    "relu": lambda m: setattr(m, "l1", nn.Sequential(m.l1, nn.ReLU())),
    "global": lambda m: None,
}


@pytest.mark.parametrize("change", AFTER)
def test_what_is_done_to_a_layer_after_fuse_counts(change):
    stock, model = fused(Statements)
    for m in (stock, model):
        AFTER[change](m)
    handle = None
    if change == "global":
        handle = nn.modules.module.register_module_forward_hook(lambda m, args, output: output * 2)
    try:
        assert check(stock, model, IDS) == ["EmbeddingGather"] * (change != "global")
    finally:
        if handle is not None:
            handle.remove()


def test_a_changed_embedding():
    stock, model = fused(Net)
    for m in (stock, model):
        m.C.max_norm = 0.5
        m.C.scale_grad_by_freq = True
    assert check(stock, model, IDS) == ["LinearTanh"]


@pytest.mark.filterwarnings("ignore")
def test_quantized_and_pruned_layers():
    stock, model = fused(Net)
    quantized = [torch.ao.quantization.quantize_dynamic(m, {nn.Linear}) for m in (stock, model)]
    torch.testing.assert_close(*(m(IDS) for m in quantized))
    for m in (stock, model):
        prune.l1_unstructured(m.l1, "weight", 0.5)
    assert check(stock, model, IDS) == ["EmbeddingGather"]


def test_a_replica_uses_its_own_parameters():
    _, model = fused(Net)
    replica = model._replicate_for_data_parallel()  # what DataParallel does for each device
    for key, child in model._modules.items():
        replica._modules[key] = child._replicate_for_data_parallel()
        for name, p in child._parameters.items():
            setattr(replica._modules[key], name, p.detach() * 2)
    stock = copy.deepcopy(model)
    unfuse(stock)
    with torch.no_grad():
        for p in stock.parameters():
            p.mul_(2)
    torch.testing.assert_close(replica(IDS), stock(IDS))


@pytest.mark.filterwarnings("ignore")
def test_inputs_of_other_kinds():
    class Tagged(torch.Tensor):
        pass

    stock, model = fused(Net)
    assert type(model(IDS.as_subclass(Tagged))) is Tagged
    for m in (stock, model):
        m.to(torch.complex64)
        m.C.weight = nn.Parameter(torch.ones(27, 10, dtype=torch.complex64))
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), stock(IDS))


def test_a_class_that_gets_another_forward():
    class Mine(Net):
        def forward(self, x):
            return self.l2(torch.tanh(self.l1(self.C(x).view(len(x), -1))))

    stock, model = fused(Mine)
    Mine.forward = lambda self, x: self.l2(torch.relu(self.l1(self.C(x).flatten(1))))
    assert check(stock, model, IDS) == []


def test_functions_that_a_library_replaced(monkeypatch):
    stock, model = fused(Loss)
    forward, loss = nn.Linear.forward, F.cross_entropy
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: forward(self, x) * 2)
    monkeypatch.setattr(F, "cross_entropy", lambda *args, **kwargs: loss(*args, **kwargs) * 3)
    monkeypatch.setattr(torch, "tanh", torch.sigmoid)
    check(stock, model, IDS, IDS[:, 0])
    assert ops(model(IDS, IDS[:, 0])[1]) == ["EmbeddingGather"]


def test_flags_prints_and_globals_are_read_when_it_runs(monkeypatch, capsys):
    class Flags(Net):
        scale = 1.0

        def forward(self, x):
            print("forward", self.scale)
            self.calls = getattr(self, "calls", 0) + 1
            h = torch.tanh(self.l1(self.C(x).view(-1, WIDTH)))
            return self.l2(h * self.scale) if self.scale else h

    stock, model = fused(Flags)
    for scale in (2.0, 0):
        stock.scale = model.scale = scale
        assert len(check(stock, model, IDS)) == 2
    assert model.calls == 4
    assert capsys.readouterr().out.count("forward 2.0") == 4
    monkeypatch.setitem(globals(), "WIDTH", 29)
    with pytest.raises(RuntimeError, match="invalid for input of size 270"):
        model(IDS)


def test_ids_and_sizes_that_are_no_gather():
    class Sum(Net):
        def forward(self, x):
            rows = self.C(x)
            rows = rows.view(len(x), -1, 5)
            return rows.sum(1)

    stock, model = fused(Sum)
    assert check(stock, model, IDS) == ["EmbeddingGather"]
    stock, model = fused(Method)
    stock.l1 = nn.Linear(60, 8)
    model.l1 = copy.deepcopy(stock.l1)
    assert check(stock, model, torch.randint(0, 27, (4, 2, 3))) == ["LinearTanh"]
    with pytest.raises(RuntimeError, match="cannot reshape tensor of 0 elements"):
        fused(Net)[1](IDS[:0])


@pytest.mark.filterwarnings("ignore")
def test_transforms_compilers_and_functional_call():
    stock, model = fused(Net)
    named = {name: p * 2 for name, p in model.named_parameters()}
    call = torch.func.functional_call
    torch.testing.assert_close(call(model, named, (IDS,)), call(stock, named, (IDS,)))
    losses = [torch.func.grad(lambda p, m=m: call(m, p, (IDS,)).sum()) for m in (stock, model)]
    torch.testing.assert_close(*(loss(named) for loss in losses))
    many = IDS[None].repeat(2, 1, 1)
    torch.testing.assert_close(torch.vmap(model)(many), torch.vmap(stock)(many))
    traced = torch.jit.trace(model, (IDS,), check_trace=False)
    torch.testing.assert_close(traced(IDS), stock(IDS))
    assert "mlpkern::" not in str(traced.inlined_graph)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(IDS), stock(IDS))
    exported = torch.export.export(model, (IDS,)).module()
    torch.testing.assert_close(exported(IDS), stock(IDS))
    with torch.autocast("cpu"):
        assert model(IDS).dtype is stock(IDS).dtype is torch.bfloat16
        torch.testing.assert_close(model(IDS), stock(IDS), rtol=0.02, atol=0.02)
