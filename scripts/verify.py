"""Checks wheels and conda packages: is everything they say of themselves true?

Examples:
    python scripts/verify.py dist/
    python scripts/verify.py dist/wheels/*.whl dist/channel/linux-64/*.conda --arch '8.0+PTX;9.0a'
    python scripts/verify.py dist/ --json

Exit status: 0 all checks passed, 1 a finding, 2 an input that cannot be read. docs/verify.md lists
the checks.
"""

from __future__ import annotations

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse

from conda_bridge.cli.verify import add_own_arguments, print_report
from conda_bridge.errors import BridgeError
from conda_bridge.project import Project
from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser
from conda_bridge.verify.gate import verify


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_own_arguments(parser)
    return parser


@door("verify.py")
def main() -> int:
    args = _parser().parse_args()
    try:
        project = Project.load(bootstrap.project_root() / "pyproject.toml")
        report = verify(args.artifacts, project=project, arch_list=args.arch)
    except BridgeError as error:
        return failure(error, as_json=args.json)
    print_report(report, project, as_json=args.json)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
