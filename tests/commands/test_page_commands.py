"""The page beside the index: each command that it shows takes the file that it names."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import urllib.parse
from pathlib import Path
from typing import Any

import factories
import html5lib
import pytest
import site_of_page as of_page
from site_of_page import CPU, CUDA, NIGHTLY, OFFERED, OLD, Installers, Page, Served, Shown
from typed import Elsewhere

from conda_bridge.hooks import Condition
from conda_bridge.publish import site_page
from conda_bridge.publish.facts import Facts
from conda_bridge.publish.listing import Item
from flashinfer_build import variants
from flashinfer_build.checks.page import conditions
from flashinfer_build.label import Label

node = pytest.mark.skipif(not of_page.has_node(), reason="there is no node to run the script with")


@pytest.fixture(scope="module")
def page(site: Path) -> Page:
    return Page((site / "index.html").read_text())


@pytest.fixture(scope="module")
def address(served: Served, site: Path) -> str:
    """As a browser has it: the apostrophe and others are no characters that it escapes."""
    return f"{served.url}/{urllib.parse.quote(site.name, safe='')}"


@pytest.fixture(scope="module")
def installers(top: Path, served: Served) -> Installers:
    return Installers(top, served, Elsewhere(top / "elsewhere"))


@pytest.fixture(scope="module")
def shown(page: Page, address: str) -> list[Shown]:
    """All commands, by whichever way they are found."""
    found = page.shown_without_script(address)
    return [*found, *page.shown_under_node(address)] if of_page.has_node() else found


@pytest.fixture(scope="module")
def taken(shown: list[Shown], installers: Installers) -> dict[str, set[str]]:
    return installers.taken((one.picked["client"], one.command) for one in shown if one.command)


# ------------------------------------------------------------ the commands


def test_each_command_takes_what_the_page_names(
    shown: list[Shown], taken: dict[str, set[str]]
) -> None:
    for one in shown:
        if one.command:
            # The table names the main package alone in the row that has the command.
            assert set(one.files) <= taken[one.command], one
            assert taken[one.command] <= {*one.files, *_libraries(one)}, one


def _libraries(one: Shown) -> set[str]:
    return {
        label.lib_conda_file
        for label in (*OFFERED, of_page.REPLACED)
        if label.conda_file in one.files
    }


def test_the_newest_build_of_each_variant_can_be_had(shown: list[Shown]) -> None:
    had = {name for one in shown if one.command for name in one.files}
    for label in OFFERED:
        assert (label.wheel_file in had) == (label != of_page.PACKAGES_ALONE)
        assert (label.conda_file in had) == (label != of_page.WHEEL_ALONE)


def test_every_command_names_one_build(shown: list[Shown]) -> None:
    """So that nobody's 99 on another index is taken; the indexes that were asked have one."""
    for one in filter(lambda one: one.command, shown):
        if one.picked["client"] == "conda":
            assert re.search(r'"flashinfer=[\w.]+=\w+_\d+"', one.command)
        else:
            version = r'"flashinfer==[\w.]+\+\w+torch[\d.]+"'
            direct = r'"flashinfer @ \S+\.whl#sha256=[0-9a-f]{64}"'
            replaced = _replaced()[0] in one.files
            assert re.search(direct if replaced else version, one.command)
        if one.picked["client"] == "uv" and not replaced:
            assert "--index-strategy first-index" in one.command
        if one.picked["client"] == "uv-project":
            assert "explicit = true" in one.command


@node
def test_with_and_without_the_script_the_commands_are_the_same(page: Page, address: str) -> None:
    plain = {
        (one.command, one.files[0])
        for one in page.shown_without_script(address)
        # Of what a rebuild took the place of, the table still has the row.
        if not any(name in one.files for name in _replaced())
    }
    chosen = {
        (one.command, one.files[0])
        for one in page.shown_under_node(address)
        if one.command and one.picked["client"] != "uv-project"
    }
    assert plain == chosen


def _replaced() -> tuple[str, str]:
    return of_page.REPLACED.wheel_file, of_page.REPLACED.conda_file


