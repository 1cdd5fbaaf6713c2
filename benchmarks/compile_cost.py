"""What compiling costs: CPU seconds, peak memory and object size of every translation unit.

The limits for sm_80 and sm_90a together: 15 CPU-minutes and 15 MB for the library, of which
attention may take 10 and 10, the other kernels 6 CPU-minutes; 1.5 GB of memory for a unit. The
binding, which repeats for every torch, may take 15 CPU-seconds.

Example:
    python benchmarks/compile_cost.py     # with nvcc and torch in the environment
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from conda_bridge.system import machine
from flashinfer_build.compile import compiler_cache, prerequisites
from flashinfer_build.compile.project import Project

LIMITS_S = {"attention": 600.0, "kernels": 360.0, "binding": 15.0}
ATTENTION_LIMIT_KB = 10_000.0
LIBRARY_LIMIT_S, LIBRARY_LIMIT_KB, MEMORY_LIMIT_MB = 900.0, 15_000.0, 1_500.0
LIBRARY = "libflashinfer.so"


@dataclass(frozen=True)
class Unit:
    """One compiler call: its part of the build, source, CPU seconds, peak RSS and output size."""

    part: str
    source: str
    cpu_s: float
    peak_mb: float
    object_kb: float


def _measure(part: str, command: str, folder: Path) -> Unit:
    words = command.split()
    process = subprocess.Popen(command, shell=True, cwd=folder)
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{part}: a compiler ended with {process.returncode}")
    output = folder / words[words.index("-o") + 1]
    name = words[words.index("-c") + 1] if "-c" in words else output.name
    return Unit(
        "attention" if "attention" in Path(name).name and part == "kernels" else part,
        name,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        output.stat().st_size / 1024,
    )


def _units(part: str, folder: Path) -> list[Unit]:
    commands = subprocess.run(
        [prerequisites.find_ninja(), "-t", "commands"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [_measure(part, command, folder) for command in commands]


def measure() -> list[Unit]:
    """Every translation unit, one after the other."""
    project = Project.measure({**os.environ, compiler_cache.VARIABLE: "none"})
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        library = project.build_library(top / "prefix", top / "library")
        project.build_binding(top / "_C.abi3.so", top / "binding", library.parent)
        return [*_units("kernels", top / "library"), *_units("binding", top / "binding")]


def table(units: Sequence[Unit]) -> str:
    """The units, the slowest first, and the sums beside the limits."""
    lines = [f"{'part':9} {'source':44} {'CPU s':>7} {'peak MB':>8} {'object kB':>10}"]
    for unit in sorted(units, key=lambda unit: -unit.cpu_s):
        lines.append(
            f"{unit.part:9} {unit.source:44} {unit.cpu_s:7.2f} {unit.peak_mb:8.0f}"
            f" {unit.object_kb:10.0f}"
        )
    for part, limit in LIMITS_S.items():
        total = sum(unit.cpu_s for unit in units if unit.part == part)
        lines.append(f"{part:9} {'together':44} {total:7.2f}   limit {limit:.0f}")
    size = sum(unit.object_kb for unit in units if unit.part == "attention")
    words = f"objects {size:.0f} kB, limit {ATTENTION_LIMIT_KB:.0f}"
    lines.append(f"{'attention':9} {words}")
    library = [unit for unit in units if unit.part != "binding"]
    total = sum(unit.cpu_s for unit in library)
    lines.append(f"{'library':9} {'together':44} {total:7.2f}   limit {LIBRARY_LIMIT_S:.0f}")
    size = sum(unit.object_kb for unit in library if unit.source == LIBRARY)
    lines.append(f"{'library':9} {LIBRARY} {size:.0f} kB, limit {LIBRARY_LIMIT_KB:.0f}")
    peak = max(unit.peak_mb for unit in units)
    lines.append(f"{'all':9} peak memory {peak:.0f} MB, limit {MEMORY_LIMIT_MB:.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "benchmarks/results/compile_cost.json"
    )
    args = parser.parse_args()
    project = Project.measure()
    units = measure()
    print(machine.describe())
    print(table(units))
    result = {
        "machine": machine.describe(),
        "nvcc": project.nvcc.version if project.nvcc else None,
        "archs": project.arch_list,
        "torch": project.torch.version if project.torch else None,
        "units": [asdict(unit) for unit in units],
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
