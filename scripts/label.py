"""Prints every name of a build, or reads a name back.

Examples:
    python scripts/label.py cu124_torch24
    python scripts/label.py cu124_torch24 --json
    python scripts/label.py cu124_torch24 --nightly 20261122 --commit 1a2b3c4
    python scripts/label.py --parse flashinfer-0.1.6+cu124torch2.4-cp38-abi3-linux_x86_64.whl

FLASHINFER_BUILD_VERSION, FLASHINFER_BUILD_COMMIT and FLASHINFER_BUILD_NUMBER act as on a build.
"""

from __future__ import annotations

from conda_bridge.system.failure import door, failure
from conda_bridge.system.terminal import ArgumentParser, console, print_json, say
from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

import argparse
import sys
from pathlib import Path

from rich.table import Table

from conda_bridge.errors import BridgeError, LabelError
from flashinfer_build.label import (
    CONDA_ENDINGS,
    LIBRARY_NAME,
    Label,
    LibraryLabel,
    Variant,
    split_conda_file,
)

_MEANING = {
    "variant": "variant",
    "cuda_tag": "CUDA tag",
    "public_version": "public version",
    "conda_version": "conda version",
    "conda_build": "conda build string",
    "conda_build_number": "conda build number",
    "conda_file": "conda package",
    "wheel_version": "wheel version",
    "wheel_file": "wheel",
    "index_dir": "index folder",
}


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("variant", nargs="?", help="such as cu124_torch24 or cpu_torch213")
    what.add_argument("--parse", metavar="FILE", help="a wheel's or a conda package's file name")
    parser.add_argument("--nightly", metavar="YYYYMMDD", help="the day of a nightly build")
    parser.add_argument("--commit", metavar="SHA", help="7 to 40 hexadecimal digits")
    parser.add_argument("--build-number", type=int, metavar="N", help="a rebuild's number")
    parser.add_argument(
        "--after",
        metavar="VERSION",
        action="append",
        default=[],
        help="a released version; refuse a label that does not sort above it",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _parse_file(name: str) -> Label | LibraryLabel:
    if name.endswith(".whl"):
        return Label.parse_wheel_file(name)
    if name.startswith(f"{LIBRARY_NAME}-"):
        return Label.parse_lib_conda_file(name)
    if split_conda_file(name)[1]:
        return Label.parse_conda_file(name)
    raise LabelError(
        "neither a wheel nor a conda package",
        where=name,
        expected=f"a name ending in .whl, {' or '.join(CONDA_ENDINGS)}",
    )


def _show(label: Label | LibraryLabel) -> None:
    forms = label.as_dict()
    if not sys.stdout.isatty():
        width = max(len(_MEANING[key]) for key in forms)
        for key, value in forms.items():
            say(f"{_MEANING[key]:{width}}  {value}")
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in forms.items():
        table.add_row(_MEANING[key], value)
    console().print(table)


@door("label.py")
def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    composing = (args.nightly, args.commit, args.build_number, args.after or None)
    if args.parse and any(value is not None for value in composing):
        parser.error("--parse reads a whole name; it takes no other setting")
    label: Label | LibraryLabel
    try:
        if args.parse:
            label = _parse_file(Path(args.parse).name)
        else:
            label = Label.compose(
                Variant.parse(args.variant),
                nightly=args.nightly,
                commit=args.commit,
                build_number=args.build_number,
                released=args.after,
            )
    except BridgeError as error:
        return failure(error, as_json=args.json)
    if args.json:
        print_json(label.as_dict())
    else:
        _show(label)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
