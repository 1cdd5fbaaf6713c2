"""Runs py-rattler-build for one package; a program of its own, started by :mod:`.builder`.

py-rattler-build holds the interpreter for as long as it builds, and rattler's threads may crash an
interpreter that ends right after them. So it gets a process, and that process ends by ``_exit``.

Standard input is not used; the request is a JSON file, the answer another.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import rattler_build
from rattler_build import (
    PlatformConfig,
    RenderConfig,
    RenderedVariant,
    Stage0Recipe,
    ToolConfiguration,
    VariantConfig,
)

__all__ = ["main", "render"]

_PLATFORM = "linux-64"


class _Lines:
    """Passes the builder's own messages on as lines of output."""

    def on_log(self, event: Any) -> None:
        print(event.message, flush=True)

    def on_build_step(self, event: Any) -> None:
        print(event.message, flush=True)

    def on_download_start(self, event: Any) -> None: ...

    def on_download_progress(self, event: Any) -> None: ...

    def on_download_complete(self, event: Any) -> None: ...


def render(request: Mapping[str, Any]) -> RenderedVariant:
    """The one rendered package that is asked for.

    Args:
        request: has the ``recipe``, the variant's ``keys`` and the ``output``'s name.
    """
    # Experimental: the recipe reads the version from version.txt.
    platform = PlatformConfig(target_platform=_PLATFORM, experimental=True)
    keys: dict[str, str] = request["keys"]
    recipe = Stage0Recipe.from_file(request["recipe"])
    rendered = recipe.render(
        VariantConfig({name: [value] for name, value in keys.items()}),
        RenderConfig(platform=platform),
    )
    found = [variant for variant in rendered if variant.recipe.package.name == request["output"]]
    if len(found) != 1:
        names = [variant.recipe.package.name for variant in rendered]
        raise SystemExit(f"the recipe renders to {names}, not to one {request['output']}")
    return found[0]


def _build(request: Mapping[str, Any]) -> dict[str, Any]:
    result = render(request).run_build(
        tool_config=ToolConfiguration(test_strategy="skip", compression_threads=2),
        output_dir=request["output_dir"],
        channels=request["channels"],
        progress_callback=_Lines(),
        # Level 1: the package is written once more, with fixed times.
        package_format="conda:1",
        no_include_recipe=True,
        no_build_id=True,
    )
    return {"packages": [str(path) for path in result.packages]}


def _test(request: Mapping[str, Any]) -> dict[str, Any]:
    package = rattler_build.Package.from_file(request["package"])
    results = package.run_tests(channel=request["channels"], progress_callback=_Lines())
    return {
        "tests": package.test_count,
        "failed": [result.test_index for result in results if not result.success],
        "output": [line for result in results for line in result.output],
    }


def main(request_file: str, answer_file: str) -> NoReturn:
    """Does what the request says, writes the answer, and ends the process."""
    request = json.loads(Path(request_file).read_text())
    code = 0
    try:
        answer = {"build": _build, "test": _test}[request["do"]](request)
        Path(answer_file).write_text(json.dumps(answer))
    except rattler_build.RattlerBuildError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        code = 1
    except SystemExit as error:
        print(error, flush=True)
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