@node
def test_what_there_is_not_is_said_with_what_there_is(page: Page, address: str) -> None:
    answer = page.under_node(address)
    pairs = {label.variant for label in OFFERED}
    for picked, there in zip(page.choices(), answer["others"], strict=True):
        cuda, torch = picked["cuda"], picked["torch"]
        own = {_pair(variant) for variant in pairs}
        assert set(there["torch"]) == {t for c, t in own if c == cuda}
        assert set(there["cuda"]) == {c for c, t in own if t == torch}
    for one in page.shown_under_node(address):
        there = (one.picked["cuda"], one.picked["torch"]) in own
        alone = of_page.WHEEL_ALONE if one.picked["client"] == "conda" else of_page.PACKAGES_ALONE
        without = _pair(alone.variant) == (one.picked["cuda"], one.picked["torch"])
        assert bool(one.command) == (there and not without)


def _pair(variant: object) -> tuple[str, str]:
    cuda, torch = variant.cuda, variant.torch  # type: ignore[attr-defined]
    return "{}.{}".format(*cuda) if cuda else "", "{}.{}".format(*torch)


@node
def test_an_address_is_one_word_for_a_shell_and_the_same_for_a_server(page: Page) -> None:
    given = ["http://x.test/a/b", "file:///it's%20(1)%20$HOME", "http://x.test/`a`;&|*?\\é"]
    for text, quoted in zip(given, page.under_node("", addresses=given)["quoted"], strict=True):
        assert not re.search(r"[\s'\"$`;&|*?()<>\\!#{}]", quoted)
        assert urllib.parse.unquote(quoted) == urllib.parse.unquote(text)


# ------------------------------------------------------------ the doctor's report


def machine(torch: str, cuda: str, **other: Any) -> dict[str, Any]:
    """What the doctor finds on a machine; all else is as most have it."""
    usual = {"abi": True, "driver": cuda, "gpus": ["9.0"], "libc": "glibc 2.36"}
    return {"torch": torch, "cuda": cuda, "installer": "pip", **usual, **other}


# Of each machine: the build for it, and why it does not fit.
MACHINES: list[tuple[dict[str, Any], Label, str]] = [
    (machine("2.13.0+cu130", "13.0"), CUDA, ""),
    (machine("2.13.1", "13.2", gpus=["8.6", "12.0"], libc="glibc 2.31", installer="uv"), CUDA, ""),
    (machine("2.13.0+cpu", "", gpus=[], installer="conda"), CPU, ""),
    # CUDA promises compatibility within a major version; the nearest is taken.
    (machine("2.9.1+cu128", "12.8", driver="12.9"), OFFERED[5], ""),
    (machine("2.13.0", "12.6", installer="uv"), of_page.WHEEL_ALONE, ""),
    (machine("2.9.1", "13.0", installer="conda"), of_page.PACKAGES_ALONE, ""),
    # That it fits counts before that it can be had: the page says where it can.
    (machine("2.9.1", "13.0"), of_page.PACKAGES_ALONE, ""),
    (machine("2.13.0", "13.0", driver="12.4"), CUDA, "the CUDA of the driver there is 12.4"),
    (machine("2.13.0", "13.0", gpus=["7.5", "9.0"]), CUDA, "a GPU of compute capability 7.5"),
    (machine("2.13.0", "13.0", libc="glibc 2.17"), CUDA, "needs glibc 2.28 or newer"),
    (machine("2.13.0", "13.0", libc="no glibc"), CUDA, "needs glibc 2.28 or newer"),
    (machine("2.4.1", "", abi=True, gpus=[]), OFFERED[6], "take the conda package"),
    (machine("2.4.1", "", abi=False, gpus=[], installer="conda"), OFFERED[6], "take the wheel"),
    (machine("2.99.0", "13.0"), CUDA, "and the torch there is 2.99"),
]


@node
def test_a_report_chooses_the_build_that_fits(page: Page) -> None:
    """In either form, as the doctor's own code prints it."""
    reports = of_page.ask_doctor(reports=[about for about, _, _ in MACHINES])["reports"]
    for (about, label, why), forms in zip(MACHINES, reports, strict=True):
        facts = page.under_node("", reports=forms)["facts"]
        facts[1]["torch_abi"] = [{"true": "new", "false": "old"}[facts[1]["torch_abi"][0]]]
        assert facts[0] == facts[1], about
        client = facts[0]["client"][0]
        assert client == about["installer"]
        asked = [{"facts": facts[0], "client": client}]
        [judged] = page.under_node("", judge=asked)["judged"]
        values = page.data["builds"][judged["best"]]["values"]
        reasons = judged["reasons"][judged["best"]]
        assert (values["cuda"], values["torch"]) == _pair(label.variant), about
        assert [why in reason for reason in reasons] == ([True] if why else []), (about, reasons)


