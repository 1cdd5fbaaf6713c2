"""From artifacts to users: the gate of a release, and where it is published.

Examples:
    python scripts/release.py check dist/
    python scripts/release.py check dist/ --event nightly --published s3://bucket/flashinfer
    python scripts/release.py publish dist/ --to site/ --event release
    python scripts/release.py publish dist/ --to s3://bucket/flashinfer --dry-run
    python scripts/release.py yank 'flashinfer-0.1.6*' --to site/ --reason 'wrong results on sm_90a'
    python scripts/release.py prune nightlies --keep 30 --to site/
    python scripts/release.py history --to site/
    python scripts/release.py export flashinfer.tar --from site/ --variant cu130/torch2.13
    python scripts/release.py snippet cu130_torch213 --for uv --index https://example.org/index

Exit status: 0 done, 1 a refusal, 2 unusable input. docs/publishing.md says more.
"""

from __future__ import annotations

import sys

from flashinfer_build import bootstrap

# Clients of object stores are many packages, which a folder does not need.
_STORE = any(argument.partition("=")[2].startswith("s3:") or argument.startswith("s3:")
             for argument in sys.argv[1:])  # fmt: skip
bootstrap.ensure(__file__, "publish" if _STORE else "tools")

import argparse
import functools
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from conda_bridge.cli.display import working
from conda_bridge.errors import ConfigError
from conda_bridge.project import Project
from conda_bridge.publish import export, history, release
from conda_bridge.publish.record import Record
from conda_bridge.publish.release_checks import byte_count, shown_size
from conda_bridge.publish.store import open_store
from conda_bridge.system.failure import door
from conda_bridge.verify import gate
from flashinfer_build import report, snippet, variants
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
    promote = _command(
        commands,
        "promote",
        "publish a release that was a nightly before",
        "Publishes a release if the nightly is there, of the commit that the release was built\n"
        "from, in the same variants, and not yanked. The record says which it was.",
        "promote 0.1.7.dev20261130 dist/ --to site/ --commit $(git rev-parse v0.1.7)",
    )
    promote.add_argument("promotes", metavar="NIGHTLY", help="its version")
    _add_source(promote)
    publish = _command(
        commands,
        "publish",
        "put it where users find it: all of it or nothing",
        "What was published stays as it is; a call that was cut off is completed by the same call\n"
        "again.",
        "publish dist/ --to s3://bucket/flashinfer --event release",
    )
    _add_source(publish)
    yank = _command(
        commands,
        "yank",
        "take files out of what installers choose from",
        "Who has pinned a file still gets it: pip and uv by its version, conda by its address.",
        "yank 'flashinfer-0.1.6*' --to site/ --reason 'wrong results on sm_90a'",
    )
    yank.add_argument("names", nargs="+", help="of files; * and ? stand for any characters")
    yank.add_argument("--reason", default="", help="that pip shows")
    yank.add_argument("--undo", action="store_true", help="let them be chosen again")
    prune = _command(
        commands,
        "prune",
        "list old nightlies no more, and remove their files a day later",
        "What an earlier call took out of the documents is removed by the first call later\n"
        "than --grace-days. What was released is never pruned.",
        "prune nightlies --keep 30 --to s3://bucket/flashinfer",
    )
    prune.add_argument("what", choices=("nightlies",))
    prune.add_argument("--keep", type=int, required=True, metavar="N", help="versions that stay")
    prune.add_argument(
        "--grace-days",
        type=float,
        default=1.0,
        metavar="D",
        help="how long a file stays after no page has named it (default %(default)s)",
    )
    history = _command(
        commands,
        "history",
        "what was published when, from which commit, by which digest",
        "Printed from the record that the target keeps.",
        "history --to s3://bucket/flashinfer --json",
        writes=False,
    )
    history.add_argument("names", nargs="*", help="of files, if not all; * stands for anything")
    exported = commands.add_parser(
        "export",
        help="one archive with a channel and an index, for machines without a network",
        formatter_class=_FORM,
        description="Unpacked it is a channel and an index for file://, and has a README with the\n"
        "commands. torch is not in it. The same selection gives the same bytes.\n\n"
        "Example:\n    python scripts/release.py export flashinfer-cu130.tar --from site/ "
        "--variant cu130/torch2.13",
    )
    exported.add_argument("archive", type=Path, help="NAME.tar or NAME.zip")
    exported.add_argument(
        "--from", dest="source", required=True, metavar="TARGET", help=f"what to take: {_TARGET}"
    )
    exported.add_argument(
        "--variant",
        dest="variants",
        action="append",
        default=[],
        metavar="FOLDER",
        help="of the index, such as cu130/torch2.13, cu130 or torch2.13; several times for several "
        "(default: all)",
    )
    exported.add_argument(
        "--version",
        dest="versions",
        action="append",
        default=[],
        metavar="V",
        help="public version; several times for several (default: the newest release)",
    )
    exported.add_argument("--dry-run", action="store_true", help="say what would be in it")
    exported.add_argument("--json", action="store_true", help="one JSON object")
    _add_snippet(commands)
    return parser


