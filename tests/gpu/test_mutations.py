"""The mutation test of the CUDA kernels (tests/cuda/mutation) finds the places to mutate."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "cuda" / "mutation"
sys.path.insert(0, str(FOLDER))

import mutations  # noqa: E402

KERNEL = """\
// if (a < b) in a comment
template <class T>
__device__ __forceinline__ bool inside(int64_t i, int64_t n) {
  return i >= 0 && static_cast<uint64_t>(i) < n;
}
inline int on_the_host(int a, int b) { return a < b ? a : b; }
static __device__ int counter;
template <class T>
__global__ void __launch_bounds__(256) kernel(const T* x, int n) {
  constexpr int kStep = sizeof(T) < 4 ? 2 : 1;
  const int i = threadIdx.x;
  if (i >= n || n == 0) return;
  if (i + 1 < n && x != nullptr) {
    __syncthreads();
  }
  if constexpr (sizeof(T) > 2) __syncwarp(0xffu);
  for (int k = 0; k < n; ++k) {
    if (k > 3) continue;
    const int count =
        n - k < 4 ? n - k : 4;
    const bool last = k + 1 >= n, even = k % 2 == 0;
  }
  cp_async_wait<2>();
  __syncthreads();
}
"""


def found():
    return {
        str(place): place.becomes if place.kind == "check" else place.environment
        for place in mutations.find("cuda/a.cuh", KERNEL)
    }


def test_every_barrier_and_wait_is_found_by_its_line():
    lines = {name: line for name, line in found().items() if ": check: " not in name}
    assert lines == {
        "cuda/a.cuh: kernel: barrier: __syncthreads();": "cuda/a.cuh:14",
        "cuda/a.cuh: kernel: barrier: __syncwarp(0xffu);": "cuda/a.cuh:16",
        "cuda/a.cuh: kernel: wait: cp_async_wait<2>();": "cuda/a.cuh:23",
        "cuda/a.cuh: kernel: barrier: __syncthreads(); (2)": "cuda/a.cuh:24",
    }


def test_every_check_is_found_with_what_it_becomes():
    checks = {name: value for name, value in found().items() if ": check: " in name}
    assert checks == {
        "cuda/a.cuh: inside: check: i >= 0": True,
        "cuda/a.cuh: inside: check: static_cast<uint64_t>(i) < n": True,
        "cuda/a.cuh: kernel: check: i >= n": False,
        "cuda/a.cuh: kernel: check: i + 1 < n": True,
        "cuda/a.cuh: kernel: check: k > 3": False,
        "cuda/a.cuh: kernel: check: n - k < 4": True,
        "cuda/a.cuh: kernel: check: k + 1 >= n": False,
    }


def test_switches_stand_around_the_checks_and_nothing_else_moves():
    places = mutations.find("cuda/a.cuh", KERNEL, 10)
    switched = mutations.with_switches(KERNEL, places)
    lines = switched.splitlines()
    assert len(lines) == len(KERNEL.splitlines())
    leave_out = "::mlpkern::fiber::leaves_out"
    assert lines[3] == (
        f"  return ({leave_out}(10) || (i >= 0)) && "
        f"({leave_out}(11) || (static_cast<uint64_t>(i) < n));"
    )
    assert lines[11] == f"  if ((!{leave_out}(12) && (i >= n)) || n == 0) return;"
    assert lines[19] == f"        ({leave_out}(15) || (n - k < 4)) ? n - k : 4;"
    for place in places:
        if place.kind == "check":
            sign = "" if place.becomes else "!"
            joint = "||" if place.becomes else "&&"
            before = f"({sign}{leave_out}({place.number}) {joint} ("
            assert before in switched
            switched = switched.replace(f"{before}{place.text}))", place.text)
    assert switched == KERNEL


def test_checks_within_a_check_keep_their_brackets():
    code = "__device__ int f(int a, int n) {\n  if (a < (a < n ? a : n)) a = 0;\n  return a;\n}\n"
    places = mutations.find("cuda/a.cuh", code)
    switched = mutations.with_switches(code, places)
    leave_out = "::mlpkern::fiber::leaves_out"
    inner = f"({leave_out}(1) || (a < n))"
    assert f"  if (({leave_out}(0) || (a < ({inner} ? a : n)))) a = 0;\n" in switched


def test_the_kernels_of_the_package_have_places():
    folder = FOLDER.parents[2] / "csrc" / "cuda"
    if not folder.is_dir():
        pytest.skip("no sources beside the tests")
    kinds = [
        place.kind
        for path in sorted(folder.rglob("*.cu*"))
        for place in mutations.find(f"cuda/{path.name}", path.read_text("utf-8"))
    ]
    assert kinds.count("check") > 50
    assert kinds.count("wait") >= 1
    barriers = sum(
        mutations.blank(path.read_text("utf-8")).count("__syncthreads();")
        for path in folder.rglob("*.cu*")
    )
    assert kinds.count("barrier") >= barriers > 0
