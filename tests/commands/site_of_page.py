"""A place that is published to, served to installers and browsers, and what its page says."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import elf_factory
import factories
import installers
from solver import solve
from typed import Elsewhere, words

from conda_bridge.publish import release, site_page
from conda_bridge.publish.store import open_store
from flashinfer_build.label import Label

TEMPLATES = Path(site_page.__file__).with_name("templates")
HARNESS = Path(__file__).with_name("page_under_node.js")
COMMIT = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"

CUDA = factories.label_of("cu130_torch213")
CPU = factories.label_of("cpu_torch213")
REBUILT = factories.label_of("cpu_torch29", build_number=1)
WHEEL_ALONE = factories.label_of("cu126_torch213")
PACKAGES_ALONE = factories.label_of("cu130_torch29")
OFFERED = (CUDA, CPU, REBUILT, WHEEL_ALONE, PACKAGES_ALONE, factories.label_of("cu126_torch29"),
           factories.label_of("cpu_torch24"))  # fmt: skip
# Beside them: what a rebuild took the place of, another version, a nightly, and what was yanked.
REPLACED = factories.label_of("cpu_torch29")
OLD = factories.label_of("cu130_torch213", public_version="0.1.5")
NIGHTLY = factories.label_of("cpu_torch213", public_version="0.1.7.dev20261130", commit="1a2b3c4")
YANKED = factories.label_of("cu128_torch29")
REASON = 'wrong </script><b onclick="x">results</b>'


def library(label: Label) -> bytes:
    """A library that asks for glibc 2.28; one for CUDA has code for 8.0+PTX and 9.0a."""
    code = elf_factory.image(arch=80) + elf_factory.image(kind=1, arch=80)
    code += elf_factory.image(arch=90, flags=1 << 20)
    fatbin = {".nv_fatbin": elf_factory.fat_binary(code)} if label.variant.cuda else {}
    return elf_factory.shared_object(
        strings=b"\0libc.so.6\0GLIBC_2.28\0",
        sections={".gnu.version_r": elf_factory.needs([(1, [11])]), **fatbin},
        counts={".gnu.version_r": 1},
    )


def publish(folder: Path) -> Path:
    """Publishes all of them, in a folder whose name is none that a shell takes as it is."""
    site = folder / "it's (1) $HOME"
    made = []
    for label in (*OFFERED, REPLACED, OLD, NIGHTLY, YANKED):
        files = {"lib/libflashinfer.so": library(label)}
        factories.write_library(folder / "made", label, files=files)
        package = factories.write_binding(folder / "made", label)
        if label != WHEEL_ALONE:
            made += [package, package.with_name(label.lib_conda_file)]
        if label != PACKAGES_ALONE:
            made.append(factories.bridge(package, folder / "made").path)
    store, project = open_store(str(site)), factories.FLASHINFER
    sources = release.read_sources(list(dict.fromkeys(made)), project, lambda _line: None)
    release.publish(sources, store, project, commit=COMMIT)
    release.yank(["flashinfer-*cu128*torch2*9*"], store, project, reason=REASON)
    return site


@dataclass(frozen=True)
class Shown:
    """What the page shows for a choice.

    Attributes:
        picked: the choice, with the ``client``.
        command: what is to be typed; empty where there is nothing.
        files: that the page names with it.
    """

    picked: Mapping[str, str]
    command: str
    files: Sequence[str]


class Table(HTMLParser):
    """The rows of the page, as it is without a script: cells, links and commands."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.head: list[str] = []
        self.data = ""
        self._in: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        if tag in ("meta", "input", "br", "link"):
            return
        self._in.append(tag)
        if tag == "tr":
            self.rows.append({"id": about.get("id"), "cells": [], "link": "", "text": ""})
        elif tag in ("td", "th"):
            self.rows[-1]["cells"].append("")
        elif tag == "a" and "th" in self._in and not self.rows[-1]["link"]:
            self.rows[-1]["link"] = about["href"]
        elif tag == "script" and about.get("id") == "data":
            self._in[-1] = "data"

    def handle_endtag(self, tag: str) -> None:
        self._in.pop()

    def handle_data(self, data: str) -> None:
        if self._in and self._in[-1] == "data":
            self.data += data
        elif "pre" in self._in and "tr" in self._in:
            self.rows[-1]["text"] += data
        elif "th" in self._in or "td" in self._in:
            self.rows[-1]["cells"][-1] += data


