"""The report of ``mlpkern info``: what this installation can do, and why not more."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from mlpkern import build_record

PACKAGE = Path(__file__).resolve().parent


def report() -> str:
    """The text of ``mlpkern info``: versions, backends, native library, threads, environment.

    Every part that is missing comes with the reason.
    """
    facts = collect()
    native = facts["native"]
    lines = [f"mlpkern {facts['versions']['mlpkern']}, {PACKAGE}", "", "versions"]
    lines += _table(list(facts["versions"].items())[1:])
    lines += ["", "backends"]
    lines += _table(
        (name, f"available: {it['detail']}" if it["available"] else f"missing: {it['reason']}")
        for name, it in facts["backends"].items()
    )
    lines += ["", "native library (mlpkern._C)"]
    if native["loaded"]:
        kept, limit = (native["cache"][key] >> 20 for key in ("kept_bytes", "limit_bytes"))
        rows = [
            ("instructions", f"{native['isa']} (can run: {', '.join(native['isas']) or 'none'})"),
            ("threads", f"{native['threads']}, pool: {native['thread_pool']}"),
            ("memory pool", f"{kept} MiB kept for reuse, limit {limit} MiB"),
        ]
    else:
        rows = [("not loaded", facts["backends"]["cpu"]["reason"])]
    if facts["build"]:
        rows.append(("built", _built(facts["build"])))
    if native["stale"]:
        rows.append(("out of date", f"{native['stale']} changed since: run `pip install -e .`"))
    lines += _table(rows)
    lines += ["", "environment"]
    lines += _table(facts["environment"].items()) or ["  no MLPKERN_ variable is set"]
    lines += [f"  error: {problem}" for problem in facts["problems"]]
    return "\n".join(lines)


def collect() -> dict[str, Any]:
    """The facts behind ``report()``, JSON-ready: versions, backends, native, build, environment.

    ``problems``: what is wrong with the environment variables. ``build``: the record that setup.py
    wrote (its docstring lists the keys), or {} if there is none.
    """
    from mlpkern.registry import backends, environment_problems

    build = build_record.read()
    return {
        "versions": _versions(build),
        "backends": {
            name: {"available": it.available, "reason": it.reason, "detail": it.detail}
            for name, it in backends().items()
        },
        "native": _native(),
        "build": build,
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith("MLPKERN_")},
        "problems": environment_problems(),
    }


def _versions(build: dict[str, Any]) -> dict[str, str]:
    found = {
        "mlpkern": _version("mlpkern"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "torch": torch.__version__,  # names the build, which the package's record may leave out
    }
    found.update((name, _version(name)) for name in ("numpy", "triton"))
    found["compiler"] = build.get("compiler") or "none used"
    return found


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _native() -> dict[str, Any]:
    """The state of the loaded library; the backend "cpu" says why there may be none."""
    try:
        from mlpkern import _C
    except ImportError:
        return {"loaded": False, "stale": ""}
    return {
        "loaded": True,
        "isa": _C.isa(),
        "isas": list(filter(None, _C.isas_available().split(","))),
        "threads": _C.num_threads(),
        "thread_pool": _C.parallel_backend(),
        "cache": dict(_C.cache_info()),
        "stale": _changed_since_build(),
    }


def _changed_since_build() -> str:
    """The first source of an editable install that is newer than its library, "" if none is."""
    root = PACKAGE.parent
    record = PACKAGE / build_record.PATH.name
    if not (root / "CMakeLists.txt").exists() or not record.exists():
        return ""
    built = record.stat().st_mtime
    for path in [root / "CMakeLists.txt", *sorted((root / "csrc").rglob("*"))]:
        if path.is_file() and path.stat().st_mtime > built:
            return path.relative_to(root).as_posix()
    return ""


def _built(build: dict[str, Any]) -> str:
    cuda = build.get("cuda", {})
    parts = [build.get("date", "at an unknown time"), f"in {build.get('build_seconds', '?')} s"]
    if build.get("native"):
        parts.append(f"for {', '.join(build['isas'])}")
    else:
        parts.append("without the native library")
    if cuda.get("built"):
        parts.append(f"with CUDA for {cuda.get('targets', 'unknown targets')}")
        parts += [cuda["note"]] if cuda.get("note") else []
    else:
        parts.append(f"no CUDA: {cuda.get('reason', 'unknown')}")
    return ", ".join(parts)


def _table(rows: Any) -> list[str]:
    pairs = list(rows)
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in pairs]
