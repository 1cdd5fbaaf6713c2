"""Compiles csrc/: the kernels' library, or the torch binding over it.

The recipes call this; setup.py calls the same functions.

Examples:
    python scripts/native.py info
    python scripts/native.py lib --prefix "$PREFIX"
    python scripts/native.py binding --library-dir build/lib --output flashinfer/_C.abi3.so
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from conda_bridge.errors import BridgeError
from conda_bridge.system import atomic
from conda_bridge.system.failure import door, failure, without_tracebacks
from conda_bridge.system.terminal import ArgumentParser, print_json, say
from flashinfer_build.artifact import LICENCES, SBOM, SBOM_FOLDER
from flashinfer_build.compile import prerequisites

without_tracebacks()
# The recipes' interpreter has it; another one may lack it.
prerequisites.check(compiles=False, names=("packaging",))

from flashinfer_build.compile import variables
from flashinfer_build.compile.project import Project


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="print the toolchain that a build here would use")
    info.add_argument("--json", action="store_true")
    lib = commands.add_parser("lib", help="compile libflashinfer.so")
    lib.add_argument(
        "--prefix", type=Path, required=True, help="where to install lib/ and include/"
    )
    lib.add_argument("--build-dir", type=Path, default=Path("build/native-lib"))
    lib.add_argument(
        "--sbom",
        action="store_true",
        help=f"also install {SBOM_FOLDER}/, and write {LICENCES}/ here (docs/sbom.md)",
    )
    binding = commands.add_parser("binding", help="compile _C.abi3.so")
    binding.add_argument("--library-dir", type=Path, required=True, help="with libflashinfer.so")
    binding.add_argument("--output", type=Path, required=True)
    binding.add_argument("--build-dir", type=Path, default=Path("build/native-binding"))
    return parser


@door("native.py")
def main() -> int:
    args = _parser().parse_args()
    try:
        project = Project.measure(os.environ)
        if args.command == "info":
            facts = project.facts()
            if args.json:
                print_json(facts)
            else:
                for name, value in facts.items():
                    say(f"{name:12} {value}")
            return 0
        project.check(binding=args.command == "binding")
        for line in variables.notes(os.environ, project.nvcc):
            say(f"flashinfer: {line}", error=True)
        if args.command == "lib":
            prefix, build_dir = args.prefix.resolve(), args.build_dir.resolve()
            say(str(project.build_library(prefix, build_dir)))
            if args.sbom:
                bill = project.library_bill(build_dir)
                file = prefix / SBOM_FOLDER / SBOM.format("libflashinfer")
                atomic.write_bytes(file, bill.document)
                atomic.remove(Path(LICENCES))
                with atomic.directory(Path(LICENCES)) as folder:
                    for name, text in bill.licences.items():
                        atomic.write_bytes(folder / name, text)
                say(str(file))
        else:
            project.build_binding(
                args.output.resolve(), args.build_dir.resolve(), args.library_dir.resolve()
            )
            say(str(args.output))
    except BridgeError as error:
        return failure(error, as_json=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
