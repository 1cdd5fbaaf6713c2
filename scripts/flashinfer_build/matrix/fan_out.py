"""What CI fans out: a job for each CUDA's kernels, then one for each variant's binding.

Nothing here depends on the machine that asks: who supplies a toolchain is read from the locks. So
the answer can be kept in files and compared (``tests/matrix/golden``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from conda_bridge.errors import ConfigError

from ..label import Label
from ..pipeline.pipeline import Pipeline
from ..variants import VariantSpec

__all__ = ["EVENTS", "FanOut", "check_tag", "fan_out", "missing_files"]

# What is built for each event: every variant, or of each CUDA the newest torch alone.
EVENTS: Mapping[str, str] = {"pull-request": "newest", "nightly": "all", "release": "all"}


@dataclass(frozen=True)
class FanOut:
    """The jobs of one event.

    Attributes:
        event: ``pull-request``, ``nightly`` or ``release``.
        kernels: one job for each CUDA tag.
        bindings: one job for each variant.
        left_out: what has no locked toolchain, with the reason.
    """

    event: str
    kernels: tuple[Mapping[str, str], ...]
    bindings: tuple[Mapping[str, str], ...]
    left_out: tuple[Mapping[str, str], ...]

    def as_json(self) -> str:
        """Everything, for people and other programs."""
        return json.dumps({"schema": 1, **_plain(self)}, indent=2) + "\n"

    def as_github(self) -> str:
        """Two outputs of a step, each for a job's ``strategy.matrix``."""
        lines = []
        for name, rows in (("kernels", self.kernels), ("bindings", self.bindings)):
            lines.append(f"{name}={json.dumps({'include': list(rows)}, separators=(',', ':'))}\n")
        return "".join(lines)

    def as_table(self) -> str:
        """A line for each job."""
        rows = [("job", "kernels of", "torch", "archs", "toolchain")]
        rows += [
            (row["name"], row["cuda_tag"], "-", row["arch_list"], row["provider"])
            for row in self.kernels
        ]
        rows += [
            (row["name"], row["cuda_tag"], row["torch"], row["arch_list"], row["provider"])
            for row in self.bindings
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [f"left out: {row['name']}: {row['reason']}" for row in self.left_out]
        return "\n".join(lines) + "\n"


def _plain(jobs: FanOut) -> dict[str, object]:
    return {
        "event": jobs.event,
        "kernels": list(jobs.kernels),
        "bindings": list(jobs.bindings),
        "left_out": list(jobs.left_out),
    }


def fan_out(pipeline: Pipeline, event: str) -> FanOut:
    """The jobs for `event`.

    Raises:
        ConfigError: nothing of the matrix has a locked toolchain.
    """
    chosen: list[VariantSpec] = []
    bindings, left_out = [], []
    # Ignore the local compiler; only the runner's counts.
    for spec in pipeline.specs:
        supply = pipeline.supply(spec, any_compiler=True)
        if supply.provider:
            chosen.append(spec)
            bindings.append(_binding(pipeline, spec, supply.provider))
        else:
            left_out.append({"name": spec.id, "reason": supply.missing})
    if EVENTS[event] == "newest":
        newest = {spec.variant.cuda_tag: spec for spec in _by_torch(chosen)}
        kept = {spec.id for spec in newest.values()}
        bindings = [row for row in bindings if row["name"] in kept]
    if not bindings:
        raise ConfigError("no variant of the matrix has a locked toolchain")
    kernels = []
    for cuda_tag in dict.fromkeys(row["cuda_tag"] for row in bindings):
        spec = pipeline.representative(cuda_tag)
        supply = pipeline.supply(spec, torch=False, any_compiler=True)
        kernels.append(
            {
                "name": cuda_tag,
                "cuda_tag": cuda_tag,
                "arch_list": spec.cuda_arch_list,
                "gxx_below": spec.gxx_below,
                "provider": supply.provider or "",
            }
        )
    return FanOut(event, tuple(kernels), tuple(bindings), tuple(left_out))


def _by_torch(specs: list[VariantSpec]) -> list[VariantSpec]:
    return sorted(specs, key=lambda spec: spec.variant.torch)


def _binding(pipeline: Pipeline, spec: VariantSpec, provider: str) -> dict[str, str]:
    return {
        "name": spec.id,
        "variant": spec.id,
        "cuda_tag": spec.variant.cuda_tag,
        "torch": spec.pytorch,
        "arch_list": spec.cuda_arch_list,
        "index": spec.variant.index_dir,
        "provider": provider,
    }


def missing_files(pipeline: Pipeline, event: str, folder: Path) -> list[str]:
    """What a complete release of `event` has that `folder` does not.

    Args:
        pipeline: with the settings of the release.
        event: whose jobs made the folder.
        folder: with ``channel/``, ``wheels/`` and ``index/``.
    """
    here = replace(pipeline.settings, output=folder)
    complete = Pipeline(here)
    wanted: dict[Path, None] = {}
    ids = [row["variant"] for row in fan_out(pipeline, event).bindings]
    for spec in complete.select(ids):
        wanted |= dict.fromkeys(complete.job(spec).published)
    root = here.output_dir
    return [path.relative_to(root).as_posix() for path in wanted if not path.is_file()]


def check_tag(environ: Mapping[str, str], label: Label) -> None:
    """For a release: the tag that started it has to say the version of ``version.txt``.

    Args:
        environ: with what GitHub says of the tag, or without where nothing is known of one.
        label: of any variant.

    Raises:
        ConfigError: it says another one.
    """
    tag = environ.get("GITHUB_REF_NAME", "")
    if environ.get("GITHUB_REF_TYPE") == "tag" and tag != f"v{label.public_version}":
        raise ConfigError(
            f"the tag is {tag}",
            where="GITHUB_REF_NAME",
            expected=f"v{label.public_version}, from version.txt",
            fix="change version.txt and tag the commit that has it",
        )
