"""Locks requirements/*.in by version and sha256 into requirements/*.txt.

Example:
    python scripts/lock_requirements.py            # keeps what is locked and still fits
    python scripts/lock_requirements.py --upgrade  # takes the newest of everything
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from conda_bridge.system.failure import door
from conda_bridge.system.terminal import ArgumentParser
from flashinfer_build import bootstrap

bootstrap.ensure(__file__, "test")


@door("lock_requirements.py")
def main() -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upgrade", action="store_true", help="ignore the present lock")
    args = parser.parse_args()
    folder = bootstrap.project_root() / "requirements"
    for source in sorted(folder.glob("*.in")):
        # fmt: off
        command = [
            str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet", "--universal",
            "--generate-hashes", "--emit-build-options", "--python-version", "3.11", "--no-header",
            source.name, "--output-file", source.with_suffix(".txt").name,
        ]
        # fmt: on
        done = subprocess.run([*command, *(["--upgrade"] if args.upgrade else [])], cwd=folder)
        if done.returncode != 0:
            return 2
        print(f"requirements/{source.with_suffix('.txt').name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
