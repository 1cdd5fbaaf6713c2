"""Solves for one channel and several machines; a program of its own, see test_choice.py.

rattler's threads may crash an interpreter that ends right after them, so this one ends by _exit.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import rattler
from rattler import GenericVirtualPackage, PackageName, Version
from rattler.exceptions import SolverError
from rattler.package import BuildString


async def solve(channel: str, case: dict[str, list[str]]) -> list[str]:
    """The file names of what is chosen, or the solver's words."""
    virtual = [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString("0"))
        for name, version in (text.split("=") for text in case["machine"])
    ]
    try:
        records = await rattler.solve(
            [channel],
            case["wanted"],
            platforms=["linux-64", "noarch"],
            virtual_packages=virtual,
        )
    except SolverError as error:
        return ["unsolvable", str(error)]
    return sorted(f"{record.name.normalized}-{record.version}-{record.build}" for record in records)


async def main(channel: str, cases: list[dict[str, list[str]]]) -> None:
    print(json.dumps([await solve(channel, case) for case in cases]))


if __name__ == "__main__":
    request = json.load(sys.stdin)
    asyncio.run(main(request["channel"], request["cases"]))
    sys.stdout.flush()
    os._exit(0)
