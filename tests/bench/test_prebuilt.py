"""Native libraries that were built elsewhere: taken where they fit, refused with a reason."""

from __future__ import annotations

import importlib.util
import json
import sys
import sysconfig
import zipfile

import pytest
import setuptools

from bench import ROOT
from bench.gpu import prebuilt

NATIVE = f"mlpkern/_C{sysconfig.get_config_var('EXT_SUFFIX')}"


@pytest.fixture
def tree(tmp_path):
    """A package with sources, and no library."""
    for name, text in {
        "CMakeLists.txt": "project()",
        "csrc/tensor.cpp": "int tensor;",
        "csrc/cuda/sort.cu": "int sort;",
        "mlpkern/ops.py": "",
    }.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    return tmp_path / "tree"


def record(tree, **more):
    cuda = {"built": True, "reason": "", "nvcc": "nvcc 13.0", "targets": "sm_90", "note": ""}
    sources = prebuilt.build_record().sources(tree)
    return {"native": True, "sources": sources, "date": "2026-11-30", "cuda": cuda, **more}


def wheel(folder, written, native=NATIVE):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "mlpkern-0.1.0-cp3-cp3-linux_x86_64.whl", "w") as archive:
        archive.writestr(native, "native")
        archive.writestr("mlpkern/_cuda.so", "cuda")
        archive.writestr("mlpkern/_build_info.json", json.dumps(written))
    return folder


# The hash


def test_the_hash_is_of_what_is_compiled(tree):
    sources = prebuilt.build_record().sources
    seen = {sources(tree)}
    (tree / "mlpkern" / "ops.py").write_text("import torch")
    assert sources(tree) in seen
    (tree / "csrc" / "cuda" / "sort.cu").write_text("int sort2;")
    seen.add(sources(tree))
    (tree / "csrc" / "tensor.cpp").rename(tree / "csrc" / "tensors.cpp")
    seen.add(sources(tree))
    (tree / "CMakeLists.txt").write_text("project(mlpkern)")
    seen.add(sources(tree))
    assert len(seen) == 4


def test_a_build_of_this_tree_has_its_hash():
    built = prebuilt.build_record().read()
    if not built.get("sources"):
        pytest.skip("the package was not built here")
    assert len(built["sources"]) == len(prebuilt.build_record().sources(ROOT)) == 16


# Taking


def test_libraries_of_the_same_sources_are_taken(tree, tmp_path):
    folder = wheel(tmp_path / "libraries", record(tree))
    assert "sm_90" in prebuilt.take(folder, tree)
    assert (tree / NATIVE).read_text() == "native"
    assert (tree / "mlpkern" / "_cuda.so").read_text() == "cuda"
    assert json.loads((tree / "mlpkern" / "_build_info.json").read_text()) == record(tree)
    assert prebuilt.take(folder, tree).startswith("already there")
    (tree / "mlpkern" / "_cuda.so").unlink()
    assert prebuilt.take(folder, tree).startswith("taken")


def test_libraries_of_other_sources_are_refused(tree, tmp_path):
    folder = wheel(tmp_path / "libraries", record(tree))
    (tree / "csrc" / "tensor.cpp").write_text("long tensor;")
    with pytest.raises(prebuilt.Unusable, match="built from other sources") as refused:
        prebuilt.take(folder, tree)
    assert refused.value.cuda is None
    assert not (tree / NATIVE).exists()


def test_libraries_that_lie_there_from_other_sources_are_replaced(tree, tmp_path):
    folder = wheel(tmp_path / "libraries", record(tree))
    prebuilt.take(folder, tree)
    (tree / "csrc" / "tensor.cpp").write_text("long tensor;")
    (tree / NATIVE).write_text("stale")
    wheel(folder, record(tree))
    assert prebuilt.take(folder, tree).startswith("taken")
    assert (tree / NATIVE).read_text() == "native"


