"""What recipe/meta.yaml builds on conda-forge: each output's environments, and its record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import stand_in
from meta_yaml import Recipe
from rattler import Version, VersionSpec
from stand_in import Record

from flashinfer_build.variants import VariantSpec

META_YAML = Path(__file__).parents[2] / "recipe/meta.yaml"


@dataclass(frozen=True)
class Output:
    """A package, and what is asked for in each environment of its build.

    Attributes:
        record: what its channel says of it.
        environments: the requirements, by ``build``, ``host`` and ``test``.
    """

    record: Record
    environments: Mapping[str, Sequence[str]]


def outputs(
    spec: VariantSpec, environ: Mapping[str, str] | None = None, python: str | None = None
) -> list[Output]:
    """The outputs for one variant.

    Args:
        spec: the variant.
        environ: the environment of the build.
        python: what conda-build puts behind a bare ``python``, its own minor; rattler-build leaves
            it as it is.
    """
    recipe = Recipe(META_YAML, spec.as_mapping(), environ or {}).render()
    found = []
    for output in recipe["outputs"]:
        build, requirements = output["build"], output["requirements"]
        ignored = set(build["ignore_run_exports"])
        if build.get("python_version_independent") == "true":
            ignored |= {"python", "python_abi"}
        of_build, of_host = (requirements.get(name) or [] for name in ("build", "host"))
        strong = _exports(of_build, ["strong"], ignored)
        depends = [
            *(requirements.get("run") or []),
            *strong,
            *_exports(of_host, ["strong", "weak"], ignored),
        ]
        version = recipe["package"]["version"]
        record = stand_in.record(
            output["name"],
            version,
            build["string"],
            int(recipe["build"]["number"]),
            depends=depends,
            constrains=requirements.get("run_constrained") or [],
        )
        itself = " ".join((output["name"], version, build["string"]))
        environments = {
            "build": of_build,
            "host": [*of_host, *strong],
            "test": [itself, *output["test"].get("requires", [])],
        }
        found.append(
            Output(
                record,
                {
                    name: [_with_python(item, python) for item in asked]
                    for name, asked in environments.items()
                },
            )
        )
    return found


def _with_python(spec: str, python: str | None) -> str:
    return f"python {python}.*" if python and spec == "python" else spec


def _exports(asked: Iterable[str], kinds: Iterable[str], ignored: set[str]) -> list[str]:
    """The run exports of the packages that are asked for, not of those that come with them."""
    bounds: dict[str, list[VersionSpec]] = {}
    for spec in asked:
        name, *rest = spec.split()
        bounds.setdefault(name, []).extend(VersionSpec(text) for text in rest[:1])
    exports = [
        export
        for name, all_bounds in bounds.items()
        for export_of in [_newest(name, all_bounds)]
        for kind in kinds
        for export in export_of.get("run_exports", {}).get(kind, [])
    ]
    return [export for export in exports if export.split()[0] not in ignored]


def _newest(name: str, bounds: Iterable[VersionSpec]) -> Mapping[str, Mapping[str, list[str]]]:
    fitting = [
        record
        for record in stand_in.conda_forge()
        if record["name"] == name
        and all(bound.matches(Version(record["version"])) for bound in bounds)
    ]
    # Without one the build does not get as far as its run exports.
    return max(fitting, key=lambda record: Version(record["version"]), default={})
