"""What stands above the cases: machine, versions, protocol, and the limits of the machine."""

from __future__ import annotations

from bench.core.load import loaded
from bench.shown.text import Result, isa_text, on_gpu, percent, seconds, wrapped

CPU_PROTOCOL = "medians of interleaved samples of at least {:.3g} ms"
GPU_PROTOCOL = (
    "medians of interleaved samples, per call as a loop pays for it and on the GPU alone by "
    "events; inputs rotated where the cache would hold them"
)
CPU_QUICK = (
    "fewer cases and samples; no max-autotune, torch.compile with all threads only, not under the "
    "other malloc"
)
GPU_QUICK = "fewer cases and samples; no max-autotune"


def header_lines(result: Result) -> list[str]:
    machine, settings, gpu = result["machine"], result["settings"], on_gpu(result)
    protocol = GPU_PROTOCOL if gpu else CPU_PROTOCOL.format(settings["min_sample_s"] * 1e3)
    cores = f"{machine['cpu']}, {machine['cores']} cores"
    if gpu:
        known = (f"{k} {v}" for k, v in machine["gpu"].items() if k != "name" and v is not None)
        lines = [f"machine   {machine['gpu']['name']}: {', '.join(known)}", f"          {cores}"]
    else:
        isas = f"torch {machine['torch_isa']}, mlpkern {isa_text(machine)}"
        lines = [f"machine   {cores}, {machine['threads']} threads used, {isas}"]
    lines += [
        "versions  " + ", ".join(f"{k} {v}" for k, v in result["versions"].items() if v),
        f"run       {result['date']}, commit {result['commit'] or 'unknown'}, {result['command']}",
        f"protocol  forward + backward through autograd; {protocol}",
    ]
    if told := load_text(result):
        lines.append(f"load      {told}")
    if settings["quick"]:
        lines.append(f"quick     {GPU_QUICK if gpu else CPU_QUICK}")
    left_out = [] if settings["compile"] else ["torch.compile"]
    if not (settings.get("jax") and result["versions"].get("jax")):
        left_out.append("JAX")
    if left_out and not gpu:
        lines.append(f"partial   without {' and '.join(left_out)}, so the ratios flatter mlpkern")
    return [line for long in lines for line in wrapped(long)]


def load_text(result: Result) -> str:
    """What others used of the machine, as far as the run has come; empty where it is not known."""
    load = result.get("load") or {}
    if load.get("busy") is None:
        return ""
    text = (
        f"other programs used {percent(load['busy'])} of the CPU time (at worst "
        f"{percent(load['most'])}), its host {percent(load['stolen'])}"
    )
    if not loaded(load):
        return text
    return f"LOADED MACHINE: {text}; rows with several threads suffer most"


def limit_lines(limits: Result) -> list[str]:
    lines = [f"          {text}" for text in limit_texts(limits)]
    lines[0] = lines[0].replace(" " * 10, "limits    ", 1)
    return [line for long in lines for line in wrapped(long)]


def limit_texts(limits: Result) -> list[str]:
    """Copy bandwidth, matrix products, and what else was measured of a CPU or a GPU."""
    gpu = "graph_s" in limits
    digits = 0 if gpu else 1
    copies = ", ".join(
        f"{level} ({limits['copy_bytes'][level] / 1e6:.4g} MB) {rate / 1e9:.{digits}f} GB/s"
        for level, rate in limits["copy"].items()
    )
    peaks = ", ".join(
        f"{name} {rate / 1e12:.3g} TFLOP/s" if gpu else f"{name} {rate / 1e9:.0f} GFLOP/s"
        for name, rate in limits["peak"].items()
    )
    if not gpu:
        rates = limits.get("fma", {}).items()
        fma = "multiply-adds in registers: " + ", ".join(
            f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates
        )
        touch = f"first touch of a fresh page: {seconds(limits['first_touch_s'])}"
        products = f"matrix product: {peaks}"
        copied = f"copy, {limits['threads']} threads: {copies}"
        return [copied, products, *([fma] if rates else []), touch]
    graphs = ", ".join(f"{nodes}: {seconds(s)}" for nodes, s in limits["graph_s"].items())
    overheads = (
        f"a launch {seconds(limits['launch_s'])}, small kernels in a stream "
        f"{seconds(limits['kernel_s'])} apart, a CUDA graph of small kernels {graphs}"
    )
    return [f"copy: {copies}", f"matrix product: {peaks}", overheads]
