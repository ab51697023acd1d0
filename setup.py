"""Builds the native library with CMake and Ninja; the project's metadata is in pyproject.toml.

An install never fails because a working compiler is missing: the reason is written to
``mlpkern/_build_info.json`` (``mlpkern info`` prints it) and the package uses its other backends.
Environment variables:

- ``MLPKERN_REQUIRE_NATIVE=1``: a failed native build is an error;
- ``MLPKERN_REQUIRE_CUDA=1``: it is an error if ``_cuda.so`` is not built;
- ``MLPKERN_ISAS``: the instruction sets of the CPU kernels: ``native`` (the best that this machine
  runs), ``all``, or a list such as ``avx512,avx2``; by default native for an editable or in-place
  build, and all for a wheel, also that of ``pip install .``: a wheel may go to another machine;
- ``MLPKERN_CUDA_ARCHITECTURES``: what nvcc compiles for: ``all`` (80, 86, 89, 90, 100, 120 and PTX
  for newer GPUs), ``native`` (the GPUs of this machine) or a list such as ``80-real,90``, with the
  meaning of CMAKE_CUDA_ARCHITECTURES; by default native, which is nothing where no GPU is visible;
- ``MLPKERN_CUDA_LIBRARY``: a ``_cuda.so`` that another build has made from the same sources, used
  unchanged, without nvcc; the ``_build_info.json`` of that build must be beside it;
- ``CUDACXX``, ``CUDA_HOME``: which nvcc; ``CUDAHOSTCXX``: its C++ compiler; without a working CUDA
  toolkit only ``_cuda.so`` is missing;
- ``MLPKERN_CMAKE_ARGS``: more arguments for CMake, for example ``-DMLPKERN_CUDA=OFF``;
- ``MAX_JOBS``: at most this many compilers at once;
- ``CXX``, ``CXXFLAGS``: as for CMake.

``_build_info.json`` holds: native (bool), reason (str, "" when native), output (last lines of a
failed build), compiler, isas, cuda ({built, reason, output, nvcc, targets, note: what was left out
and why, or where the library is from}), cmake, processor, sources (a hash of what was compiled),
build_seconds, python, version, date.
"""

import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD_DIR = ROOT / "build" / f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"


def load_build_record():
    """mlpkern/build_record.py by itself: importing the package would need torch."""
    path = ROOT / "mlpkern" / "build_record.py"
    spec = importlib.util.spec_from_file_location("mlpkern_build_record", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NativeBuildError(Exception):
    """The native library cannot be built; the message says why, output holds the build's tail."""

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.output = output.strip().splitlines()[-25:]


def find_tool(name: str) -> str:
    """Path of cmake or ninja: the running environment's PyPI package, else the one on PATH."""
    try:
        module = __import__(name)
        bin_dir = Path(getattr(module, "CMAKE_BIN_DIR", None) or module.BIN_DIR)
        if (bin_dir / name).is_file():
            return str(bin_dir / name)
    except (ImportError, AttributeError):
        pass
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if not found:
        raise NativeBuildError(f"{name} was not found (pip install {name})")
    return found


def find_compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        # CXX may carry a launcher or flags ("ccache g++"): CMake takes the variable as it is.
        if shutil.which(shlex.split(name)[0]):
            return name
    hint = "CXX names it" if os.environ.get("CXX") else "install g++ or clang++, or set CXX"
    raise NativeBuildError(f"no C++ compiler: {', '.join(names)} not found ({hint})")


def pybind11_arguments(build_dir: Path) -> list:
    """Where CMake finds pybind11: a copy in the build folder.

    An isolated build has pybind11 at a new path each time, which would compile the bindings again.
    """
    try:
        import pybind11
    except ImportError:
        return []  # a system-wide copy may be where CMake looks by itself
    copy = build_dir / f"pybind11-{pybind11.__version__}"
    if not copy.is_dir():
        shutil.copytree(Path(pybind11.__file__).parent, copy)
    return [f"-Dpybind11_DIR={copy / 'share' / 'cmake' / 'pybind11'}"]


def is_set(variable: str) -> bool:
    value = os.environ.get(variable) or "0"
    if value not in ("0", "1"):
        raise SystemExit(f"{variable} must be 0 or 1, got {value!r}")
    return value == "1"


def jobs() -> list:
    """CMake's arguments for the number of compilers at once."""
    value = os.environ.get("MAX_JOBS")
    if value and not (value.isascii() and value.isdigit() and int(value) > 0):
        raise NativeBuildError(f"MAX_JOBS must be a whole number above 0, got {value!r}")
    return ["--parallel", value] if value else []


def cmake_arguments() -> list:
    try:
        return shlex.split(os.environ.get("MLPKERN_CMAKE_ARGS", ""))
    except ValueError as error:
        raise NativeBuildError(f"MLPKERN_CMAKE_ARGS cannot be split: {error}") from None


def run(command: list, what: str = "the native build") -> None:
    """Runs a build step; on failure the first error of its output is the reason."""
    print("+", shlex.join(command), flush=True)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},  # compilers translate the word "error" elsewhere
    )
    print(done.stdout, flush=True)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines()]
        pattern = r"\b(error|fatal)\b\s*:|undefined reference"  # nvcc and ptxas say "fatal   :"
        compiler = [line for line in lines if re.search(pattern, line, re.I)]
        cmake = [i for i, line in enumerate(lines) if line.startswith("CMake Error")]
        if cmake and not compiler:
            compiler = [" ".join(line for line in lines[cmake[0] : cmake[0] + 4] if line)]
        first = compiler[0] if compiler else f"exit status {done.returncode}"
        first = first.replace(f"{ROOT}{os.sep}", "")
        raise NativeBuildError(f"{what} failed: {first}", done.stdout)


