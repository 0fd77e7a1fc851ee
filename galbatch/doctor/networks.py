"""The engines on this machine: whether they give what the CPU gives, and how many passes a second they make."""

from __future__ import annotations

from galbatch import models
from galbatch.doctor.findings import Finding

__all__ = ["agreement", "passes"]

SHIPPED = ("demo:gampen", "demo:sfnet")

TOLERANCES = {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.05}
"""The differences that rounding makes, as tests/gpu allows them; other masks make some of order 1."""

PASSES = {"cpu": 4, "cuda": 512}
MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}


def agreement(device: str) -> Finding:
    """Return whether masks and outputs of the shipped bundles are on a device those of the scripts on the CPU."""
    rows, data = [], []
    precisions = ("float32", "float16") if device == "cuda" else ("float32",)
    for name in SHIPPED:
        for engine in ("torchscript-float32", *(f"rebuilt-{one}" for one in precisions)):
            if name == "demo:sfnet" and not engine.endswith("float32"):
                continue  # never chosen: rounding decides which of its features fire
            difference = models.device_difference(name, engine, device)
            tolerance = TOLERANCES[engine.partition("-")[2]]
            verdict = "as on the CPU" if difference <= tolerance else "NOT as on the CPU"
            rows.append(
                (
                    name,
                    f"{engine} on {device}: {verdict}, differs by {difference:.1g} (allowed {tolerance:g})",
                )
            )
            data.append(
                {
                    "bundle": name,
                    "engine": engine,
                    "device": device,
                    "difference": difference,
                    "tolerance": tolerance,
                }
            )
    return Finding(tuple(rows), {"agreement": data})


def passes(engine: str, size_px: int, device: str, width: float = 1.0) -> Finding:
    """Return the passes a second of an engine with a GaMPEN of the paper's width, or a part of it."""
    side = max(64, round(MATMUL_SIDE[device] * width))
    found = models.measure_speed(size_px, engine, device, n_passes=PASSES[device], width=width, side=side)
    text = f"{found.passes_per_s:.4g} passes/s on {device}, {100 * found.matmul_share:.0f} % of the rate of torch.mm"
    data = {
        "engine": engine,
        "device": device,
        "size_px": size_px,
        "passes_per_s": found.passes_per_s,
        "matmul_share": found.matmul_share,
    }
    return Finding(((f"{size_px} px, {engine}", text),), data)
