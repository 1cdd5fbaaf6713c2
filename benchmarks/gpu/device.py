"""What a measurement ran on: the torch that is there and its first CUDA device, as JSON.

python benchmarks/gpu/device.py
"""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any

__all__ = ["facts"]


def _driver() -> str:
    """The kernel driver's version; empty where it does not say."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else ""


def facts() -> dict[str, Any]:
    """Facts about torch (``torch`` is empty without one) and the device (None without one)."""
    found: dict[str, Any] = {"python": platform.python_version(), "torch": "", "device": None}
    try:
        import torch
    except ImportError as error:
        return {**found, "reason": f"torch cannot be imported: {error}"}
    found |= {
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda or ""),
        "cxx11_abi": bool(torch.compiled_with_cxx11_abi()),
    }
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        return {**found, "reason": f"torch {torch.__version__} (built with {built}) sees no GPU"}
    device = torch.cuda.get_device_properties(0)
    found["device"] = {
        "name": device.name,
        "capability": f"{device.major}.{device.minor}",
        "multiprocessors": device.multi_processor_count,
        "memory_bytes": device.total_memory,
        "l2_bytes": device.L2_cache_size,
        "driver": _driver(),
    }
    return found


if __name__ == "__main__":
    print(json.dumps(facts()))
