"""``fuse`` of what the code of a module applies to its layers, and when it runs as it was written.

The ops are counted by their nodes in the graph of the output: whether one ran shows there alone.
"""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from mlpkern import MLPParams, fuse, unfuse

IDS = torch.randint(0, 27, (9, 3))
WIDTH = 30


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.C = nn.Embedding(27, 10)
        self.l1, self.l2 = nn.Linear(30, 8), nn.Linear(8, 27)

    def forward(self, x):
        return self.l2(torch.tanh(self.l1(self.C(x).view(len(x), -1))))


class Method(Net):
    def forward(self, x):
        return self.l2(self.l1(self.C(x).flatten(1)).tanh())


class InPlace(Net):
    def forward(self, x):
        return self.l2(self.l1(torch.flatten(self.C(x), 1)).tanh_())


class Functional(Net):
    def forward(self, x):
        return self.l2(F.tanh(self.l1(self.C(x).reshape(x.shape[0], -1))))


class Unbind(Net):
    def forward(self, x):
        return self.l2(nn.functional.tanh(self.l1(torch.cat(torch.unbind(self.C(x), 1), 1))))


class Statements(Net):
    def forward(self, x):
        emb = self.C(x)  # (N, 3, 10)
        embcat = emb.view(emb.shape[0], -1)
        hpreact = self.l1(embcat)
        h = torch.tanh(hpreact)
        return self.l2(h)


class OneName(Net):
    def forward(self, x):
        x = self.C(x)
        x = torch.cat(x.unbind(1), dim=1)
        x = self.l1(x)
        x = x.tanh()
        return self.l2(x)


class Constants(Net):
    def forward(self, x):
        emb = self.C(x)
        h = torch.tanh(self.l1(emb.view(-1, WIDTH)))
        return self.l2(h)


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.C = nn.Embedding(27, 10)
        self.layers = nn.ModuleList([nn.Linear(30, 8), nn.Linear(8, 8), nn.Linear(8, 27)])

    def forward(self, x):
        x = torch.reshape(self.C(x), (x.size(0), -1))
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


class Loss(Net):
    def forward(self, x, y=None):
        logits = super().forward(x) + torch.tanh(self.l1(torch.flatten(self.C(x), 1))).mean()
        loss = None
        if y is not None:
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1), ignore_index=-1)
        return logits, loss


EXAMPLES = [
    Net, Method, InPlace, Functional, Unbind, Statements, OneName, Constants, Loop, Loss,
]  # fmt: skip


