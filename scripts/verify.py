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
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conda_bridge.errors import BridgeError
from conda_bridge.project import Project
from conda_bridge.verify.findings import ArtifactReport, Report
from conda_bridge.verify.gate import verify

_WIDE = 160


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "artifacts", nargs="+", type=Path, help=".whl, .conda, .tar.bz2, or folders of them"
    )
    parser.add_argument(
        "--arch",
        metavar="LIST",
        help="the GPU architectures that were asked for, e.g. '8.0+PTX;9.0a'",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object (docs/verify.md)")
    return parser


def _measured(item: ArtifactReport) -> str:
    facts = item.facts
    parts = []
    if facts.get("archs"):
        parts.append(" ".join(facts["archs"]))
    for key, title in (("cuda", "CUDA"), ("torch", "torch"), ("torch_abi", "C++ ABI")):
        if facts.get(key):
            parts.append(f"{title} {facts[key]}")
    for key, title in (("glibc", "glibc"), ("glibcxx", "GLIBCXX"), ("abi3", "abi3")):
        if facts.get(key):
            parts.append(f"{title} >={facts[key]}")
    if facts.get("manylinux"):
        parts.append(facts["manylinux"])
    if "files" in facts:
        parts.append(f"{facts['files']} files the same")
    return escape(", ".join(parts))


def _result(item: ArtifactReport) -> str:
    if item.error:
        return "[bold red]unusable[/]"
    passed = f"{len(item.checks) - len(item.failed)}/{len(item.checks)}"
    return f"[bold red]{passed} checks[/]" if item.failed else f"[green]{passed} checks[/]"


def _show(report: Report) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("artifact", "result", "measured"):
        table.add_column(heading, overflow="fold")
    for item in report.artifacts:
        name = f"{item.artifact} = conda" if item.kind == "pair" else item.artifact
        table.add_row(escape(name), _result(item), _measured(item))
    console.print(table)
    for finding in report.warnings:
        console.print(f"[yellow]warning[/] {escape(str(finding))}", soft_wrap=True)
    for finding in report.findings:
        console.print(f"[bold red]finding[/] {escape(str(finding))}", soft_wrap=True)
    for error in report.errors:
        console.print(f"[bold red]error[/]   {escape(str(error))}", soft_wrap=True)
    console.print(
        f"{report.passed} checks passed, {len(report.findings)} findings,"
        f" {len(report.warnings)} warnings"
    )


def main() -> int:
    args = _parser().parse_args()
    try:
        project = Project.load(bootstrap.project_root() / "pyproject.toml")
        report = verify(args.artifacts, project=project, arch_list=args.arch)
    except BridgeError as error:
        if args.json:
            print(json.dumps(error.as_dict(), indent=2))
        else:
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report)
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
