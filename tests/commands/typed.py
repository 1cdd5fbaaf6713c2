"""What a shell, pip and conda's solver make of a command that was printed for a user to type."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import stand_in
from solver import Case
from wheel_factory import make_wheel

# A name of ours with a version above any, which somebody else gave to a package of his own.
HOSTILE = "99"


@dataclass(frozen=True)
class Typed:
    """A command as the shell hands it over.

    Attributes:
        program: ``pip``, ``uv`` (for ``uv pip``) or ``conda``.
        options: option -> its values, in their order; those without one have "".
        names: what is to be installed.
    """

    program: str
    options: Mapping[str, Sequence[str]]
    names: Sequence[str]


# Those that take the next word.
_WITH_VALUE = (
    *("-c", "-n", "-p", "-i", "-t", "-f", "-r", "--channel", "--name", "--prefix", "--target"),
    *("--index-url", "--extra-index-url", "--find-links", "--requirement"),
    *("--index", "--index-strategy", "--default-index", "--python"),
)


def words(line: str, folder: Path) -> list[str]:
    """Those that a shell in `folder` makes of a line."""
    done = subprocess.run(
        ["sh", "-c", f"set -- {line}\nprintf '%s\\0' \"$@\""],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout.split("\0")[:-1]


def read(line: str, folder: Path | None = None) -> Typed:
    """A command, typed in `folder`; without one nothing is put in for ``$PWD``."""
    program, verb, *rest = words(line, folder) if folder else shlex.split(line, comments=True)
    if program == "uv":
        assert verb == "pip", line
        verb = rest.pop(0)
    assert verb in ("install", "create", "download", "update", "upgrade"), line
    options: dict[str, list[str]] = {}
    names = []
    while rest:
        word = rest.pop(0)
        if word in _WITH_VALUE:
            options.setdefault(word, []).append(rest.pop(0))
        elif word.startswith("-"):
            options.setdefault(word, []).append("")
        else:
            names.append(word)
    return Typed({"pip3": "pip"}.get(program, program), options, names)


@dataclass
class Elsewhere:
    """What stands for PyPI and conda-forge: hostile packages beside those that are wanted.

    Attributes:
        folder: an empty one.
        names: what both have besides.
    """

    folder: Path
    names: Sequence[str] = ()
    index: str = field(init=False)
    channel: str = field(init=False)

    def __post_init__(self) -> None:
        for torch in ("2.4.1", "2.9.1", "2.11.0", "2.13.0", "2.14.0"):
            self.add("torch", torch)
        for version in (HOSTILE, "0.1.6", "0.1.6.post9"):
            self.add("flashinfer", version)
        for name in self.names:
            self.add(name, "1.0")
        self.index = (self.folder / "simple").as_uri() + "/"
        records = [
            stand_in.record(name, version, build, 9_999_999)
            for name in ("flashinfer", "libflashinfer")
            for version, build in ((HOSTILE, "h_0"), ("0.1.6.1", "cu130_torch213_0"))
        ]
        records += [stand_in.record(name, "1.0", "h_0") for name in self.names]
        self.channel = stand_in.write_channel(
            self.folder / "conda-forge", [*stand_in.conda_forge(), *records]
        )

    def add(self, name: str, version: str) -> None:
        """Puts a wheel into the index."""
        page = self.folder / "simple" / name.lower().replace("_", "-")
        path, _ = make_wheel(page, name, version)
        with (page / "index.html").open("a") as file:
            file.write(f'<a href="{urllib.parse.quote(path.name)}">{path.name}</a><br>\n')

    def pip_takes(self, line: str, folder: Path, *more: str) -> dict[str, str]:
        """The files that pip takes for a command typed in `folder`, with their addresses.

        Only the index that is asked without being named is this one, in PyPI's place.
        """
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
        done = subprocess.run(
            [sys.executable, "-P", "-m", *words(line, folder), "--dry-run", "--ignore-installed"]
            + ["--quiet", "--report", "-", "--disable-pip-version-check", "--no-cache-dir", *more],
            cwd=folder,
            env={**environ, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": self.index},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        items = json.loads(done.stdout)["install"]
        urls = [urllib.parse.unquote(item["download_info"]["url"]) for item in items]
        return {url.rpartition("/")[2]: url for url in urls}

    def case(self, line: str, folder: Path, cuda: str = "") -> Case:
        """What a command typed in `folder` asks of the solver, on a machine with that driver.

        No channel is preferred to another: what keeps the hostile ones out is the line itself.
        """
        command = read(line, folder)
        assert command.program == "conda", line
        named = command.options.get("-c", ["conda-forge"])
        channels = [self.channel if name == "conda-forge" else name for name in named]
        machine = {"__glibc": "2.36", **({"__cuda": cuda} if cuda else {})}
        return Case(channels, command.names, machine, priority=False)


def install_lines(text: str) -> list[str]:
    """The lines of an output that are such commands."""
    found = (line.strip() for line in text.splitlines())
    return [line for line in found if line.startswith(("pip install ", "conda install "))]


def by_program(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of conda and those of pip."""
    every = list(lines)
    return (
        [line for line in every if line.startswith("conda ")],
        [line for line in every if line.startswith("pip ")],
    )
