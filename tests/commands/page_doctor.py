"""Asks the doctor's own code, which needs no torch: reports in both forms, and what does not fit.

A program of its own, with the package of this checkout and without its ``__init__``, which would
import a torch. Questions come as JSON, and so do the answers.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[2] / "flashinfer"


def _report(env: Any, compat: Any, about: dict[str, Any]) -> tuple[str, str]:
    gpus = [
        env.Gpu(number, "NVIDIA, 8.8 x", capability, 150 << 30, "unknown", "")
        for number, capability in enumerate(about["gpus"])
    ]
    torch = compat.Found(about["torch"], about["cuda"], about["abi"]) if about["torch"] else None
    found = env.Report(
        package="/x",
        build=None,
        commit="",
        build_number=0,
        installer=about["installer"],
        library="",
        python=("3.11.7", "/x/python"),
        system=("Linux x86_64", about["libc"]),
        torch=torch,
        torch_place="/x/torch/__init__.py",
        driver=env.Driver(bool(about["driver"]), "/x/libcuda.so.1", "", about["driver"], ""),
        gpus=gpus,
        findings=[],
        notes=["The driver compiles the PTX for GPU 0."],
    )
    return env.render(found), json.dumps(found.as_dict(), indent=2)


def _fits(compat: Any, about: dict[str, Any]) -> bool:
    names = compat.Build._fields
    build = compat.Build(**{**dict.fromkeys(names, ""), **about["build"]})
    return compat.explain(build, compat.Found(**about["found"])) is None


def main() -> None:
    package = types.ModuleType("flashinfer")
    package.__path__ = [str(_PACKAGE)]
    sys.modules["flashinfer"] = package
    from flashinfer import _compat, _gpu_code, env

    asked = json.load(sys.stdin)
    answer = {
        "reports": [_report(env, _compat, about) for about in asked.get("reports", ())],
        "fits": [_fits(_compat, about) for about in asked.get("fits", ())],
        "code": [_gpu_code.code_for(*about)[0] for about in asked.get("code", ())],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