def build(build_dir: Path, isas: str) -> dict:
    """Configures and compiles; returns CMake's report on the configuration.

    ``isas``: the instruction sets to build for where MLPKERN_ISAS does not say it.
    """
    cmake, ninja, compiler = find_tool("cmake"), find_tool("ninja"), find_compiler()
    # CMake ignores a changed compiler in an existing cache, so such a change starts afresh.
    given = os.environ.get("MLPKERN_CUDA_LIBRARY", "")
    keys = ("CXX", "CXXFLAGS", "LDFLAGS", "MLPKERN_CMAKE_ARGS")
    setting = json.dumps([str(ROOT), compiler, *(os.environ.get(key, "") for key in keys)])
    stamp = build_dir / "setting.json"
    if build_dir.exists() and (not stamp.exists() or stamp.read_text() != setting):
        shutil.rmtree(build_dir)
    build_dir.mkdir(parents=True, exist_ok=True)
    stamp.write_text(setting)
    configure = [
        *(cmake, "-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja"),
        # The cache would keep the path of an isolated build's ninja, which is gone next time.
        f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DPython_EXECUTABLE={sys.executable}",
        # Always given: the cache keeps the last one.
        f"-DMLPKERN_ISAS={os.environ.get('MLPKERN_ISAS') or isas}",
        f"-DMLPKERN_CUDA_ARCHITECTURES={os.environ.get('MLPKERN_CUDA_ARCHITECTURES', '')}",
        f"-DMLPKERN_CUDA={'OFF' if given else 'ON'}",
        *pybind11_arguments(build_dir),
        *cmake_arguments(),
    ]
    try:
        run(configure)
    except NativeBuildError:
        # The cache may name tools or headers that have gone since: once more without it.
        if not (build_dir / "CMakeCache.txt").exists():
            raise
        (build_dir / "CMakeCache.txt").unlink()
        shutil.rmtree(build_dir / "CMakeFiles", ignore_errors=True)
        run(configure)
    configured = json.loads((build_dir / "configured.json").read_text())
    run([cmake, "--build", str(build_dir), "--target", "_C", *jobs()])
    cuda = {"built": False, **configured["cuda"], "library": build_dir / "_cuda.so"}
    try:
        if given:
            cuda.update(built_elsewhere(Path(given)), built=True, library=Path(given))
        elif not cuda["reason"]:
            run([cmake, "--build", str(build_dir), "--target", "_cuda", *jobs()], "nvcc")
            cuda["built"] = True
    except NativeBuildError as error:
        cuda.update(reason=str(error), output=error.output)
    return {**configured, "cuda": cuda}


