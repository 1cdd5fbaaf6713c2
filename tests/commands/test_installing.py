"""What docs/installing.md says to write into files is answered with our build, too."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import factories
import pytest
import yaml
from markdown_it import MarkdownIt
from site_of_page import Installers, Served
from solver import Case, solve
from typed import Elsewhere

from conda_bridge.publish import index

PAGE = Path(__file__).resolve().parents[2] / "docs" / "installing.md"
CUDA = factories.label_of("cu130_torch213")


def blocks(language: str) -> list[str]:
    """The blocks of a language."""
    tokens = MarkdownIt().parse(PAGE.read_text())
    return [token.content for token in tokens if token.type == "fence" and token.info == language]


UV, PIXI = blocks("toml")
[ENVIRONMENT] = blocks("yaml")
[REQUIREMENTS] = [text for text in blocks("") if text.startswith("--extra-index-url")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("installing")
    package = factories.write_pair(folder / "made", CUDA)
    wheel = factories.bridge(package, folder / "made").path
    made = [package, package.with_name(CUDA.lib_conda_file), wheel]
    index.publish(made, folder / "dist", project=factories.FLASHINFER)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    served = Served(folder)
    yield served
    served.stop()


@pytest.fixture(scope="module")
def elsewhere(folder: Path) -> Elsewhere:
    return Elsewhere(folder / "elsewhere")


def put_in(text: str, served: Served) -> str:
    """As a reader writes it."""
    places = {"<index>": f"{served.url}/dist/index", "<channel>": f"{served.url}/dist/channel"}
    for name, address in places.items():
        text = text.replace(name, address)
    assert "<" not in text
    return text


def test_uv_locks_and_installs_it(folder: Path, served: Served, elsewhere: Elsewhere) -> None:
    text = put_in(UV, served)
    taken = Installers(folder, served, elsewhere).taken([("uv-project", text)])
    assert taken == {text: {CUDA.wheel_file}}


def test_pip_takes_it_by_a_requirements_file(
    folder: Path, served: Served, elsewhere: Elsewhere
) -> None:
    (folder / "requirements.txt").write_text(put_in(REQUIREMENTS, served))
    taken = elsewhere.pip_takes("pip install -r requirements.txt", folder)
    assert taken[CUDA.wheel_file].startswith(served.url)


def test_conda_and_pixi_take_the_package(served: Served, elsewhere: Elsewhere) -> None:
    pixi = tomllib.loads(put_in(PIXI, served))
    environment = yaml.safe_load(put_in(ENVIRONMENT, served))
    [wanted] = [
        f"{name} {about['version']} {about['build']}"
        for name, about in pixi["dependencies"].items()
    ]
    machine = {"__glibc": "2.36", "__cuda": pixi["system-requirements"]["cuda"]}

    def case(channels: list[str], specs: list[str], *, priority: bool) -> Case:
        named = [elsewhere.channel if one == "conda-forge" else one for one in channels]
        return Case(named, specs, machine, priority=priority)

    answers = solve(
        {
            # pixi prefers a channel to those after it, always.
            "pixi": case(pixi["workspace"]["channels"], [wanted], priority=True),
            "conda": case(environment["channels"], environment["dependencies"], priority=False),
            "bare": case(environment["channels"], ["flashinfer"], priority=False),
        }
    )
    for name in ("pixi", "conda"):
        assert answers[name]["flashinfer"] == f"{CUDA.conda_version} {CUDA.conda_build}"
    assert not re.match(r"0\.1\.6 ", answers["bare"]["flashinfer"])  # the hostile ones are there
