"""What a release of an event promises: variants of the matrix, each whole and verified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conda_bridge.errors import LabelError
from conda_bridge.formats.fatbin import expected_codes
from conda_bridge.publish.release_checks import Line
from conda_bridge.verify.findings import ArtifactReport, Report

from ..label import CONDA_ENDINGS, Label, Variant
from ..pipeline.pipeline import Pipeline
from ..variants import VariantSpec
from .fan_out import fan_out

__all__ = ["Promise", "check_promises", "promised"]


@dataclass(frozen=True)
class Promise:
    """A variant that an event has.

    Attributes:
        variant: which.
        arch_list: the GPU architectures of its kernels, or ``None``.
    """

    variant: Variant
    arch_list: str

    @classmethod
    def of(cls, spec: VariantSpec) -> Promise:
        """The promise of a row of the matrix."""
        return cls(spec.variant, spec.cuda_arch_list)


def promised(pipeline: Pipeline, event: str) -> list[Promise]:
    """The variants that are built for an event.

    Raises:
        ConfigError: nothing of the matrix has a locked toolchain.
    """
    names = {row["variant"] for row in fan_out(pipeline, event).bindings}
    return [Promise.of(spec) for spec in pipeline.specs if spec.id in names]


def check_promises(
    promises: Iterable[Promise],
    files: Sequence[str],
    report: Report,
    *,
    version: str,
    number: int = 0,
    commit: str | None = None,
) -> list[Line]:
    """Every variant is there, in all of its files, and each of them passed ``verify``.

    Args:
        promises: what should be there.
        files: the names of what is.
        report: of ``verify``, over these files.
        version: the public version of the release.
        number: its build number.
        commit: of a nightly.
    """
    wheels: dict[tuple[str, int], str] = {}
    for file in files:
        if file.endswith(".whl"):
            try:
                label = Label.parse_wheel_file(file)
            except LabelError:
                continue  # the labels' own line says so
            wheels[label.wheel_version, label.build_number] = file
    single = {item.artifact: item for item in report.artifacts if item.kind != "pair"}
    pairs = {item.artifact: item for item in report.artifacts if item.kind == "pair"}
    lines = []
    for promise in promises:
        label = Label(promise.variant, version, number, commit)
        wheel = wheels.get((label.wheel_version, number), "")
        wanted = {
            label.conda_file: _one_of(label.conda_stem, files),
            label.lib_conda_file: _one_of(label.library.conda_stem, files),
            label.wheel_file: wheel,
        }
        lacking = [name for name, found in wanted.items() if not found]
        if lacking:
            what = f"missing: {', '.join(lacking)}"
            lines.append(Line("variants", label.variant.id, what, False, _build(label)))
            continue
        found = list(wanted.values())
        wrong = _unverified(found, single, pairs.get(wheel)) or _archs(promise, single[wheel])
        if wrong:
            lines.append(Line("variants", label.variant.id, wrong, False, _build(label)))
        else:
            reports = [*(single[name] for name in found), pairs[wheel]]
            what = f"{len(found)} files, {sum(len(item.checks) for item in reports)} checks passed"
            lines.append(Line("variants", label.variant.id, what, True))
    return lines


def _one_of(stem: str, files: Sequence[str]) -> str:
    """The package of this name, in either form."""
    return next((stem + ending for ending in CONDA_ENDINGS if stem + ending in files), "")


def _unverified(
    files: Sequence[str], single: Mapping[str, ArtifactReport], pair: ArtifactReport | None
) -> str:
    """What of a variant did not pass, or was not looked at; empty where all of it did."""
    for name in files:
        item = single.get(name)
        if item is None:
            return f"not verified: {name}"
        if item.error is not None or item.failed:
            failed = ", ".join(sorted(item.failed)) or "cannot be read"
            return f"not verified: {name} fails {failed}"
    if pair is None or len(pair.facts.get("packages", ())) != len(files) - 1:
        return "not verified: the wheel was not compared with both packages"
    if pair.error is not None or pair.failed:
        return "not verified: the wheel and the packages hold different files"
    return ""


def _archs(promise: Promise, wheel: ArtifactReport) -> str:
    """How the GPU code differs from what the matrix says; empty where it does not."""
    wanted: set[str] = set()
    if promise.arch_list != "None":
        wanted = set(expected_codes(promise.arch_list, f"the matrix, {promise.variant.id}"))
    found = set(wheel.facts.get("archs", ()))
    if found == wanted:
        return ""
    return f"GPU code for {_words(found)}, and the matrix says {_words(wanted)}"


def _words(codes: set[str]) -> str:
    return " ".join(sorted(codes)) or "none"


def _build(label: Label) -> str:
    """The command that builds a label."""
    command = f"python scripts/build.py --variant {label.variant.id}"
    _, _, day = label.public_version.partition(".dev")
    if day and label.commit:
        command += f" --nightly {day} --commit {label.commit}"
    return f"{command} --build-number {label.build_number}" if label.build_number else command
