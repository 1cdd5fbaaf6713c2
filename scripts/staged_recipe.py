r"""Makes a submission to conda-forge's staged-recipes from recipe/.

Examples:
    python scripts/staged_recipe.py ../staged-recipes --maintainer NAME --archive v0.1.6.tar.gz \
        --url https://github.com/flashinfer-ai/flashinfer/archive/refs/tags/v0.1.6.tar.gz
    python scripts/staged_recipe.py try --maintainer NAME --archive dist/flashinfer-0.1.6.tar.gz

Writes recipes/flashinfer/ there, with recipe.yaml and the scripts and tests that it names. The
archive is what is built: the sdist of a release, or its tag's archive. docs/conda-forge.md says how
to go on. Exit status: 0 done, 1 another submission is there, 2 unusable input.
"""

from __future__ import annotations

from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser, print_json, say
from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse
import os
from pathlib import Path

from conda_bridge.errors import BridgeError
from flashinfer_build.forge import staged


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="a checkout of staged-recipes, or any folder")
    parser.add_argument("--url", help="where the archive is published (default: the file itself)")
    archive = parser.add_mutually_exclusive_group(required=True)
    archive.add_argument(
        "--archive",
        type=Path,
        metavar="FILE",
        help="the archive; it is checked, and its sha256 taken",
    )
    archive.add_argument("--sha256", metavar="HEX", help="of the archive, where it is not at hand")
    parser.add_argument(
        "--maintainer",
        action="append",
        required=True,
        metavar="NAME",
        help="a name on GitHub, of one who will maintain the feedstock; may be given several times",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a submission that differs"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


@door("staged_recipe.py")
def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if args.sha256 and not args.url:
        parser.error("--sha256 needs the --url of that archive")
    root = bootstrap.project_root()
    try:
        if args.archive:
            source = staged.source_of(args.archive, args.url, root)
        else:
            source = staged.Source(args.url, args.sha256)
        result = staged.write(
            staged.files(root, source, args.maintainer),
            args.out,
            overwrite=args.overwrite,
            dry_run=args.dry_run,
        )
    except BridgeError as error:
        return failure(error, as_json=args.json)
    if args.json:
        facts = {"url": source.url, "sha256": source.sha256, "published": source.published}
        print_json({"schema": 1, **result.as_dict(), **facts})
        return 0
    if result.outcome == "unchanged":
        print("nothing has changed")
    for name in result.files if result.outcome != "unchanged" else ():
        path = os.path.relpath(result.folder / name)
        say(f"{'would write' if args.dry_run else 'wrote'} {path}")
    say(f"source {source.url}")
    say(f"sha256 {source.sha256}")
    if not source.published:
        print("That address is this machine's: for a build here, not for conda-forge (--url).")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
