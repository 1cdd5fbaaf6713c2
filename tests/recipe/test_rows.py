"""Every row of conda_build_config.yaml is built on conda-forge, and no other row would be."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import environments
import packages
import pytest
import stand_in
from solver import Answer, Case, solve

from flashinfer_build import variants
from flashinfer_build.matrix import conda_commands
from flashinfer_build.variants import VariantSpec

SPECS = variants.load()
PLAIN = [spec for spec in SPECS if spec.on_conda_forge]
OTHERS = [spec for spec in SPECS if not spec.on_conda_forge]
# The oldest C library that the packages run on.
MACHINE = {"__glibc": "2.28"}


@dataclass(frozen=True)
class Where:
    """One environment of one row's build."""

    row: str
    package: str
    environment: str  # build, host, test
    builder: str
    driver: str | None

    def __str__(self) -> str:
        driver = f"with a driver of {self.driver}" if self.driver else "without a driver"
        return f"{self.row}: {self.environment} of {self.package}, {self.builder}, {driver}"


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """conda-forge's, and one with our packages of all rows."""
    folder = tmp_path_factory.mktemp("channels")
    ours: dict[tuple[str, str], stand_in.Record] = {}
    for spec in SPECS:
        for output in packages.outputs(spec):
            record = output.record
            assert ours.setdefault((record["name"], record["build"]), record) == record
    return [
        stand_in.write_channel(folder / "conda-forge", stand_in.conda_forge()),
        stand_in.write_channel(folder / "ours", ours.values()),
    ]


@pytest.fixture(scope="module")
def pythons(channels: list[str]) -> Mapping[str, str | None]:
    """What a bare ``python`` of the recipe is to each builder: conda-build has its own in mind."""
    tools = solve(
        {
            command: Case(channels[:1], environments.dependencies(file), MACHINE)
            for file, command in environments.FILES.items()
        }
    )
    own = {command: answer["python"].split(".")[:2] for command, answer in tools.items()}
    return {"rattler-build": None, **{name: ".".join(minor) for name, minor in own.items()}}


@pytest.fixture(scope="module")
def answers(channels: list[str], pythons: Mapping[str, str | None]) -> Mapping[Where, Answer]:
    return solve({where: case for spec in SPECS for where, case in cases(spec, channels, pythons)})


def cases(
    spec: VariantSpec, channels: list[str], pythons: Mapping[str, str | None]
) -> Iterator[tuple[Where, Case]]:
    """Each environment, on a machine with the row's CUDA and on one as the files pretend."""
    own = spec.cuda_nvcc if spec.variant.cuda else None
    drivers = dict.fromkeys([own, *pretended(), None])
    for builder, python in pythons.items():
        for output in packages.outputs(spec, python=python):
            for environment, wanted in output.environments.items():
                for driver in drivers:
                    machine = {**MACHINE, **({"__cuda": driver} if driver else {})}
                    where = Where(spec.id, output.record["name"], environment, builder, driver)
                    yield where, Case(channels, wanted, machine)


def pretended() -> list[str]:
    return [environments.variables(file)["CONDA_OVERRIDE_CUDA"] for file in environments.FILES]


def refused(answers: Mapping[Where, Answer], spec: VariantSpec) -> dict[Where, str]:
    """The environments that do not come about where somebody builds as the files say."""
    return {
        where: answer.refusal
        for where, answer in answers.items()
        if where.row == spec.id and answer.refusal and (where.driver or spec.variant.cuda is None)
    }


@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.id)
def test_a_row_of_the_plain_file(answers: Mapping[Where, Answer], spec: VariantSpec) -> None:
    found = [f"{where}\n{text}" for where, text in refused(answers, spec).items()]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.id)
def test_the_commands_for_a_row_are_for_such_a_machine(
    answers: Mapping[Where, Answer], spec: VariantSpec
) -> None:
    """Each environment of the build comes about with the driver and channels that they name."""
    made = conda_commands.commands(SPECS, [spec], file=Path("rows.yaml"))
    assert set(made.commands) == {"rattler-build", *environments.FILES.values()}
    for builder, line in made.commands.items():
        words = shlex.split(line)
        driver = words[0].partition("=")[2] if "=" in words[0] else None
        channels = [word for flag, word in pairwise(words) if flag == "-c"]
        assert channels == ["conda-forge"]
        answered = {
            (where.package, where.environment): answer.refusal
            for where, answer in answers.items()
            if (where.row, where.builder, where.driver) == (spec.id, builder, driver)
        }
        assert len(answered) == 6  # of two packages
        assert not any(answered.values())


