"""Checks wheels and conda packages: is everything they say of themselves true?

Examples:
    conda-bridge verify dist/
    conda-bridge verify toy-1.0-py3-none-any.whl toy-1.0-py_0.conda --json
    conda-bridge verify dist/ --arch '8.0+PTX;9.0a'

Exit status: 0 all checks passed, 1 a finding, 2 an input that cannot be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..printable import printable
from ..system import terminal
from ..system.terminal import print_json
from . import options
from .display import working

if TYPE_CHECKING:
    from ..project import Project
    from ..verify.findings import ArtifactReport, Report

__all__ = ["add_arguments", "add_own_arguments", "print_report", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_own_arguments(parser)
    options.add_project(parser)


def add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that do not choose a project."""
    parser.add_argument(
        "artifacts", nargs="+", type=Path, help=".whl, .conda, .tar.bz2, or folders of them"
    )
    parser.add_argument(
        "--arch",
        metavar="LIST",
        help="the GPU architectures that were asked for, e.g. '8.0+PTX;9.0a'",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object (docs/verify.md)")


def run(args: argparse.Namespace) -> int:
    """Does it; returns the exit status."""
    from ..verify.gate import verify

    project = options.project_of(args)
    with working("reading the artifacts ...", quiet=args.json):
        report = verify(args.artifacts, project=project, arch_list=args.arch)
    print_report(report, project, as_json=args.json)
    return report.exit_code


def print_report(report: Report, project: Project, *, as_json: bool) -> None:
    """To standard output: a table, or JSON."""
    if as_json:
        print_json(report.as_dict())
    else:
        _show(report, project.hooks.fact_titles)


def _measured(item: ArtifactReport, titles: Mapping[str, str]) -> str:
    facts = item.facts
    parts = []
    if facts.get("archs"):
        parts.append(" ".join(facts["archs"]))
    for key, title in titles.items():
        if facts.get(key):
            parts.append(f"{title} {facts[key]}")
    for key, title in (("glibc", "glibc"), ("glibcxx", "GLIBCXX"), ("abi3", "abi3")):
        if facts.get(key):
            parts.append(f"{title} >={facts[key]}")
    if facts.get("manylinux"):
        parts.append(facts["manylinux"])
    if "files" in facts:
        parts.append(f"{facts['files']} files the same")
    return ", ".join(parts)


def _result(item: ArtifactReport) -> str:
    if item.error:
        return "[bold red]unusable[/]"
    passed = f"{len(item.checks) - len(item.failed)}/{len(item.checks)}"
    return f"[bold red]{passed} checks[/]" if item.failed else f"[green]{passed} checks[/]"


def _show(report: Report, titles: Mapping[str, str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = terminal.console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("artifact", "result", "measured"):
        table.add_column(heading, overflow="fold")
    for item in report.artifacts:
        name = f"{item.artifact} = conda" if item.kind == "pair" else item.artifact
        table.add_row(
            escape(printable(name)), _result(item), escape(printable(_measured(item, titles)))
        )
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