def test_for_another_python_the_library_without_python_is_offered(tree, tmp_path):
    folder = wheel(tmp_path / "libraries", record(tree), "mlpkern/_C.cpython-27-x86_64.so")
    with pytest.raises(prebuilt.Unusable, match=f"another Python: no {NATIVE}") as refused:
        prebuilt.take(folder, tree)
    assert refused.value.cuda.read_text() == "cuda"
    assert refused.value.cuda.with_name("_build_info.json").exists()
    assert not (tree / "mlpkern" / "_cuda.so").exists()


def test_nothing_prepared_is_said(tree, tmp_path):
    with pytest.raises(prebuilt.Unusable, match="no libraries were prepared"):
        prebuilt.take(tmp_path / "nowhere", tree)


def test_what_lies_ready_for_another_machine_is_told(tree, tmp_path):
    folder = wheel(tmp_path / "libraries", record(tree), "mlpkern/_C.cpython-27-x86_64.so")
    assert prebuilt.prepared(folder, tree).startswith("mlpkern-0.1.0-cp3-cp3-linux_x86_64.whl: ")
    (tree / "csrc" / "tensor.cpp").write_text("long tensor;")
    with pytest.raises(prebuilt.Unusable, match="built from other sources"):
        prebuilt.prepared(folder, tree)


def test_a_python_is_found_by_path_and_refused_by_name():
    assert prebuilt.interpreter(sys.executable) == sys.executable
    with pytest.raises(SystemExit, match=r"no Python 9\.9"):
        prebuilt.interpreter("9.9")


# What setup.py makes of MLPKERN_CUDA_LIBRARY


@pytest.fixture
def setup(tree, monkeypatch):
    """setup.py as a module, of that tree; it sets nothing up."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("setup_of_mlpkern", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded = module.load_build_record()
    monkeypatch.setattr(module, "ROOT", tree)
    monkeypatch.setattr(module, "load_build_record", lambda: loaded)
    return module


def built(setup, tree, tmp_path, monkeypatch):
    """What a build records of CUDA, and the commands that it runs."""
    commands = []
    configured = {"cuda": {"reason": "switched off", "nvcc": "", "targets": "", "note": ""}}
    text = json.dumps(configured)

    def run(command, what=""):
        commands.append(command)
        (tmp_path / "build" / "configured.json").write_text(text)

    monkeypatch.setattr(setup, "run", run)
    return setup.build(tmp_path / "build", "native")["cuda"], commands


def test_a_given_library_needs_no_nvcc(setup, tree, tmp_path, monkeypatch):
    library = tmp_path / "given" / "_cuda.so"
    library.parent.mkdir()
    library.write_text("cuda")
    monkeypatch.setenv("MLPKERN_CUDA_LIBRARY", str(library))
    library.with_name("_build_info.json").write_text(json.dumps(record(tree)))
    cuda, commands = built(setup, tree, tmp_path, monkeypatch)
    assert (cuda["built"], cuda["reason"], cuda["targets"]) == (True, "", "sm_90")
    assert cuda["library"] == library
    assert cuda["note"] == "built elsewhere, 2026-11-30"
    assert "-DMLPKERN_CUDA=OFF" in commands[0]
    assert not any("_cuda" in command for command in commands)
    monkeypatch.delenv("MLPKERN_CUDA_LIBRARY")
    cuda, commands = built(setup, tree, tmp_path, monkeypatch)
    assert "-DMLPKERN_CUDA=ON" in commands[0]  # the cache would keep the other


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "no _build_info.json beside it"),
        ({"sources": "0123456789abcdef"}, r"other sources \(0123456789abcdef, here "),
    ],
)
def test_a_given_library_that_does_not_fit_is_refused(setup, tree, tmp_path, written, reason):
    library = tmp_path / "_cuda.so"
    with pytest.raises(setup.NativeBuildError, match="which was not found"):
        setup.built_elsewhere(library)
    library.write_text("cuda")
    if written:
        text = json.dumps(record(tree, **written))
        library.with_name("_build_info.json").write_text(text)
    with pytest.raises(setup.NativeBuildError, match=reason):
        setup.built_elsewhere(library)
