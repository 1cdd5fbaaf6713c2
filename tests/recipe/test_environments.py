"""The environments for packagers come about on conda-forge, with what the recipe needs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import stand_in
from environments import FILES, ROOT, dependencies
from rattler import MatchSpec, Version, VersionSpec
from solver import Answer, Case, solve

MACHINE = {"__glibc": "2.36"}
# What environment.yml was before there were two files.
ONE_FOR_BOTH = [
    "python >=3.11",
    "conda-build >=25.3",
    "boa >=0.17",
    "rattler-build",
    "packaging",
    "ninja",
]
FIRST = "25.3.2"  # the first conda-build that makes right packages of the recipe


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Answer]:
    folder = tmp_path_factory.mktemp("channels") / "conda-forge"
    channels = [stand_in.write_channel(folder, stand_in.conda_forge())]
    files = {name: dependencies(name) for name in FILES}
    cases = {
        **{name: Case(channels, wanted, MACHINE) for name, wanted in files.items()},
        **{
            f"{name}, lowest": Case(channels, wanted, MACHINE, strategy="lowest-direct")
            for name, wanted in files.items()
        },
        "one for both": Case(channels, ONE_FOR_BOTH, MACHINE),
        "one for both, without boa": Case(
            channels, [spec for spec in ONE_FOR_BOTH if not spec.startswith("boa")], MACHINE
        ),
        "boa": Case(channels, ["boa"], MACHINE),
    }
    return solve(cases)


def version(answer: Answer, name: str) -> Version:
    assert not answer.refusal
    return Version(answer[name].split()[0])


def test_the_stand_in_is_whole() -> None:
    """A solver takes a package that is not there for one that cannot be installed."""
    records = stand_in.conda_forge()
    names = {record["name"] for record in records}
    files = [(record["name"], record["version"], record["build"]) for record in records]
    assert len(set(files)) == len(files)
    for record in records:
        for spec in record["depends"] + record["constrains"]:
            MatchSpec(spec)  # is one
        needed = {spec.split()[0] for spec in record["depends"]}
        assert {name for name in needed - names if not name.startswith("__")} == set(), record


@pytest.mark.parametrize("which", ["environment.yml", "environment.yml, lowest"])
def test_conda_build_and_rattler_build_in_one(answers: Mapping[str, Answer], which: str) -> None:
    answer = answers[which]
    assert version(answer, "conda-build") >= Version(FIRST)
    for name in ("conda", "rattler-build", "packaging", "ninja"):
        assert name in answer


@pytest.mark.parametrize(
    "which", ["environment-mambabuild.yml", "environment-mambabuild.yml, lowest"]
)
def test_mambabuild(answers: Mapping[str, Answer], which: str) -> None:
    answer = answers[which]
    assert Version(FIRST) <= version(answer, "conda-build") < Version("26")
    assert Version("1.5") <= version(answer, "libmambapy") < Version("1.6")


def test_what_boa_imports_is_there(answers: Mapping[str, Answer]) -> None:
    """It is installed without what it requires, but for conda-build as its package requires it."""
    [newest] = [
        record
        for record in stand_in.conda_forge()
        if (record["name"], record["version"], record["build_number"]) == ("boa", "0.17.0", 3)
    ]
    answer = answers["environment-mambabuild.yml"]
    unmet = []
    for spec in newest["depends"]:
        name, _, bounds = spec.partition(" ")
        if name not in answer or not VersionSpec(bounds or "*").matches(version(answer, name)):
            unmet.append(spec)
    assert unmet == ["conda-build >=3.25,<24.7"]


def test_no_environment_can_hold_boas_package_and_that_conda_build(
    answers: Mapping[str, Answer],
) -> None:
    assert "boa" in answers["one for both"].refusal
    assert "conda-build >=3.25,<24.7" in answers["one for both"].refusal
    # The others of that file do not stand in each other's way, and neither does boa by itself.
    assert not answers["one for both, without boa"].refusal
    assert version(answers["boa"], "conda-build") < Version("24.7")


def test_the_recipe_asks_for_the_same_conda_build() -> None:
    asked = f"conda-build >={FIRST}"
    assert asked in dependencies("environment.yml")
    assert f"{asked},<26" in dependencies("environment-mambabuild.yml")
    assert f"Needed: {asked}." in (ROOT / "recipe/meta.yaml").read_text()
