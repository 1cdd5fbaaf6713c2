"""Installs with py-rattler into an environment that may have packages; a program of its own.

rattler's threads may crash an interpreter that ends right after them, so it ends by ``_exit``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rattler import MatchSpec, PrefixRecord, VirtualPackage, install, solve
from rattler.exceptions import SolverError


async def _main(request: Mapping[str, Any]) -> None:
    prefix = Path(request["prefix"])
    meta = sorted(prefix.glob("conda-meta/*.json"))
    there = [PrefixRecord.from_path(path) for path in meta]
    specs = [MatchSpec(spec, strict=False) for spec in request["specs"]]
    virtual = VirtualPackage.detect()
    channels = request["channels"]
    names = {spec.name.normalized for spec in specs if spec.name}
    if request["remove"]:
        records = [one for one in there if one.name.normalized not in names]
    elif request["with_dependencies"]:
        kept = [one for one in there if one.name.normalized not in names]
        records = await solve(channels, specs, locked_packages=kept, virtual_packages=virtual)
    else:
        chosen = []
        for spec in specs:
            alone = await solve(channels, [spec], virtual_packages=virtual)
            chosen += [one for one in alone if one.name.normalized in names]
        records = [one for one in there if one.name.normalized not in names] + chosen
    reinstall = names if request["reinstall"] else set()
    await install(
        records,
        target_prefix=prefix,
        cache_dir=Path(request["cache"]),
        reinstall_packages=reinstall,
        show_progress=False,
    )


code = 0
try:
    asyncio.run(_main(json.loads(sys.argv[1])))
except SolverError as error:
    print(f"SolverError: {error}")
    code = 1
except BaseException as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    code = 3
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