def built_elsewhere(library: Path) -> dict:
    """The record beside a given _cuda.so; refuses one built from other sources.

    Whether it fits the _C beside it is checked again when it is loaded.
    """
    record = load_build_record()
    named = f"MLPKERN_CUDA_LIBRARY names {library}"
    if not library.is_file():
        raise NativeBuildError(f"{named}, which was not found")
    built = record.read(library.with_name("_build_info.json"))
    if not built.get("cuda", {}).get("built"):
        raise NativeBuildError(f"{named}, but no _build_info.json beside it speaks of its build")
    here = record.sources(ROOT)
    if built.get("sources") != here:
        there = built.get("sources", "unknown")
        raise NativeBuildError(f"{named}, built from other sources ({there}, here {here})")
    note = f"built elsewhere, {built.get('date', 'date unknown')}"
    return {**built["cuda"], "note": "; ".join(filter(None, [built["cuda"].get("note"), note]))}


def replace(target: Path, content: bytes) -> None:
    """Writes a file in one step: a process that has the old one loaded keeps it intact."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, target)


class CMakeBuild(build_ext):
    """``build_ext`` by CMake; a failure is recorded instead of raised."""

    def run(self) -> None:
        in_place = self.inplace or self.editable_mode
        package = (ROOT if in_place else Path(self.build_lib).resolve()) / "mlpkern"
        required = {kind: is_set(f"MLPKERN_REQUIRE_{kind}") for kind in ("NATIVE", "CUDA")}
        started = time.monotonic()
        info = {"native": True, "reason": "", "output": [], "compiler": "", "isas": []}
        info["cuda"] = {"built": False, "reason": "the native build failed"}
        failure = None
        try:
            info.update(build(BUILD_DIR, "native" if in_place else "all"))
            info.update(sources=load_build_record().sources(ROOT))
            cuda_library = info["cuda"].pop("library")
            cuda = cuda_library.read_bytes() if info["cuda"]["built"] else b""
            library = next(BUILD_DIR.glob(f"_C*{sysconfig.get_config_var('EXT_SUFFIX')}"))
        except (NativeBuildError, OSError) as error:
            failure = error
            output = error.output if isinstance(error, NativeBuildError) else []
            info.update(native=False, reason=str(error), output=output)
            for stale in [*package.glob("_C*.so"), *package.glob("_cuda*.so")]:
                stale.unlink()
        else:
            replace(package / library.name, library.read_bytes())
            (package / "_cuda.so").unlink(missing_ok=True)
            if cuda:
                replace(package / "_cuda.so", cuda)
        info.update(
            build_seconds=round(time.monotonic() - started, 1),
            python=platform.python_version(),
            version=self.distribution.get_version(),
            date=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        )
        record = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
        replace(package / "_build_info.json", record.encode())
        if required["NATIVE"] and failure is not None:
            raise SystemExit(f"MLPKERN_REQUIRE_NATIVE is set, and {failure}")
        if required["CUDA"] and not info["cuda"]["built"]:
            raise SystemExit(f"MLPKERN_REQUIRE_CUDA is set, and {info['cuda']['reason']}")
        if failure is not None:
            print(f"mlpkern: built without the native library: {failure}", file=sys.stderr)

    def get_outputs(self) -> list:
        package = Path(self.build_lib) / "mlpkern"
        found = [*package.glob("_C*.so"), *package.glob("_cuda.so")]
        return [str(path) for path in [*found, package / "_build_info.json"] if path.exists()]

    def get_output_mapping(self) -> dict:
        return {}

    def get_source_files(self) -> list:
        return []  # MANIFEST.in lists them


# The extension has no sources here; it makes the wheel one for this platform.
setup(
    license="MIT",
    ext_modules=[Extension("mlpkern._C", [])],
    cmdclass={"build_ext": CMakeBuild},
)
