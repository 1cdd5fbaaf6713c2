"""The benchmark of publishing, on the smallest matrix: it counts what a client asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import publish
from benchmarks.link import serving
from benchmarks.publish import NAME, labels, measure, table


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> publish.Numbers:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "_TIMES", 1)
        return measure(tmp_path_factory.mktemp("publish"), (2, 1, 1), seconds=0.001)


def test_everything_is_published(result: publish.Numbers) -> None:
    # Two variants of the CPU in two versions: a wheel and a package each, and a library a version.
    assert (result["wheels"], result["packages"]) == (4, 6)
    assert {"repodata.json", "repodata.json.zst"} <= set(result["documents"])
    assert all(size > 0 for size in result["documents"].values())


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_the_page_the_metadata_and_the_wheel_are_fetched(
    tool: str, result: publish.Numbers
) -> None:
    cost = result["clients"][f"{tool}, page of a variant"]
    assert cost["requests"] in (2, 3)  # uv takes no metadata where it resolves nothing
    assert cost["bytes"] > result["documents"]["page of a variant, html"]


@pytest.mark.parametrize("form", ["json", "zst"])
def test_the_form_of_the_repodata_is_the_one_that_was_asked_for(
    form: str, result: publish.Numbers
) -> None:
    cost = result["clients"][f"py-rattler, site/channel, repodata {form}"]
    name = "repodata.json" + (".zst" if form == "zst" else "")
    assert cost["bytes"] > result["documents"][name]
    plain = result["clients"]["py-rattler, site/channel, repodata json"]
    assert (form == "json") == (cost["bytes"] == plain["bytes"])


def test_the_table_has_every_number(result: publish.Numbers) -> None:
    text = table(result)
    for name in (*result["clients"], *result["documents"], "publish first", "index channel"):
        assert name in text


def test_the_labels_are_as_many_and_in_order() -> None:
    found = labels(100, 3, 30)
    assert [len(of) for of in found.values()] == [100] * 33
    assert len({label.wheel_file for of in found.values() for label in of}) == 3300
    assert list(found)[:4] == ["0.1.0", "0.1.1", "0.1.2", "0.2.0.dev20261101"]
    assert found["0.1.0"][0].pip_install("x").startswith(f'pip install "{NAME}==0.1.0+cputorch2.4"')


def test_the_link_counts_what_goes_through_it(tmp_path: Path) -> None:
    import urllib.request

    (tmp_path / "file").write_bytes(bytes(100_000))
    with serving(tmp_path, seconds=0.001) as traffic:
        for _ in range(2):
            with urllib.request.urlopen(f"{traffic.url}/file") as answer:
                assert len(answer.read()) == 100_000
    assert traffic.requests == ["GET /file HTTP/1.1"] * 2
    assert traffic.connections == 2
    assert 200_000 < traffic.received < 201_000
