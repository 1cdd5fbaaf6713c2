"""Installs conda packages with py-rattler; a program of its own, started by :mod:`.install`.

rattler's threads may crash an interpreter that ends right after them, so this process ends by
``_exit``. The request is a JSON file, the answer another.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from rattler import MatchSpec, VirtualPackage, install, solve
from rattler.virtual_package import VirtualPackageOverrides


async def _install(request: Mapping[str, Any]) -> list[str]:
    """Solves and installs.

    Returns:
        What was installed, as ``name version build``.
    """
    # rattler would not look at CONDA_OVERRIDE_CUDA; conda-forge's CUDA torch asks for __cuda.
    virtual = VirtualPackage.detect(VirtualPackageOverrides.from_env())
    # As conda reads what is typed: "a=1.0=b" is one version and one build.
    specs = [MatchSpec(spec, strict=False) for spec in request["specs"]]
    records = await solve(request["channels"], specs, virtual_packages=virtual)
    await install(
        records,
        target_prefix=request["prefix"],
        cache_dir=Path(os.environ["RATTLER_CACHE_DIR"]) / "pkgs",
        show_progress=False,
    )
    return sorted(f"{record.name.normalized} {record.version} {record.build}" for record in records)


def main(request_file: str, answer_file: str) -> NoReturn:
    """Does what the request says, writes the answer, and ends the process."""
    code = 0
    try:
        installed = asyncio.run(_install(json.loads(Path(request_file).read_text())))
        Path(answer_file).write_text(json.dumps(installed))
        print("\n".join(installed))
    except Exception as error:  # rattler raises many types, all meant to be read
        print(f"{type(error).__name__}: {error}")
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
