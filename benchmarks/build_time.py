"""The seconds of every step of ``scripts/build.py``, in fresh copies of the sources.

Warm: the CPU variant with what the cache already holds, several times; the limit is 60 s on two
cores from the start to the verified wheel. Cold: the default variant with an empty cache, once.

Examples:
    python benchmarks/build_time.py            # warm, three runs
    python benchmarks/build_time.py --cold
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from conda_bridge.system import machine

LIMIT_S = 60.0
_UNWANTED = shutil.ignore_patterns(
    "__pycache__", "_build_info.py", "*.so", "build", "dist*", ".git", ".*_cache", "*.egg-info"
)


def _step(stage: str) -> str:
    """The step of a stage such as ``cpu_torch213/publish-1a2b3c4d``; the digest is the folder's."""
    step = stage.split("/")[1]
    return "publish" if step.startswith("publish-") else step


def run(variant: str, cache: Path | None) -> dict[str, Any]:
    """One build of `variant` in a fresh copy of the sources; returns its JSON and wall seconds."""
    environ = dict(os.environ)
    if cache:
        environ["FLASHINFER_CACHE_DIR"] = str(cache)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "project"
        shutil.copytree(ROOT, copy, ignore=_UNWANTED)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "scripts/build.py", "--json", "--variant", variant],
            cwd=copy,
            env=environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        wall = time.monotonic() - started
    if done.returncode != 0:
        raise SystemExit(f"the build failed:\n{done.stdout}")
    stages = json.loads(done.stdout)["variants"][variant]["stages"]
    return {
        "wall_s": wall,
        "stages": {_step(stage["stage"]): stage["seconds"] for stage in stages},
    }


def to_verified_wheel(result: dict[str, Any]) -> float:
    """Seconds until the wheel was verified: everything but what installs and publishes."""
    later = ("try-conda", "try-pip", "publish")
    rest = sum(s for name, s in result["stages"].items() if name.startswith(later))
    return float(result["wall_s"] - rest)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cold", action="store_true", help="the default variant, empty cache")
    parser.add_argument("--runs", type=int, default=3, help="of the warm build")
    args = parser.parse_args()
    print(machine.describe())
    if args.cold:
        name, variant = "cold", "cu130_torch213"
        with tempfile.TemporaryDirectory() as cache:
            results = [run(variant, Path(cache))]
    else:
        name, variant = "warm", "cpu_torch213"
        run(variant, None)  # fills the cache where it is empty
        results = [run(variant, None) for _ in range(args.runs)]
    print(f"{name}, {variant}: median of {len(results)}")
    for stage in results[0]["stages"]:
        seconds = statistics.median(result["stages"][stage] for result in results)
        print(f"  {stage:24} {seconds:7.1f} s")
    wall = statistics.median(result["wall_s"] for result in results)
    verified = statistics.median(map(to_verified_wheel, results))
    limit = f"  limit {LIMIT_S:.0f} s" if not args.cold else ""
    print(f"  {'to the verified wheel':24} {verified:7.1f} s{limit}")
    print(f"  {'all':24} {wall:7.1f} s")
    path = ROOT / "benchmarks" / "results" / f"build_time_{name}.json"
    path.parent.mkdir(exist_ok=True)
    summary = {
        "machine": machine.describe(),
        "variant": variant,
        "runs": results,
        "median_wall_s": wall,
        "median_to_verified_wheel_s": verified,
    }
    path.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