class Page:
    """A page of the site.

    Attributes:
        text: the whole of it.
        table: what it shows without a script.
        data: what its script chooses from.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.table = Table(text)
        self.data: dict[str, Any] = json.loads(self.table.data)

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Of the files, each with the name in ``cells[0]``."""
        return [row for row in self.table.rows if row["id"]]

    def name_of(self, number: int) -> str:
        """The file of a row, as its link has it."""
        [row] = [row for row in self.rows if row["id"] == f"f{number}"]
        return urllib.parse.unquote(row["link"].rpartition("/")[2])

    def choices(self) -> list[dict[str, str]]:
        """Every combination that can be clicked."""
        fields = self.data["fields"]
        clients = ["pip", "uv", "uv-project", "conda"]
        return [
            {"client": client, **dict(zip([field["id"] for field in fields], values, strict=True))}
            for client in clients
            for values in itertools.product(*(field["values"] for field in fields))
        ]

    def under_node(self, address: str, **more: Any) -> dict[str, Any]:
        """What the script of the page answers; see page_under_node.js."""
        asked = {"script": str(TEMPLATES / "page.js"), "data": self.data, "address": address}
        done = subprocess.run(
            ["node", str(HARNESS)],
            input=json.dumps({**asked, "choices": self.choices(), **more}),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def shown_under_node(self, address: str) -> list[Shown]:
        """Of every choice, what the script shows."""
        answers = self.under_node(address)["shown"]
        return [
            Shown(picked, answer["command"], [self.name_of(number) for number in answer["files"]])
            for picked, answer in zip(self.choices(), answers, strict=True)
        ]

    def shown_without_script(self, address: str) -> list[Shown]:
        """The commands of the table, each with the file of its row."""
        found = []
        for row in self.rows:
            for line in filter(None, row["text"].splitlines()):
                name = urllib.parse.unquote(row["link"].rpartition("/")[2])
                command = line.replace(self.data["address"], address)
                found.append(Shown({"client": line.split()[0]}, command, [name]))
        return found


class Served:
    """A folder on this machine's own network, with the addresses that were asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, _form: str, *arguments: Any) -> None:
                outer.asked.append(urllib.parse.unquote(str(arguments[0])))

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """Serves no more."""
        self._server.shutdown()
        self._server.server_close()


class Installers:
    """pip, uv and conda's solver on a machine where somebody else's index has hostile packages."""

    def __init__(self, folder: Path, served: Served, elsewhere: Elsewhere) -> None:
        self.folder = folder
        self.served = served
        self.elsewhere = elsewhere
        self._runs = itertools.count()

    def taken(self, commands: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
        """The artifacts of ours that each command takes, by the command.

        Args:
            commands: the installer (as the page has it), and the command.
        """
        every = dict.fromkeys(commands)
        cases = {
            text: self.elsewhere.case(text, self.folder, "13.0")
            for client, text in every
            if client == "conda"
        }
        found = {}
        for text, answer in solve(cases).items() if cases else ():
            assert not answer.refusal, f"{text}\n{answer.refusal}"
            found[text] = {
                f"{name}-{answer[name].replace(' ', '-')}.conda"
                for name in ("flashinfer", "libflashinfer")
            }
        takers = {"pip": self._by_pip, "uv": self._by_uv, "uv-project": self._by_uv_project}
        for client, text in every:
            if client != "conda":
                found[text] = takers[client](text)
        return found

    def _by_pip(self, line: str) -> set[str]:
        return {
            name for name in self.elsewhere.pip_takes(line, self.folder) if "flashinfer" in name
        }

    def _by_uv(self, line: str) -> set[str]:
        target = self.folder / f"target{next(self._runs)}"
        target.mkdir()
        line_of_uv = [*words(line, self.folder), "--target", str(target), "--no-config"]
        return self._installed(line_of_uv, target, target)

    def _by_uv_project(self, text: str) -> set[str]:
        project = self.folder / f"project{next(self._runs)}"
        project.mkdir()
        about = '[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.11"\n'
        assert text.startswith("[project]\n")
        (project / "pyproject.toml").write_text(text.replace("[project]\n", about, 1))
        found = self._installed(["uv", "sync"], project, project / ".venv")
        lock = tomllib.loads((project / "uv.lock").read_text())
        [ours] = [item for item in lock["package"] if item["name"] == "flashinfer"]
        assert ours["source"]["registry"].startswith(self.served.url)
        return found

    def _installed(self, command: Sequence[str], folder: Path, place: Path) -> set[str]:
        """The wheels of ours that uv fetched, which are those that it installed."""
        self.served.asked.clear()
        self._uv(command, folder)
        asked = [line.split('"')[-1].split(" HTTP")[0] for line in self.served.asked]
        taken = {
            path.rpartition("/")[2]
            for path in asked
            if path.startswith("GET ") and "/wheels/" in path and path.endswith(".whl")
        }
        installed = {path.name for path in place.rglob("flashinfer-*.dist-info")}
        assert installed == {f"{'-'.join(name.split('-')[:2])}.dist-info" for name in taken}
        return taken

    def _uv(self, command: Sequence[str], folder: Path) -> None:
        assert command[0] == "uv"
        environ = {key: value for key, value in os.environ.items() if not key.startswith("UV_")}
        done = subprocess.run(
            [installers.UV, *command[1:], "--no-cache"],
            cwd=folder,
            env={
                **environ,
                "UV_PYTHON": sys.executable,
                "UV_DEFAULT_INDEX": f"{self.served.url}/elsewhere/simple/",
                "UV_INDEX_STRATEGY": "unsafe-best-match",  # as some have it
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def has_node() -> bool:
    """Whether the script of the page can be run."""
    return shutil.which("node") is not None


def ask_doctor(**questions: Any) -> dict[str, Any]:
    """What the doctor's code answers; see page_doctor.py."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("page_doctor.py"))],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def addresses(text: str) -> list[str]:
    """The addresses in a page that lead elsewhere."""
    return re.findall(r"""(?:https?:)?//[^\s"'<>]+|url\([^)]*\)|@import[^;]*""", text)