MISSING = {
    "cpu_torch214": "No candidates were found for pytorch 2.14.*",
    "cpu_torch215": "No candidates were found for pytorch 2.15.*",
    "cu118_torch24": "No candidates were found for cuda-nvcc 11.8.*",
    "cu118_torch25": "No candidates were found for cuda-nvcc 11.8.*",
    "cu118_torch26": "No candidates were found for cuda-nvcc 11.8.*",
    "cu118_torch27": "No candidates were found for cuda-nvcc 11.8.*",
    "cu126_torch214": "No candidates were found for pytorch 2.14.*",
    "cu130_torch29": "cuda-version >=13,<14",
    "cu130_torch214": "No candidates were found for pytorch 2.14.*",
    "cu132_torch215": "No candidates were found for pytorch 2.15.*",
}


@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.id)
def test_a_row_for_other_channels(answers: Mapping[Where, Answer], spec: VariantSpec) -> None:
    """Where this fails, conda-forge has what was missing: the row belongs into the plain file."""
    found = refused(answers, spec)
    for builder in ("rattler-build", *environments.FILES.values()):
        said = [text for where, text in found.items() if where.builder == builder]
        assert any(MISSING[spec.id] in text for text in said), builder


@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: spec.id)
def test_what_a_row_is_built_and_tested_with(
    answers: Mapping[Where, Answer], spec: VariantSpec
) -> None:
    for where, answer in answers.items():
        if where.row != spec.id or answer.refusal:
            continue
        if where.environment == "build":
            assert answer["gxx_linux-64"].startswith(f"{spec.cxx_compiler_version}.")
            assert answer["sysroot_linux-64"].startswith("2.28 ")
            if spec.variant.cuda:
                assert answer["cuda-nvcc"].startswith(f"{spec.cuda_nvcc}.")
        elif where.package == "flashinfer":
            assert answer["pytorch"].startswith(f"{spec.pytorch}.")
            assert answer["libflashinfer"].endswith(f" {spec.variant.cuda_tag}_0")
        if where.environment == "test" and where.package == "flashinfer":
            build = answer["pytorch"].split()[1]
            major = build.removeprefix("cuda")[:2] if build.startswith("cuda") else None
            assert major == (str(spec.variant.cuda[0]) if spec.variant.cuda else None)


def test_no_newer_compiler_would_do(channels: list[str]) -> None:
    """cxx_compiler_version is the newest that the row's cuda-nvcc takes, up to 14."""
    older = {
        spec.variant.cuda_tag: (spec, f"gxx_linux-64 {int(spec.cxx_compiler_version) + 1}.*")
        for spec in PLAIN
        if int(spec.cxx_compiler_version) < 14
    }
    refusals = solve(
        {
            name: Case(channels, [f"cuda-nvcc {spec.cuda_nvcc}.*", newer], MACHINE)
            for name, (spec, newer) in older.items()
        }
    )
    assert set(refusals) == {"cu121", "cu124", "cu126"}
    for name, answer in refusals.items():
        assert "gcc_impl_linux-64" in answer.refusal, name


def test_a_cuda_package_is_not_tested_without_a_driver(answers: Mapping[Where, Answer]) -> None:
    """So the environment files pretend that there is one."""
    without = [
        (where, answer)
        for where, answer in answers.items()
        if where.driver is None and where.package == "flashinfer" and where.environment == "test"
    ]
    plain = {spec.id for spec in PLAIN}
    assert {where.row for where, _ in without} == {spec.id for spec in SPECS}
    for where, answer in without:
        if where.row in plain:
            assert ("__cuda" in answer.refusal) == where.row.startswith("cu"), where


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_what_the_packages_ask_for_in_the_end(spec: VariantSpec) -> None:
    """The recipe's requirements, and of what conda-forge's packages export only the C libraries."""
    library, binding = (output.record for output in packages.outputs(spec))
    # conda-forge's last package of g++ 11 asks for more than that.
    runtime = {"11": "13"}.get(spec.cxx_compiler_version, spec.cxx_compiler_version)
    exported = [f"libstdcxx >={runtime}", f"libgcc >={runtime}", "__glibc >=2.28,<3.0.a0"]
    assert library["depends"] == exported
    assert binding["depends"][-len(exported) :] == exported
    names = [text.split()[0] for text in binding["depends"][: -len(exported)]]
    driver = ["__cuda"] if spec.variant.cuda else []
    assert names == ["python", "pytorch", *driver, "libflashinfer"]