@node
def test_what_is_no_report_is_none(page: Page) -> None:
    texts = ["hello", "{", "null", "[1]", '{"torch": 3}', "torch", "{}"]
    assert page.under_node("", reports=texts)["facts"] == [None] * len(texts)


@node
def test_without_a_torch_or_a_driver_there_is_less_to_ask(page: Page) -> None:
    about = machine("", "", gpus=[], installer="")
    [forms] = of_page.ask_doctor(reports=[about])["reports"]
    plain, told = page.under_node("", reports=forms)["facts"]
    assert plain == {"driver": ["none"], "glibc": ["2.36"]}
    assert {key: value for key, value in told.items() if value != ["none"]} == {"glibc": ["2.36"]}


@node
@pytest.mark.parametrize("abi", [True, False])
def test_the_page_judges_as_the_import_does(page: Page, abi: bool) -> None:
    """Of each build and torch: the page finds what the package finds when it is imported."""
    torches = [("2.13.0", "13.0"), ("2.13.0", "12.6"), ("2.13.0", ""), ("2.9.1", "12.8"),
               ("2.4.1", ""), ("2.4.1", "12.4"), ("2.14.0", "13.0")]  # fmt: skip
    facts = [
        {
            "torch": [version.rpartition(".")[0]],
            "torch_cuda": [cuda or "none"],
            "torch_abi": ["true" if abi else "false"],
        }
        for version, cuda in torches
    ]
    judged = page.under_node("", judge=[{"facts": one, "client": "pip"} for one in facts])
    builds = [build["values"] for build in page.data["builds"]]
    # A wheel is built with the ABI of PyPI's torch, which has the new one since 2.7.
    fits = of_page.ask_doctor(
        fits=[
            {
                "build": {**values, "cxx11_abi": values["torch"] != "2.4"},
                "found": {"version": version, "cuda": cuda, "cxx11_abi": abi},
            }
            for version, cuda in torches
            for values in builds
        ]
    )["fits"]
    pairs = [(torch, values) for torch in torches for values in builds]
    reasons = [one for answer in judged["judged"] for one in answer["reasons"]]
    for ((_, cuda), values), fit, said in zip(pairs, fits, reasons, strict=True):
        # The doctor has a finding, and the import none, where one of the two is for the CPU.
        assert bool(said) == (not fit or bool(cuda) != bool(values["cuda"])), (cuda, values, said)


def test_a_gpu_runs_what_the_package_says() -> None:
    capabilities = [(major, minor) for major in range(7, 13) for minor in (0, 3, 5, 6, 9)]
    lists = [["8.0+PTX", "9.0a"], ["8.0", "9.0a"], ["9.0a"], ["8.6", "9.0", "12.0f+PTX"], ["10.0"]]
    pairs = [(listed, item) for listed in lists for item in capabilities]
    code = of_page.ask_doctor(code=[(";".join(listed), *item) for listed, item in pairs])["code"]
    for (listed, item), found in zip(pairs, code, strict=True):
        asked = [one for one in conditions(CUDA, listed, "") if one.fact == "gpu"]
        assert all(_holds(one, item) for one in asked) == (found != "none"), (listed, item)


def _holds(condition: Condition, capability: tuple[int, int]) -> bool:
    if condition.test == "least":
        return capability >= tuple(map(int, condition.values[0].split(".")))
    return "{}.{}".format(*capability) in condition.values


# ------------------------------------------------------------ the page as a document


