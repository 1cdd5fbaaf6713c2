"""How long ``import flashinfer`` takes after ``import torch``, in fresh processes.

Example:
    python benchmarks/import_time.py --runs 20 --output benchmarks/results/import_time.json

Run it with a Python that has the built flashinfer installed, with its bytecode, as pip and conda
leave it. The target is under 50 ms. The first process fills the file cache and is not counted. On a
busy machine look at the processor time: the rest is waiting.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TARGET_MS = 50.0

_PROBE = """
import json, time
start = time.perf_counter()
import torch
loaded = time.perf_counter()
import sys
before = set(sys.modules)
begin, cpu_begin = time.perf_counter(), time.process_time()
import flashinfer
end, cpu_end = time.perf_counter(), time.process_time()
after = set(sys.modules)
print(json.dumps({
    "torch_ms": 1e3 * (loaded - start),
    "flashinfer_ms": 1e3 * (end - begin),
    "flashinfer_cpu_ms": 1e3 * (cpu_end - cpu_begin),
    "modules": sorted(after - before),
    "torch": torch.__version__,
    "flashinfer": flashinfer.__version__,
}))
"""


def probe() -> dict[str, Any]:
    """One fresh process, started where no source tree can be taken for the installed package."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], cwd=empty, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"import failed with {sys.executable}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(runs: int) -> dict[str, Any]:
    """Medians and extremes over `runs` processes."""
    probe()
    results = [probe() for _ in range(runs)]
    summary: dict[str, Any] = {
        "runs": runs,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "torch": results[0]["torch"],
        "flashinfer": results[0]["flashinfer"],
        "target_ms": TARGET_MS,
        "modules_loaded": results[0]["modules"],
    }
    for what in ("torch_ms", "flashinfer_ms", "flashinfer_cpu_ms"):
        values = sorted(result[what] for result in results)
        summary[what] = {
            "median": round(statistics.median(values), 2),
            "min": round(values[0], 2),
            "max": round(values[-1], 2),
        }
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10, help="processes to measure (default 10)")
    parser.add_argument("--output", type=Path, help="also write the result there, as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be 1 or more")
    result = measure(options.runs)
    text = json.dumps(result, indent=2)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")
    if options.json:
        print(text)
        return 0
    print(f"flashinfer {result['flashinfer']}, torch {result['torch']}, {options.runs} processes")
    print(f"{'import':<24}{'median ms':>11}{'min':>9}{'max':>9}")
    for name, key in (
        ("torch", "torch_ms"),
        ("flashinfer, after torch", "flashinfer_ms"),
        ("  of that on the CPU", "flashinfer_cpu_ms"),
    ):
        row = result[key]
        print(f"{name:<24}{row['median']:>11.1f}{row['min']:>9.1f}{row['max']:>9.1f}")
    print(f"{'target':<24}{TARGET_MS:>11.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
