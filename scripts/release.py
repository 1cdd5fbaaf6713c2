"""From artifacts to users: the gate of a release, and where it is published.

Examples:
    python scripts/release.py check dist/
    python scripts/release.py check dist/ --event nightly --published s3://bucket/flashinfer
    python scripts/release.py check dist/ --json

Exit status: 0 done, 1 a refusal, 2 unusable input. docs/publishing.md says more.
"""

from __future__ import annotations

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse
import json
import os
from pathlib import Path

from conda_bridge.cli.display import working
from conda_bridge.errors import BridgeError
from conda_bridge.project import Project
from conda_bridge.publish import release
from conda_bridge.publish.release_checks import byte_count
from conda_bridge.publish.store import open_store
from conda_bridge.system.failure import failure
from flashinfer_build import report
from flashinfer_build.matrix import release_gate
from flashinfer_build.pipeline.pipeline import Pipeline
from flashinfer_build.pipeline.settings import Settings

_FORM = argparse.RawDescriptionHelpFormatter
_TARGET = "a folder, or s3://bucket/prefix"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_FORM)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="may this be published?",
        formatter_class=_FORM,
        description="Refuses what a release must not be, each with what to do about it.\n\n"
        "Example:\n    python scripts/release.py check dist/ --event release --published site/",
    )
    check.add_argument("folder", type=Path, help="with the packages and wheels, such as dist/")
    _add_gate(check, default="release")
    check.add_argument("--published", metavar="TARGET", help=f"compare with it: {_TARGET}")
    check.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _add_gate(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--event",
        choices=tuple(release_gate.EVENTS),
        default=default,
        help="whose variants have to be there"
        + (" (default %(default)s)" if default else ": passes the gate of this event first"),
    )
    parser.add_argument(
        "--max-size", default="2GiB", metavar="SIZE", help="of one file (default %(default)s)"
    )


def _gate(args: argparse.Namespace, project: Project, target: str | None) -> release_gate.Gate:
    limit = byte_count(args.max_size)
    root = bootstrap.project_root()
    published = release.digests_at(open_store(target), project) if target else {}
    with working("reading the artifacts ...", quiet=args.json):
        return release_gate.check_folder(
            args.folder,
            Pipeline(Settings(root, bootstrap.cache_dir())),
            project,
            args.event,
            published=published,
            limit=limit,
            environ=os.environ,
        )


def _check(args: argparse.Namespace, project: Project) -> int:
    made = _gate(args, project, args.published)
    if args.json:
        print(json.dumps(made.as_dict(), indent=2))
    else:
        print(report.gate_table(made), end="")
    return made.exit_code


def main() -> int:
    args = _parser().parse_args()
    try:
        project = Project.load(bootstrap.project_root() / "pyproject.toml")
        return _check(args, project)
    except BridgeError as error:
        return failure(error, as_json=args.json)


if __name__ == "__main__":
    raise SystemExit(main())