def _add_snippet(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    files = ", ".join(f"{form.file} of {tool}" for tool, form in snippet.FORMS.items())
    parser = commands.add_parser(
        "snippet",
        help="what a project writes down to depend on one build",
        formatter_class=_FORM,
        description=f"Prints {files}.\n"
        "Each names one build in full, and where it is.\n\nExample:\n"
        "    python scripts/release.py snippet 0.1.6+cu130torch2.13 --for pixi --channel NAME",
    )
    parser.add_argument(
        "label",
        help="a variant, such as cu130_torch213, a wheel's version, or the name of an artifact",
    )
    parser.add_argument("--for", dest="tool", required=True, choices=tuple(snippet.FORMS))
    parser.add_argument("--index", metavar="URL", help="the whole wheel index, for pip and uv")
    parser.add_argument("--channel", metavar="URL", help="for pixi and conda; an address or a name")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there")
    parser.add_argument("--replace", action="store_true", help="also where another text is there")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")


def _add_source(parser: argparse.ArgumentParser) -> None:
    """What a command publishes."""
    parser.add_argument("folder", type=Path, help="with the packages and wheels, such as dist/")
    _add_gate(parser, default=None)
    parser.add_argument(
        "--commit",
        default="",
        metavar="SHA",
        help="what it was built from, for the record (default: GITHUB_SHA, if set)",
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    more: str,
    example: str,
    *,
    writes: bool = True,
) -> argparse.ArgumentParser:
    """A command on a target."""
    parser = commands.add_parser(
        name,
        help=what,
        formatter_class=_FORM,
        description=f"{more}\n\nExample:\n    python scripts/release.py {example}",
    )
    parser.add_argument("--to", required=True, metavar="TARGET", help=_TARGET)
    if writes:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--json", action="store_true", help="one JSON object")
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


def _publish(args: argparse.Namespace, project: Project) -> int:
    if args.event:
        made = _gate(args, project, args.to)
        if made.exit_code:
            if args.json:
                print(json.dumps(made.as_dict(), indent=2))
            else:
                print(report.gate_table(made), end="")
            return made.exit_code
    store = open_store(args.to)
    tell = _teller(args)
    sources = release.read_sources(gate.collect([args.folder]), project, tell)
    outcome = release.publish(
        sources,
        store,
        project,
        commit=args.commit or os.environ.get("GITHUB_SHA", ""),
        promotes=getattr(args, "promotes", ""),
        dry_run=args.dry_run,
        tell=tell,
    )
    if args.json:
        print(json.dumps({"target": store.name, **outcome.as_dict()}, indent=2))
        return 0
    for name in outcome.published if args.dry_run else ():
        print(f"would publish {name}")
    word = "to publish" if args.dry_run else "published"
    print(f"{store.name}: {len(outcome.published)} {word}, {len(outcome.unchanged)} were there")
    return 0


def _yank(args: argparse.Namespace, project: Project) -> int:
    store = open_store(args.to)
    outcome = release.yank(
        args.names,
        store,
        project,
        reason=args.reason,
        undo=args.undo,
        dry_run=args.dry_run,
        tell=_teller(args),
    )
    if args.json:
        print(json.dumps({"target": store.name, **outcome.as_dict()}, indent=2))
        return 0
    for name in outcome.changed if args.dry_run else ():
        print(f"would {'allow' if args.undo else 'yank'} {name}")
    if not outcome.changed:
        print("nothing has changed")
    return 0


def _prune(args: argparse.Namespace, project: Project) -> int:
    store = open_store(args.to)
    outcome = release.prune_nightlies(
        store,
        project,
        keep=args.keep,
        grace=timedelta(days=args.grace_days),
        dry_run=args.dry_run,
        tell=_teller(args),
    )
    if args.json:
        print(json.dumps({"target": store.name, **outcome.as_dict()}, indent=2))
        return 0
    would = "would be " if args.dry_run else ""
    print(
        f"{len(outcome.changed)} files {would}listed no more, {len(outcome.removed)} {would}removed"
    )
    return 0


def _history(args: argparse.Namespace, _project: Project) -> int:
    rows = history.rows(Record(open_store(args.to)), args.names)
    if args.json:
        print(json.dumps({"schema": 1, "target": args.to, "files": rows}, indent=2))
    else:
        print(report.history_table(rows), end="")
    return 0


def _export(args: argparse.Namespace, project: Project) -> int:
    export.check_name(args.archive)
    chosen = export.select(
        open_store(args.source), project, variants=args.variants, versions=args.versions
    )
    digest = "" if args.dry_run else export.write(chosen, args.archive, _teller(args))
    if args.json:
        made = {
            "archive": str(args.archive),
            "sha256": digest or None,
            "size": args.archive.stat().st_size if digest else None,
            "versions": list(chosen.versions),
            "files": [item.file.path for item in chosen.files],
            "commands": chosen.commands,
        }
        print(json.dumps({"schema": 1, **made}, indent=2))
        return 0
    for item in chosen.files if args.dry_run else ():
        print(f"would add {item.file.path}")
    size = shown_size(chosen.size)
    would = "would be " if args.dry_run else ""
    print(f"{args.archive}: {len(chosen.files)} packages and wheels, {size} {would}in it")
    if digest:
        print(f"sha256 {digest}")
    return 0


def _snippet(args: argparse.Namespace, _project: Project) -> int:
    label = snippet.label_named(args.label, variants.load())
    place = snippet.FORMS[args.tool].place
    address = getattr(args, place)
    if address is None:
        raise ConfigError(
            f"--for {args.tool} needs to know where the build is", fix=f"add --{place} URL"
        )
    text = snippet.snippet(label, args.tool, address)
    if args.output is None:
        print(text, end="")
        return 0
    changed = snippet.write(text, args.output, replace=args.replace, dry_run=args.dry_run)
    would = "would write" if args.dry_run else "wrote"
    print(f"{would if changed else 'unchanged:'} {args.output}")
    return 0


def _teller(args: argparse.Namespace) -> Callable[[str], None]:
    """Where the lines of what happens go."""
    return (lambda _line: None) if args.json else functools.partial(print, flush=True)


_COMMANDS = {
    "check": _check,
    "publish": _publish,
    "promote": _publish,
    "yank": _yank,
    "prune": _prune,
    "history": _history,
    "export": _export,
    "snippet": _snippet,
}


@door("release.py")
def main() -> int:
    args = _parser().parse_args()
    project = Project.load(bootstrap.project_root() / "pyproject.toml")
    return _COMMANDS[args.command](args, project)


if __name__ == "__main__":
    raise SystemExit(main())
