"""The conda command of an import error is answered by a solver with the variant that it names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import packages
import pytest
import stand_in
from solver import Answer, Case, solve

from flashinfer import _compat
from flashinfer_build import variants
from flashinfer_build.checks import build_info
from flashinfer_build.label import Label

SPECS = variants.select(
    variants.load(), ["cu130_torch213", "cu126_torch29", "cpu_torch213", "cpu_torch210"]
)
# A release, its candidate, a nightly, and one of a candidate: conda and PEP 440 spell them apart.
VERSIONS = {
    "0.1.6": "",
    "0.1.7rc1": "",
    "0.1.7.dev20261122": "1a2b3c4",
    "0.1.8rc1.dev20261123": "0123456",
}
[CUDA_12] = [spec for spec in SPECS if spec.id == "cu126_torch29"]
CASES = [(spec, version) for spec in SPECS for version in VERSIONS]


def _label(spec: variants.VariantSpec, version: str) -> Label:
    return Label(spec.variant, version, 0, VERSIONS[version] or None)


def _printed(spec: variants.VariantSpec, version: str, cuda: str = "") -> list[str]:
    """The commands that an installed package of torch 2.4 prints, of pip and of conda."""
    label = Label(variants.Variant.parse("cu124_torch24"), version, 0, VERSIONS[version] or None)
    facts = {"CUDA": "12.4.131", "CXX11_ABI": True, "ARCH_LIST": "9.0a"}
    build = _compat.read_build(SimpleNamespace(**build_info.expected(label), **facts))
    torch = "{}.{}".format(*spec.variant.torch)
    return list(_compat.commands(build, cuda or spec.variant.cuda_tag, torch))


def _typed(spec: variants.VariantSpec, version: str, cuda: str = "") -> list[str]:
    """What follows the channels of the command for conda."""
    words = shlex.split(_printed(spec, version, cuda)[1])
    assert words[:6] == ["conda", "install", "-c", "<channel>", "-c", "conda-forge"]
    return words[6:]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Answer]:
    folder: Path = tmp_path_factory.mktemp("channels")
    records = {}
    for spec, version in CASES:
        environ = {
            "FLASHINFER_BUILD_VERSION": version,
            "FLASHINFER_BUILD_COMMIT": VERSIONS[version],
        }
        for output in packages.outputs(spec, environ):
            record = output.record
            records[record["name"], record["version"], record["build"]] = record
    # Somebody else's, of a higher version; and the next release, with the same build strings.
    hostile = [stand_in.record("flashinfer", "99", "h_0")]
    hostile += [{**record, "version": f"{record['version']}.1"} for record in records.values()]
    channels = [
        stand_in.write_channel(folder / "ours", records.values()),
        stand_in.write_channel(folder / "conda-forge", [*stand_in.conda_forge(), *hostile]),
    ]
    return solve(
        {
            f"{spec.id} {version}": Case(
                channels,
                _typed(spec, version),
                {
                    "__glibc": "2.36",
                    **({"__cuda": spec.cuda_nvcc} if spec.variant.cuda else {}),
                },
                priority=False,
            )
            for spec, version in CASES
        }
        # Of the doctor, for a driver of CUDA 12: what there is for it.
        | {
            f"any CUDA 12 {version}": Case(
                channels,
                _typed(CUDA_12, version, "cu12*"),
                {"__glibc": "2.36", "__cuda": "12.4"},
                priority=False,
            )
            for version in VERSIONS
        }
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_the_solver_takes_what_the_command_names(
    answers: Mapping[str, Answer], spec: variants.VariantSpec, version: str
) -> None:
    answer = answers[f"{spec.id} {version}"]
    label = _label(spec, version)
    assert not answer.refusal
    assert answer["flashinfer"] == f"{label.conda_version} {label.conda_build}"
    assert answer["pytorch"].startswith("{}.{}.".format(*spec.variant.torch))


@pytest.mark.parametrize("version", VERSIONS)
def test_conda_finds_a_variant_for_the_major_of_a_driver(
    answers: Mapping[str, Answer], version: str
) -> None:
    answer = answers[f"any CUDA 12 {version}"]
    label = _label(CUDA_12, version)
    assert not answer.refusal
    assert answer["flashinfer"] == f"{label.conda_version} {label.conda_build}"
    assert answer["pytorch"].startswith("2.9.")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_the_commands_are_those_of_the_label(spec: variants.VariantSpec, version: str) -> None:
    """The installed package cannot ask the label module: it has what that composed for it."""
    label = _label(spec, version)
    torch = "{}.{}".format(*spec.variant.torch)
    pip, conda = _printed(spec, version)
    beside = f' "torch=={torch}.*" --extra-index-url'
    assert pip == label.pip_install("<index>").replace(" --extra-index-url", beside)
    # Which rebuild there is of another variant, an installed package does not know.
    assert conda == f'{label.conda_install("<channel>")[:-2]}*" "pytorch={torch}"'
