"""Kernels once per CUDA: what N torch variants of one CUDA cost, shared and whole.

Shared is what the project does: one build of the kernels, and one binding for each torch. Whole is
what it would cost to compile the kernels again for each torch. Both are measured in this run,
without a compiler cache, each build in a fresh folder. A binding may take 15 s.

Example:
    python benchmarks/variants_cost.py     # with nvcc in the environment
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from flashinfer_build import bootstrap

if __name__ == "__main__":
    bootstrap.ensure(__file__)

from conda_bridge.system import machine
from flashinfer_build import toolchain
from flashinfer_build.compile import compiler_cache
from flashinfer_build.compile.measure import find_nvcc
from flashinfer_build.compile.project import Project
from flashinfer_build.label import Variant
from flashinfer_build.pipeline.ledger import file_digest
from flashinfer_build.toolchain.unpacked import SITE

MINORS = ("2.11", "2.12", "2.13", "2.14")
BINDING_LIMIT_S = 15.0


@dataclass(frozen=True)
class Cost:
    """What one variant costs.

    Attributes:
        variant: its id.
        torch: its torch, in full.
        kernels_s, kernels_cpu_s: building the kernels for it alone, wall and CPU.
        binding_s, binding_cpu_s: building its binding.
    """

    variant: str
    torch: str
    kernels_s: float
    kernels_cpu_s: float
    binding_s: float
    binding_cpu_s: float


def _timed(build: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of `build`, which runs its compilers as child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    build()
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(minors: Sequence[str]) -> list[Cost]:
    """Builds the kernels and the binding of every variant, one after the other."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise SystemExit("no nvcc: set CUDA_HOME")
    costs = []
    digests = set()
    with tempfile.TemporaryDirectory() as scratch:
        for minor in minors:
            major, number = (int(part) for part in minor.split("."))
            variant = Variant(nvcc.release, (major, number))
            tools = toolchain.provide(toolchain.Request(variant), toolchain.providers())
            environ = {
                **os.environ,
                compiler_cache.VARIABLE: "none",
                "FLASHINFER_EXPECT_VARIANT": variant.id,
                "FLASHINFER_TORCH_DIR": str(tools.trees[0] / SITE / "torch"),
            }
            project = Project.measure(environ)
            folder = Path(scratch) / variant.id
            library = folder / "prefix" / "lib"
            kernels = _timed(partial(project.build_library, folder / "prefix", folder / "library"))
            binding = _timed(
                partial(project.build_binding, folder / "_C.so", folder / "binding", library)
            )
            digests.add(file_digest(library / "libflashinfer.so"))
            costs.append(Cost(variant.id, tools.torch_version, *kernels, *binding))
            print(
                f"{variant.id}: kernels {kernels[0]:.1f} s, binding {binding[0]:.1f} s", flush=True
            )
    if len(digests) != 1:
        raise SystemExit("the kernels differ with the torch they are built beside")
    return costs


def table(costs: Sequence[Cost]) -> str:
    """The cost of the first N variants, shared and whole, and each binding beside its limit."""
    bindings = list(accumulate(cost.binding_s for cost in costs))
    whole = list(accumulate(cost.kernels_s + cost.binding_s for cost in costs))
    lines = [f"{'N':>2} {'shared s':>9} {'whole s':>9} {'saved':>6}   the last binding"]
    for count, cost in enumerate(costs, start=1):
        shared = costs[0].kernels_s + bindings[count - 1]
        saved = 1 - shared / whole[count - 1]
        within = "within" if cost.binding_s <= BINDING_LIMIT_S else "OVER"
        lines.append(
            f"{count:2} {shared:9.1f} {whole[count - 1]:9.1f} {saved:6.0%}   {cost.variant}"
            f" {cost.binding_s:.1f} s ({cost.binding_cpu_s:.1f} s of CPU),"
            f" {within} the limit of {BINDING_LIMIT_S:.0f} s"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", nargs="+", default=MINORS, metavar="MINOR", help="in order")
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "benchmarks/results/variants_cost.json"
    )
    args = parser.parse_args()
    project = Project.measure()
    facts = {"nvcc": project.nvcc.version if project.nvcc else "", "archs": project.arch_list}
    costs = measure(args.torch)
    print(machine.describe())
    print(table(costs))
    result = {
        "machine": machine.describe(),
        "load_average": os.getloadavg(),
        **facts,
        "binding_limit_s": BINDING_LIMIT_S,
        "variants": [asdict(cost) for cost in costs],
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
