"""From one version to another: nothing of the old one stays, and what is mixed never runs."""

from __future__ import annotations

import functools
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import factories
import installers
import pytest
import toy_builds
from solver import Case, solve
from toy_builds import Places, Site
from wheel_factory import make_wheel

from conda_bridge.publish import index
from flashinfer_build import snippet
from flashinfer_build.label import Label

OLD = factories.label_of("cpu_torch213")
NEW = factories.label_of("cpu_torch213", public_version="0.1.7")
NIGHTLY = factories.label_of("cpu_torch213", public_version="0.1.7.dev20261130", commit="1a2b3c4")
TWIN = factories.label_of("cpu_torch213", public_version="0.1.7.dev20261130", commit="2b3c4d5")
TORCH = factories.label_of("cpu_torch214")
CUDA = factories.label_of("cu130_torch213")
LABELS = (OLD, NEW, NIGHTLY, TWIN, TORCH, CUDA)
# Release to release, nightly to release, torch to torch, back again, CPU to CUDA.
STEPS = [(OLD, NEW), (NIGHTLY, NEW), (OLD, TORCH), (NEW, OLD)]
OF_WHEELS = [*STEPS, (OLD, CUDA)]


def names(step: object) -> str:
    return str(step)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return toy_builds.places(tmp_path_factory.mktemp("upgrades"), LABELS)


def wheel(label: Label, places: Places) -> list[str]:
    """What follows ``pip install`` on the line that is printed for a build."""
    return shlex.split(label.pip_install(places.index))[2:]


def sync(site: Site, label: Label) -> None:
    """The project's file for this build, and ``uv sync``."""
    text = snippet.snippet(label, "uv", site.places.index)
    project = site.prefix.with_name(f"{site.prefix.name}-project")
    project.mkdir(exist_ok=True)
    (project / "pyproject.toml").write_text(text)
    uv = installers.UV
    command = [uv, "sync", "--quiet", "--project", str(project)]
    site.run(*command, UV_PROJECT_ENVIRONMENT=str(site.prefix))


WITH = {
    "pip": lambda site, label: site.pip("install", "-U", *wheel(label, site.places)),
    "uv pip": lambda site, label: site.uv("install", "-U", *wheel(label, site.places)),
    "uv sync": sync,
    "conda": lambda site, label: site.conda(label.conda_spec),
}


@pytest.fixture(scope="module")
def fresh(
    places: Places, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Label, bool], dict[str, str]]:
    """The files of a build in an environment that had none before."""

    @functools.cache
    def files(label: Label, conda: bool) -> dict[str, str]:
        site = Site(tmp_path_factory.mktemp("fresh") / "env", places)
        WITH["conda" if conda else "uv pip"](site, label)
        return site.files()

    return files


def check_whole(site: Site, label: Label, files: dict[str, str]) -> None:
    """That this build is there and no other."""
    assert site.files() == files
    assert site.metadata() == {label.wheel_version}
    assert site.version() == label.wheel_version
    report = site.doctor()
    assert report["build"]["version"] == label.wheel_version
    assert report["torch"]["version"].startswith("{}.{}.".format(*label.variant.torch))
    assert Path(report["library"]).relative_to(site.prefix).as_posix() in files


@pytest.mark.parametrize(
    ("tool", "before", "after"),
    [
        *(("pip", *step) for step in STEPS[:3]),  # which takes a second for each
        *(("uv pip", *step) for step in OF_WHEELS[2:]),
        *(("uv sync", *step) for step in OF_WHEELS),
        *(("conda", *step) for step in STEPS),
    ],
    ids=names,
)
def test_an_upgrade_leaves_one_version(
    tool: str,
    before: Label,
    after: Label,
    places: Places,
    fresh: Callable[[Label, bool], dict[str, str]],
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "env", places)
    # A wheel that uv has installed is one that pip can upgrade, too.
    first = "pip" if (tool, before, after) == ("pip", OLD, NEW) else tool.replace("pip", "uv pip")
    WITH.get(first, WITH["uv pip"])(site, before)
    conda = tool == "conda"
    assert site.version() == before.wheel_version
    WITH[tool](site, after)
    check_whole(site, after, fresh(after, conda))
    assert fresh(before, conda).keys() != fresh(after, conda).keys() or before == TORCH
    if conda:
        stems = {after.conda_stem, after.library.conda_stem}
        assert site.conda_packages() == stems