@pytest.mark.parametrize("name", ["index.html", "versions/0.1.5.html"])
def test_the_page_is_html_without_an_error(site: Path, name: str) -> None:
    text = (site / name).read_text()
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    ids = [element.get("id") for element in document.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in document.iter():
        for key in ("for", "aria-labelledby", "aria-describedby"):
            assert all(name in ids for name in (element.get(key) or "").split())
        assert not any(key.startswith("on") or key == "style" for key in element.attrib)
    [table] = document.iter("table")
    assert table[0].tag == "caption" and "".join(table[0].itertext()).strip()
    heads = [cell.get("scope") for row in table.find("thead") for cell in row]
    assert set(heads) == {"col"}
    for row in table.find("tbody"):
        assert [cell.tag for cell in row] == ["th", *["td"] * (len(heads) - 1)]
        assert row[0].get("scope") == "row"
    assert document.get("lang") == "en"
    assert len(list(document.iter("h1"))) == 1


def test_the_page_has_nothing_from_elsewhere_and_runs_nothing_else(page: Page) -> None:
    assert of_page.addresses(page.text) == []
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page.text)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        [own] = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert len(re.findall(r"<script\b", page.text)) == 2  # the data, and the script


def test_the_table_has_everything_that_is_published(page: Page, site: Path) -> None:
    listed = json.loads((site / "index.json").read_text())["files"]
    pages = {name: Page((site / name).read_text()) for name in _pages(site)}
    rows = {
        _leads_to(site / name, row["link"]): row["cells"]
        for name, one in pages.items()
        for row in one.rows
    }
    assert len(rows) == len(listed) == sum(len(one.rows) for one in pages.values())
    for item in listed:
        path = site / item["folder"] / item["name"]
        cells = rows[path]
        assert path.stat().st_size == item["size"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == item["sha256"] == cells[-1]
        assert cells[-2] == COMMIT_SHOWN == item["commit"][:12]
        assert cells[-3] == item["uploaded"][:10] and re.fullmatch(r"\d{4}-\d\d-\d\d", cells[-3])
        yanked = of_page.REASON if "cu128" in item["name"] else None
        if item["name"].startswith("flashinfer"):
            assert item.get("yanked") == yanked
            assert (f"Yanked: {yanked}" in cells[0]) == (yanked is not None)
    assert "</script><b" not in page.text


def _leads_to(page: Path, link: str) -> Path:
    """As a browser puts them together: whatever lies behind links of the file system."""
    return Path(os.path.normpath(page.parent / urllib.parse.unquote(link)))


COMMIT_SHOWN = of_page.COMMIT[:12]


def _pages(site: Path) -> list[str]:
    return ["index.html", *(f"versions/{path.name}" for path in (site / "versions").iterdir())]


def test_the_page_is_that_of_the_newest_release_and_leads_to_the_others(
    page: Page, site: Path
) -> None:
    assert '<span class="version">0.1.6</span>' in page.text
    for label in (OLD, NIGHTLY):
        name = f"versions/{label.public_version}.html"
        assert f'href="{name}"' in page.text
        other = Page((site / name).read_text())
        assert 'href="../index.html">0.1.6</a>' in other.text
        assert {one.files[0] for one in other.shown_without_script("x")} == {
            label.wheel_file,
            label.conda_file,
        }
        for row in other.rows:
            assert _leads_to(site / name, row["link"]).is_file()


def test_what_was_yanked_is_offered_to_nobody(page: Page) -> None:
    assert "12.8" not in page.data["fields"][0]["values"]
    [row] = [row for row in page.rows if of_page.YANKED.wheel_file in row["cells"][0]]
    assert row["text"] == ""


def test_the_page_of_the_whole_matrix_is_small() -> None:
    items = {}
    for variant in variants.load():
        label = factories.label_of(variant.id)
        for name in (label.wheel_file, label.conda_file, label.lib_conda_file):
            items[name] = Item(
                name=name,
                folder="wheels" if name.endswith(".whl") else "channel/linux-64",
                sha256=hashlib.sha256(name.encode()).hexdigest(),
                size=1_234_567_890,
                facts=Facts(("compute_80", "sm_80", "sm_90a"), "2.28"),
                uploaded="2026-11-30T03:00:00Z",
                commit=of_page.COMMIT,
            )
    made = site_page.documents(items.values(), factories.FLASHINFER)
    assert made == site_page.documents(reversed(items.values()), factories.FLASHINFER)
    assert len(Page(made["index.html"].decode()).data["builds"]) > 40
    assert len(made["index.html"]) < 100_000
