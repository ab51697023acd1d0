"""Installing the package: the build record, and editable installs where something is missing.

Most cases build in a copy of the tree and install into a separate environment, layered over the
running one so that torch need not be installed again. They are marked ``packaging``:
``pytest -m packaging tests/packaging``.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from support.installing import Environment, libraries, packaging, read_record

from mlpkern import build_record

# Every run


def test_build_record_is_complete() -> None:
    record = build_record.read()
    assert record["native"] == (record["reason"] == "")
    assert set(record["cuda"]) >= {"built", "reason"}
    assert record["cuda"]["built"] == (record["cuda"]["reason"] == "")
    for key in ("compiler", "isas", "build_seconds", "python", "version", "date", "output"):
        assert key in record
    if record["native"]:
        assert record["isas"]
        assert record["build_seconds"] > 0


def test_no_record_and_a_broken_one_read_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "_build_info.json"
    assert build_record.read(path) == {}
    for text in ("", "[1]", '{"native": tr'):
        path.write_text(text)
        assert build_record.read(path) == {}


# Editable installs, in this order, in one tree


@packaging
def test_no_compiler_leaves_the_reference_and_a_reason(
    environment: Environment, tree: Path
) -> None:
    nowhere = str(environment.python.parent)  # a PATH without c++, g++, clang++
    environment.install("-e", str(tree), PATH=nowhere)
    assert libraries(tree) == []
    facts = environment.exercise()
    assert Path(facts["file"]).parent == tree / "mlpkern"
    assert facts["build"]["native"] is False
    assert "no C++ compiler" in facts["build"]["reason"]
    assert "no C++ compiler" in facts["backends"]["cpu"]["reason"]
    assert "no C++ compiler" in facts["report"]
    assert facts["explain"].startswith("linear_tanh runs on reference")


@packaging
def test_native_can_be_required(environment: Environment, tree: Path) -> None:
    output = environment.install(
        "-e", str(tree), CXX="/nowhere/g++", MLPKERN_REQUIRE_NATIVE="1", check=False
    )
    assert "MLPKERN_REQUIRE_NATIVE is set" in output
    assert "/nowhere/g++" in output


@packaging
def test_editable_install_builds_the_library(environment: Environment, tree: Path) -> None:
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1")
    facts = environment.exercise()
    assert facts["native"]["loaded"]
    assert facts["native"]["stale"] == ""
    assert facts["explain"].startswith("linear_tanh runs on cpu")
    assert not facts["build"]["cuda"]["built"] or libraries(tree).count("_cuda.so") == 1


@packaging
def test_second_install_in_place_compiles_nothing(environment: Environment, tree: Path) -> None:
    objects = sorted((tree / "build").rglob("*.o"))
    before = {path: path.stat().st_mtime_ns for path in objects}
    assert len(before) > 5
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1")
    assert {path: path.stat().st_mtime_ns for path in objects} == before
    assert environment.exercise()["native"]["loaded"]


@packaging
def test_offline_rebuild_without_isolation(environment: Environment, tree: Path) -> None:
    for name in ("setuptools", "pybind11", "cmake", "ninja"):
        pytest.importorskip(name, reason=f"{name} is not installed (the extra `dev` has it)")
    source = tree / "csrc" / "binding" / "bindings.cpp"
    source.write_text(source.read_text() + "\n// touched\n")
    before = next((tree / "mlpkern").glob("_C*.so")).stat().st_mtime_ns
    environment.install(
        *("--no-build-isolation", "-e", str(tree)),
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS="",
        # These packages' tools are in the outer environment. A ninja of another version would
        # compile everything again.
        PATH=f"{sysconfig.get_path('scripts')}:/usr/bin:/bin",
        MLPKERN_REQUIRE_NATIVE="1",
    )
    assert next((tree / "mlpkern").glob("_C*.so")).stat().st_mtime_ns > before
    assert environment.exercise()["native"]["loaded"]


@packaging
def test_a_broken_kernel_removes_the_stale_library(environment: Environment, tree: Path) -> None:
    assert libraries(tree)
    kernel = tree / "csrc" / "cpu" / "linear_tanh.cpp"
    text = kernel.read_text()
    kernel.write_text(text + "\n#error deliberately broken\n")
    try:
        environment.install("-e", str(tree))
    finally:
        kernel.write_text(text)
    assert libraries(tree) == []
    record = read_record(tree)
    assert record["native"] is False
    assert "csrc/cpu/linear_tanh.cpp" in record["reason"]
    assert "deliberately broken" in record["reason"]
    assert any("deliberately broken" in line for line in record["output"])
    facts = environment.exercise()
    assert facts["explain"].startswith("linear_tanh runs on reference")
    assert "deliberately broken" in facts["report"]


@packaging
def test_a_mended_kernel_builds_again(environment: Environment, tree: Path) -> None:
    environment.install("-e", str(tree), MLPKERN_REQUIRE_NATIVE="1")
    assert environment.exercise()["native"]["loaded"]
    assert read_record(tree)["reason"] == ""