def test_a_rebuild_is_taken_when_it_is_asked_for(tmp_path: Path) -> None:
    """Its version is that of the build before, so an installer that has one sees no need."""
    rebuild = factories.label_of("cpu_torch213", build_number=1)
    places = toy_builds.places(tmp_path, [OLD])
    site, project = Site(tmp_path / "env", places), Site(tmp_path / "synced", places)
    WITH["uv pip"](site, OLD)
    sync(project, OLD)
    made = toy_builds.write(tmp_path / "made", rebuild)
    index.publish(made, tmp_path / "dist", project=factories.FLASHINFER)

    def number(one: Site) -> int:
        text = (one.packages / "flashinfer" / "_build_info.py").read_text()
        return int(re.findall(r"BUILD_NUMBER = (\d+)", text)[0])

    for name, one in (("pip", site), ("uv pip", site), ("uv sync", project)):
        WITH[name](one, rebuild)
    assert (number(site), number(project)) == (0, 0)
    site.pip("install", "--force-reinstall", "--no-deps", *wheel(rebuild, places))
    uv = installers.UV
    command = [uv, "sync", "--quiet", "--project", str(tmp_path / "synced-project")]
    command += ["--upgrade-package", "flashinfer", "--reinstall-package", "flashinfer"]
    project.run(*command, UV_PROJECT_ENVIRONMENT=str(project.prefix))
    assert (number(site), number(project)) == (1, 1)
    assert site.files() == project.files()


def test_the_solver_moves_both_packages_or_none(places: Places) -> None:
    machine = {"__glibc": "2.36"}

    def case(installed: str, wanted: str) -> Case:
        return Case(places.channels, [wanted], machine, installed=[installed])

    answers = solve(
        {
            "pinned": case(OLD.conda_spec, NEW.library.conda_spec),
            "open": case("flashinfer", OLD.library.conda_spec),
            "nightly": case(NIGHTLY.conda_spec, TWIN.library.conda_spec),
            "upgrade": case("pytorch=2.13", NEW.conda_spec),
        }
    )
    for name in ("pinned", "nightly"):
        assert "cannot be installed" in answers[name].refusal
    for name, label in (("open", OLD), ("upgrade", NEW)):
        assert answers[name]["flashinfer"].split()[0] == label.conda_version
        assert answers[name]["libflashinfer"].split()[0] == label.conda_version


# ------------------------------------------------------------ what is mixed all the same


def wheel_below_conda(site: Site) -> Label:
    """A wheel, and then the conda package in the same environment."""
    WITH["uv pip"](site, NEW)
    site.conda(OLD.conda_spec)
    return OLD


def conda_after_pip_after_conda(site: Site) -> Label:
    """Pip upgrades what conda has installed; conda does not know, and repairs its own."""
    site.conda(OLD.conda_spec)
    WITH["pip"](site, NEW)
    site.conda(OLD.conda_spec, reinstall=True)
    return OLD


def library_of_another_version(site: Site) -> Label:
    """Somebody forces one package alone to another version."""
    site.conda(OLD.conda_spec)
    site.conda(NEW.library.conda_spec, with_dependencies=False)
    return OLD


def library_of_another_commit(site: Site) -> Label:
    """The same of two nightlies of one day."""
    site.conda(NIGHTLY.conda_spec)
    site.conda(TWIN.library.conda_spec, with_dependencies=False)
    return NIGHTLY


def binding_of_another_version(site: Site) -> Label:
    """An upgrade that ended after some files: the compiled ones are the old ones."""
    WITH["uv pip"](site, OLD)
    kept = {
        name: (site.packages / "flashinfer" / name).read_bytes()
        for name in ("_C.abi3.so", "lib/libflashinfer.so")
    }
    WITH["uv pip"](site, NEW)
    for name, data in kept.items():
        put(site.packages / "flashinfer" / name, data)
    return NEW


def binding_of_another_commit(site: Site) -> Label:
    """The same of two nightlies of one day."""
    WITH["uv pip"](site, TWIN)
    kept = (site.packages / "flashinfer" / "_build_info.py").read_bytes()
    WITH["uv pip"](site, NIGHTLY)
    put(site.packages / "flashinfer" / "_build_info.py", kept)
    return TWIN


def put(path: Path, data: bytes) -> None:
    """Another content in place of a file, which may be a link into an installer's cache."""
    path.unlink()
    path.write_bytes(data)


