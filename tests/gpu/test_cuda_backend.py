"""The backend ``cuda`` without a GPU: why it cannot run, and its calls of compiled functions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import mlpkern
from mlpkern import explanation, info, reference
from mlpkern.cuda import backend as cuda

pytest.importorskip("mlpkern._C", reason=mlpkern.backends()["cpu"].reason, exc_type=ImportError)

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of another _cuda.so, and a status that is determined anew."""
    path = tmp_path / "_cuda.so"
    monkeypatch.setattr(cuda, "LIBRARY", path)
    cuda.status.cache_clear()
    yield path
    cuda.status.cache_clear()


# Reasons


def test_no_library(library):
    available, reason, hint = cuda.status()
    assert not available
    assert reason.startswith("mlpkern/_cuda.so was not built")
    assert "nvcc" in hint


def test_the_reason_of_the_build_is_passed_on(library, monkeypatch):
    record = {"cuda": {"built": False, "reason": "no working nvcc was found at build time"}}
    monkeypatch.setattr(cuda.build_record, "read", lambda: record)
    assert cuda.status()[1].endswith("not built: no working nvcc was found at build time")


def status_of(library: Path) -> str:
    """The status with ``library`` in a new process, as a loaded library stays loaded."""
    code = "import pathlib, sys\nfrom mlpkern.cuda import backend as cuda\n"
    code += "cuda.LIBRARY = pathlib.Path(sys.argv[1])\nprint(*cuda.status()[:2])"
    command = [sys.executable, "-c", code, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_file_that_is_no_library(tmp_path):
    library = tmp_path / "_cuda.so"
    library.write_text("no library")
    assert status_of(library).startswith("False mlpkern/_cuda.so does not load: ")


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize(
    "source",
    [
        "int other;",
        "unsigned long long abi = 1; void *mlpkern_cuda_library(void) { return &abi; }",
        "void *mlpkern_cuda_library(void) { return 0; }",
    ],
)
def test_a_library_of_another_build(source, tmp_path):
    library = tmp_path / "_cuda.so"
    (tmp_path / "other.c").write_text(source)
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "other.c")]
    subprocess.run(command, check=True)
    assert status_of(library) == "False mlpkern/_cuda.so is of another build than mlpkern/_C"


@NO_GPU
@pytest.mark.skipif(not cuda.LIBRARY.exists(), reason="mlpkern/_cuda.so was not built")
def test_the_library_loads_without_a_driver_and_says_so():
    available, reason, _ = cuda.status()
    assert not available
    assert "NVIDIA" in reason
    assert mlpkern.backends()["cuda"].reason == reason
    assert reason in info.report()
    with pytest.raises(RuntimeError, match=f"backend cuda cannot run here: {reason}"):
        mlpkern.use_backend("cuda").__enter__()


def test_check_errors_has_nothing_to_say_of_a_cpu():
    mlpkern.embedding_gather(torch.zeros(2, 3, dtype=torch.int64), torch.randn(4, 5))
    assert mlpkern.check_errors() is None


# Calls of the compiled functions, which are fakes that compute on a CPU