def ops(output: torch.Tensor) -> list[str]:
    """The nodes of mlpkern's ops in the graph of ``output``."""
    found, waiting, seen = [], [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [after for after, _ in node.next_functions]
        name = type(node).__name__.removesuffix("Backward")
        found += [name] if name in ("LinearTanh", "EmbeddingGather", "CrossEntropy") else []
    return sorted(found)


def results(model: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Outputs and gradients."""
    model.zero_grad()
    output = model(*inputs)
    outputs = [t for t in (output if isinstance(output, tuple) else [output]) if t is not None]
    sum(t.pow(2).sum() for t in outputs).backward()
    return [*outputs, *(p.grad for p in model.parameters())]


def check(stock: nn.Module, model: nn.Module, *inputs: torch.Tensor) -> list[str]:
    """The ops of ``model``, which must do what ``stock`` does, in both modes."""
    for training in (True, False):
        both = results(stock.train(training), *inputs), results(model.train(training), *inputs)
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other)
    return ops(both[1][0])


def fused(make: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A module, and the same one fused."""
    stock = make()
    model = copy.deepcopy(stock)
    assert fuse(model)
    return stock, model


# What it fuses


@pytest.mark.parametrize("make", EXAMPLES)
def test_equals_the_code_as_written(make):
    stock, model = fused(make)
    assert list(model.state_dict()) == list(stock.state_dict())
    assert isinstance(model, make)
    assert type(model.l1 if make is not Loop else model.layers[0]) is nn.Linear
    expected = ["EmbeddingGather", "LinearTanh"] + ["LinearTanh"] * (make is Loop)
    assert check(stock, model, IDS) == expected
    for shape in ((3,), (1, 3), (2, 9, 3)) if make is Constants else ((1, 3),):
        check(stock, model, torch.randint(0, 27, shape))


def test_the_answer():
    assert str(fuse(Net())) == (
        "l1 + tanh: Linear + tanh -> linear_tanh\nC + view: Embedding + view -> embedding_gather"
    )
    assert [str(swap) for swap in fuse(Loop())] == [
        "C + reshape: Embedding + reshape -> embedding_gather",
        "layers.0 + tanh: Linear + tanh -> linear_tanh",
        "layers.1 + tanh: Linear + tanh -> linear_tanh",
    ]
    inside = nn.ModuleDict({"a": Loss()})
    assert "a: cross_entropy -> mlpkern.cross_entropy" in map(str, fuse(inside))


def test_a_loss():
    stock, model = fused(Loss)
    targets = torch.randint(-1, 27, (9,))
    check(stock, model, IDS, targets)
    assert ops(model(IDS, targets)[1]) == ["CrossEntropy", "EmbeddingGather", "LinearTanh"]
    assert model(IDS)[1] is None


def test_a_second_time_finds_nothing_and_unfuse_is_the_inverse():
    stock, model = fused(Net)
    again = fuse(model)
    assert again == []
    assert [refusal.names for refusal in again.refused] == [("l2",)]
    assert str(unfuse(model)) == "model: Net (fused) -> Net"
    assert type(model) is Net
    assert vars(model).keys() == vars(stock).keys()
    assert check(stock, model, IDS) == []
    assert len(fuse(model)) == 2


def test_copies_and_pickles_have_their_own_parameters():
    _, model = fused(Net)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert len(ops(other(IDS))) == 2
        with torch.no_grad():
            other.l1.weight.zero_()
        assert not torch.equal(other(IDS), model(IDS))
        unfuse(other)
        assert type(other) is Net


def test_from_module_reads_the_code_as_written():
    _, model = fused(Net)
    assert MLPParams.from_module(model).embedding is model.C.weight


# When the code runs as it was written


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


# What it leaves


def test_a_value_that_something_else_sees_is_left():
    class Both(Net):
        def forward(self, x):
            emb = self.C(x)
            pre = self.l1(emb.flatten(1))
            h = torch.tanh(pre)
            return self.l2(h) + pre.sum() + emb.sum()

    class Late(Net):
        def forward(self, x):
            pre = self.l1(self.C(x).flatten(1))
            weight = self.l1.weight.detach().zero_()
            return self.l2(torch.tanh(pre)) + weight.sum()

    class Tried(Net):
        def forward(self, x):
            pre = self.l1(torch.ones(2, 30))
            try:
                h = self.l1(self.C(x).flatten(1))
                h = torch.tanh(h)
            finally:
                h = pre
            return self.l2(h)

    for make, left in ((Both, {"C", "l1"}), (Late, {"l1"}), (Tried, {"l1"})):
        answer = fuse(make())
        assert left <= {refusal.names[0] for refusal in answer.refused}, answer
        assert not left & {swap.names[0] for swap in answer}
        assert "l1: left as is, " in str(answer)


def test_code_that_cannot_be_read():
    names: dict = {"Net": Net, "torch": torch}
    code = "class Unseen(Net):\n def forward(self, x): return torch.tanh(self.l1(x))"
    exec(code, names)
    answer = fuse(names["Unseen"]())
    assert answer == []
    assert "write mlpkern.linear_tanh(x, self.l1.weight, self.l1.bias)" in str(answer)
    assert "the source of its code is not at hand" in str(answer)


class Registry(Net):
    def __init_subclass__(cls):
        raise AssertionError("no subclass expected")

    def forward(self, x):
        return self.l2(torch.tanh(self.l1(self.C(x).flatten(1))))


class Super(Net):
    def forward(self, x):
        scale = torch.tanh(self.l1(torch.ones(30))).mean()
        return super(self.__class__, self).forward(x) * scale


class Meta(type):
    pass


class OfMeta(Net, metaclass=Meta):
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Registry, "its class has an __init_subclass__"),
        (Super, "forward asks for its class"),
        (OfMeta, "its class has a metaclass, Meta"),
    ],
)
def test_classes_that_a_subclass_would_disturb(make, reason):
    model = make()
    stock = copy.deepcopy(model)
    answer = fuse(model)
    assert answer == []
    assert reason in str(answer)
    check(stock, model, IDS)


def test_parametrized_modules():
    class Scaled(Net):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return self.l2(self.scale * torch.tanh(self.l1(self.C(x).flatten(1))))

    model = Scaled()
    parametrize.register_parametrization(model, "scale", nn.Tanh())
    assert fuse(model) == []
    parametrize.remove_parametrizations(model, "scale")
    assert len(fuse(model)) == 2
    stock = copy.deepcopy(model)
    unfuse(stock)
    for m in (stock, model):
        parametrize.register_parametrization(m, "scale", nn.Tanh())
    assert check(stock, model, IDS) == ["EmbeddingGather", "LinearTanh"]
    assert "remove the parametrization" in str(unfuse(model))
    parametrize.remove_parametrizations(model, "scale")
    assert len(unfuse(model)) == 1
    assert type(model) is Scaled