def remove_as_advised(site: Site, finding: dict[str, Any]) -> None:
    """Does what the advice says before the commands."""
    for command in re.findall(r"`([^`]+)`", finding["advice"]):
        program, verb, *rest = command.split()
        if program == "pip":
            site.pip(verb, "-y", *rest)
        else:
            assert (program, verb) == ("conda", "remove")
            site.conda(*rest, remove=True)
    [folder] = re.findall(r"Remove the folder (\S+) and", finding["advice"])
    assert Path(folder) == site.packages / "flashinfer"
    shutil.rmtree(folder, ignore_errors=True)
    for path in site.packages.glob("flashinfer-*.dist-info"):
        shutil.rmtree(path)


def mend(site: Site, report: dict[str, Any]) -> None:
    """Does what the doctor says."""
    finding = report["findings"][0]
    remove_as_advised(site, finding)
    pip, conda = (finding["commands"][name] for name in ("pip", "conda"))
    assert bool(pip) != bool(conda)
    if conda:
        words = shlex.split(conda)
        assert "--force-reinstall" in words
        site.conda(*(word for word in words if "flashinfer=" in word), reinstall=True)
        return
    words = shlex.split(pip)
    if words[0] == "uv":
        site.run(installers.UV, *words[1:])
    else:  # by the Python of this environment, which has no pip of its own here
        site.pip(*words[words.index("install") :])


@pytest.mark.parametrize(
    ("make", "loaded"),
    [
        (wheel_below_conda, "site-packages/flashinfer/lib/libflashinfer.so"),
        (conda_after_pip_after_conda, "site-packages/flashinfer/lib/libflashinfer.so"),
        (library_of_another_version, "env/lib/libflashinfer.so"),
        (library_of_another_commit, "env/lib/libflashinfer.so"),
        (binding_of_another_version, "site-packages/flashinfer/lib/libflashinfer.so"),
        (binding_of_another_commit, "site-packages/flashinfer/lib/libflashinfer.so"),
    ],
)
def test_what_is_mixed_is_not_imported_and_can_be_mended(
    make: Callable[[Site], Label],
    loaded: str,
    places: Places,
    fresh: Callable[[Label, bool], dict[str, str]],
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "env", places)
    label = make(site)
    error = site.import_error()
    assert "Files of two installations are mixed" in error
    assert re.search(rf"\(loaded: \S*{re.escape(loaded)}\)", error)
    report = site.doctor(1)
    assert {finding["code"] for finding in report["findings"]} == {"files-mixed"}
    mend(site, report)
    check_whole(site, label, fresh(label, bool(site.conda_packages())))


def test_a_library_that_the_environment_names_is_told_from_one_that_is_left(
    places: Places, tmp_path: Path
) -> None:
    site = Site(tmp_path / "env", places)
    WITH["uv pip"](site, OLD)
    other = tmp_path / "other"
    other.mkdir()
    (other / "libflashinfer.so").write_bytes(toy_builds.library(NEW))
    error = site.import_error(LD_LIBRARY_PATH=f"{tmp_path}:{other}")
    assert f"Take {other} out of LD_LIBRARY_PATH." in error
    assert "install" not in error.partition("LD_LIBRARY_PATH.")[2]
    [finding] = site.doctor(1, LD_LIBRARY_PATH=str(other))["findings"]
    assert finding["code"] == "files-mixed"
    assert not any(finding["commands"].values())
    assert site.version() == OLD.wheel_version


def test_another_distribution_with_the_same_folder_is_found(
    places: Places,
    fresh: Callable[[Label, bool], dict[str, str]],
    tmp_path: Path,
) -> None:
    files = {"flashinfer/__init__.py": "", "flashinfer/of_theirs.py": ""}
    other, _ = make_wheel(tmp_path, "flashinfer-python", "0.7.4", files=files)
    site = Site(tmp_path / "env", places)
    site.uv("install", str(other))
    WITH["uv pip"](site, OLD)
    report = site.doctor(1)
    [finding] = report["findings"]
    assert finding["problem"].startswith("flashinfer-python 0.7.4 has put files into the folder")
    mend(site, report)
    check_whole(site, OLD, fresh(OLD, False))


def test_a_wheel_over_a_package_of_conda_is_found(
    places: Places,
    fresh: Callable[[Label, bool], dict[str, str]],
    tmp_path: Path,
) -> None:
    """It runs, until conda changes anything of its own."""
    site = Site(tmp_path / "env", places)
    site.conda(OLD.conda_spec)
    WITH["pip"](site, NEW)
    assert site.version() == NEW.wheel_version
    report = site.doctor(1)
    [finding] = report["findings"]
    assert finding["problem"].startswith(f"{OLD.conda_stem} of conda has put files into the folder")
    mend(site, report)
    check_whole(site, NEW, fresh(NEW, False))
    assert not site.conda_packages()