class FakeKernels(SimpleNamespace):
    """The functions of _C that the backend calls, in plain torch; records the calls."""

    def __init__(self) -> None:
        super().__init__(calls=[])

    def linear_tanh_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, tf32: bool
    ) -> Tensor:
        self.calls.append(("forward", tf32))
        return reference.linear_tanh_forward(input, weight, bias)

    def linear_tanh_backward(self, *args: object) -> tuple[Tensor | None, ...]:
        self.calls.append(("backward", args[-1]))
        return reference.linear_tanh_backward(*args[:-1])

    def linear_tanh_epilogue(self, output: Tensor, bias: Tensor | None) -> None:
        self.calls.append(("epilogue",))
        output.copy_(torch.tanh(output if bias is None else output + bias))

    def linear_tanh_slope(
        self, grad_output: Tensor, output: Tensor, need_bias: bool
    ) -> tuple[Tensor, Tensor | None]:
        self.calls.append(("slope", need_bias))
        dz = (1 - output * output) * grad_output
        return dz, dz.sum(0) if need_bias else None


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The compute capability of the GPU, and how often it was read."""
    card = SimpleNamespace(major=8, asked=0)

    def get(_device: object) -> tuple[int, int]:
        card.asked += 1
        return card.major, 0

    monkeypatch.setattr(torch.cuda, "get_device_capability", get)
    cuda._has_faster_halves.cache_clear()
    yield card
    cuda._has_faster_halves.cache_clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeKernels:
    kernels = FakeKernels()
    monkeypatch.setattr(cuda, "_C", kernels)
    return kernels


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_precision_of_float32_products_is_that_of_torch(fake, precision, dtype):
    x, w = torch.randn(4, 5, dtype=dtype), torch.randn(6, 5, dtype=dtype)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        y = cuda.linear_tanh_forward(x, w, None)
        cuda.linear_tanh_backward(y, x, w, y, True, True, True)
    finally:
        torch.set_float32_matmul_precision(before)
    tf32 = precision != "highest" and dtype is torch.float32
    assert fake.calls == [("forward", tf32), ("backward", tf32)]


@pytest.mark.parametrize("shape", [(7,), (3, 4, 7), (0, 7)])
@pytest.mark.parametrize("needs", [(True, True, True), (False, True, False), (True, False, True)])
def test_beyond_the_crossover_the_product_is_the_library_s(fake, shape, needs):
    x, w = torch.randn(shape), torch.randn(cuda.FUSED_WIDTH + 1, 7)
    b = torch.randn(cuda.FUSED_WIDTH + 1)
    y = cuda.linear_tanh_forward(x, w, b)
    torch.testing.assert_close(y, reference.linear_tanh_forward(x, w, b))
    grad = torch.randn_like(y)
    ours = cuda.linear_tanh_backward(grad, x, w, y, *needs)
    theirs = reference.linear_tanh_backward(grad, x, w, y, *needs)
    for mine, other, need in zip(ours, theirs, needs, strict=True):
        assert (mine is not None) == need
        if need:
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert [name for name, *_ in fake.calls] == ["epilogue", "slope"]


def test_up_to_the_crossover_the_kernel_is_ours(fake):
    wide = torch.randn(3, cuda.FUSED_WIDTH)
    cuda.linear_tanh_forward(wide, torch.randn(2, cuda.FUSED_WIDTH), None)
    cuda.linear_tanh_forward(torch.randn(3, 2), torch.randn(cuda.FUSED_WIDTH, 2), None)
    assert [name for name, *_ in fake.calls] == ["forward", "forward"]


@pytest.mark.parametrize(
    ("dtype", "major", "widest"),
    [
        (torch.float32, 9, 1024),
        (torch.float64, 9, 1024),
        (torch.bfloat16, 8, 1024),
        (torch.bfloat16, 9, 512),
        (torch.float16, 9, 512),
        (torch.float16, 10, 512),
        (torch.bfloat16, 12, 1024),
    ],
)
def test_the_crossover_follows_from_the_dtype_and_the_card(
    fake, capability, dtype, major, widest, monkeypatch
):
    capability.major = major
    for shape in ((3, widest), (widest, 3), (3, widest + 1), (widest + 1, 3)):
        cuda.linear_tanh_forward(
            torch.randn(2, shape[1]).to(dtype), torch.ones(shape).to(dtype), None
        )
    assert [name for name, *_ in fake.calls] == ["forward"] * 2 + ["epilogue"] * 2
    assert capability.asked <= 1
    # what explain says
    monkeypatch.setattr(explanation, "decide", lambda _op, _device: ("cuda", "so it is"))
    for width, way in ((widest, "in one kernel"), (widest + 1, "of cuBLAS")):
        said = mlpkern.explain(
            "linear_tanh", torch.ones(2, 3, dtype=dtype), torch.ones(width, 3, dtype=dtype)
        )
        assert way in said


@pytest.mark.parametrize(
    ("weight", "error"),
    [
        (torch.randn(2000, 6), ValueError),
        (torch.randn(2000, 5).double(), TypeError),
        (torch.randn(2000, 5, device="meta"), ValueError),
    ],
)
def test_a_wrong_weight_is_refused_before_the_library_s_product(fake, weight, error):
    with pytest.raises(error, match=r"^linear_tanh: "):
        cuda.linear_tanh_forward(torch.randn(3, 5), weight, None)
    assert fake.calls == []
