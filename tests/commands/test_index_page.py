"""The commands on the overview of the wheel index take the newest wheels of their folder."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import factories
import pytest
from typed import HOSTILE, Elsewhere, install_lines

from conda_bridge.publish import index
from flashinfer_build.label import Label

OLD = factories.label_of("cu130_torch213", public_version="0.1.5")
RELEASE = factories.label_of("cu130_torch213", build_number=1)
CANDIDATE = factories.label_of("cu130_torch213", public_version="0.1.7rc1")
NIGHTLY = factories.label_of("cpu_torch24", public_version="0.1.7.dev20261122", commit="1a2b3c4")
# In the page's order; of a folder with releases a newer candidate comes after the last release.
OFFERED = [NIGHTLY, RELEASE, CANDIDATE]


class Text(HTMLParser):
    """What a browser shows, with each ``pre`` on a line of its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.shown += "\n" if tag == "pre" else ""

    def handle_endtag(self, tag: str) -> None:
        self.shown += "\n" if tag == "pre" else ""

    def handle_data(self, data: str) -> None:
        self.shown += data


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("published") / "dist"
    for label in (*OFFERED, OLD, factories.label_of("cu130_torch213")):
        made = folder.with_name("made")
        factories.bridge(factories.write_pair(made, label), folder / "wheels")
    index.update(folder, project=factories.FLASHINFER)
    return folder


@pytest.fixture(scope="module")
def lines(dist: Path) -> list[str]:
    """The commands, for the address that the reader has."""
    shown = Text((dist / "index" / "index.html").read_text()).shown
    address = (dist / "index").as_uri()
    return [line.replace("<this address>", address) for line in install_lines(shown)]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    return Elsewhere(tmp_path_factory.mktemp("elsewhere"))


def test_each_folder_has_a_line_for_each_wheel_that_is_offered(lines: list[str]) -> None:
    assert len(lines) == len(OFFERED)


@pytest.mark.parametrize("label", OFFERED, ids=str)
def test_pip_takes_the_wheel(
    label: Label, lines: list[str], dist: Path, elsewhere: Elsewhere
) -> None:
    taken = elsewhere.pip_takes(lines[OFFERED.index(label)], dist)
    assert label.wheel_file in taken
    assert taken[label.wheel_file].startswith(dist.as_uri())
    assert any(name.startswith("torch-{}.{}.".format(*label.variant.torch)) for name in taken)


def test_without_a_version_pip_takes_another(
    lines: list[str], dist: Path, elsewhere: Elsewhere
) -> None:
    """What is elsewhere is hostile indeed."""
    bare = re.sub('"flashinfer==.*?"', "flashinfer", lines[0])
    assert list(elsewhere.pip_takes(bare, dist)) == [f"flashinfer-{HOSTILE}-py3-none-any.whl"]
