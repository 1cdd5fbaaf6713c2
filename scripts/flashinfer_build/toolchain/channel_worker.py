"""Asks conda channels with py-rattler what a build would be made of; a program of its own.

Started by :mod:`.conda`. rattler's threads may crash an interpreter that ends right after them, so
this process ends by ``_exit``. It runs nothing that comes from a channel, so it may have the
user's whole environment. The request is a JSON file, the answer another; what was secret in a URL
comes by the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rattler import RepoDataRecord
from rattler.exceptions import ExtractError
from rattler.package import RunExportsJson

from conda_bridge.formats import limits

from ..compile.build_worker import render
from .channel_names import mask
from .channel_reader import Channels, Missing, Unusable, name_of
from .channel_records import as_line, as_repodata, built_for

__all__ = ["main"]

_NVCC = re.compile(r"^cuda-(nvcc|compiler)\b")


@dataclass(frozen=True)
class _Output:
    """What the recipe asks for to build one package."""

    name: str
    build: list[str]
    host: list[str]
    constraints: list[str]
    ignored: list[str]

    @classmethod
    def of(cls, recipe: str, name: str, keys: Mapping[str, str]) -> _Output:
        rendered = render({"recipe": recipe, "keys": keys, "output": name})
        wanted = rendered.recipe.requirements.to_dict()
        # A mapping is a pin to the other output, which no channel has yet.
        lists = {
            key: [spec for spec in wanted.get(key, []) if isinstance(spec, str)]
            for key in ("build", "host", "run_constraints")
        }
        constraints = [spec for spec in lists["run_constraints"] if not spec.startswith("__")]
        ignored = wanted.get("ignore_run_exports", {}).get("by_name", [])
        return cls(name, lists["build"], lists["host"], constraints, list(ignored))


async def _answers(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One answer for each build that is asked for; the channels are read once for all."""
    cache = Path(request["cache"])
    channels = Channels(request["channels"], cache)
    answers = []
    for asked in request["asked"]:
        try:
            answers.append(await _answer(channels, request["recipe"], asked, cache))
        except Missing as error:
            answers.append({"missing": mask(str(error))})
    return answers


async def _answer(
    channels: Channels, recipe: str, asked: Mapping[str, Any], cache: Path
) -> dict[str, Any]:
    """Solves every environment of a build, and fetches the packages if that is asked for.

    Raises:
        Missing: the channels do not have what it takes.
    """
    keys = dict(asked["keys"])
    cuda = keys["cuda_nvcc"]
    await channels.ask(["sysroot_linux-64", "gxx_linux-64", "pytorch"])
    decided = {
        **_sysroot(channels, keys["c_stdlib_version"], asked["glibc"]),
        **_compiler(channels, keys.get("cxx_compiler_version"), keys["gxx_below"]),
    }
    keys.update(decided)
    outputs = [_Output.of(recipe, name, keys) for name in asked["outputs"]]
    specs = [spec for output in outputs for spec in (*output.build, *output.host)]
    await channels.ask([name_of(spec) for spec in specs])
    lacking = list(dict.fromkeys(filter(None, map(channels.missing, specs))))
    if lacking:
        raise Missing(", ".join(lacking))
    torch = f"pytorch {keys['pytorch']}.*"
    fitting = _fitting_torch(channels, torch, keys) if torch in specs else ""
    environments: dict[str, list[RepoDataRecord]] = {}
    for output in outputs:
        made = await channels.solve(
            f"the build environment of {output.name}", output.build, [], cuda
        )
        environments[f"{output.name} build"] = made
        host = [fitting if spec == torch else spec for spec in output.host]
        if asked["fetch"]:
            host += await _strong_exports(channels, output, made, cache)
        environments[f"{output.name} host"] = await channels.solve(
            f"the host environment of {output.name}", host, output.constraints, cuda
        )
    _check(environments, cuda)
    records = [record for made in environments.values() for record in made]
    files = await channels.fetch(records, cache / "conda") if asked["fetch"] else {}
    return {
        "variant_keys": decided,
        "torch": next(
            (str(item.version) for item in records if item.name.normalized == "pytorch"), ""
        ),
        "environments": {
            name: sorted(as_line(record) for record in made) for name, made in environments.items()
        },
        "packages": [
            {"path": str(files[record.sha256.hex()]), "record": as_repodata(record)}
            for record in {item.sha256: item for item in records}.values()
            if record.sha256 and files
        ],
    }


def _cuda_name(built: str) -> str:
    return {"none": "no CUDA", "unknown": "an unknown CUDA"}.get(built, f"CUDA {built}")


def _sysroot(channels: Channels, pinned: str, asked: str | None) -> dict[str, str]:
    """``c_stdlib_version`` where it is not the pinned one."""
    if asked:
        return {"c_stdlib_version": asked}
    if channels.matching(f"sysroot_linux-64 {pinned}.*"):
        return {}
    # The channels decide; the lowest one runs in most places, and the package will say which.
    there = sorted(channels.named("sysroot_linux-64"), key=lambda record: record.version)
    if not there:
        raise Missing(f"no sysroot_linux-64 {pinned}.*")
    version = str(there[0].version)
    print(f"the channels have no sysroot_linux-64 {pinned}, using {version}", flush=True)
    return {"c_stdlib_version": version}


def _compiler(channels: Channels, pinned: str | None, below: str) -> dict[str, str]:
    """``cxx_compiler_version`` where it is not the pinned one.

    What no g++ fits is found by the solver, which says it better.
    """
    if not pinned or channels.matching(f"gxx_linux-64 {pinned}.*"):
        return {}
    # The channels decide; the newest is what they are likely to be compiled with.
    there = sorted(channels.matching(f"gxx_linux-64 <{below}"), key=lambda record: record.version)
    if not there:
        return {}
    major = str(there[-1].version).split(".")[0]
    print(f"the channels have no gxx_linux-64 {pinned}, using {major}", flush=True)
    return {"cxx_compiler_version": major}


def _fitting_torch(channels: Channels, torch: str, keys: Mapping[str, str]) -> str:
    """`torch` narrowed to the builds for the variant's CUDA, by what each record says of itself."""
    nvcc = keys["cuda_nvcc"]
    wanted = "none" if nvcc == "None" else nvcc.split(".")[0]
    by_cuda: dict[str, set[str]] = {}
    for record in channels.matching(torch):
        by_cuda.setdefault(built_for(record), set()).add(str(record.build))
    if wanted not in by_cuda:
        there = ", ".join(_cuda_name(built) for built in sorted(by_cuda))
        raise Missing(f"no {torch} built for {_cuda_name(wanted)} (there is one for {there})")
    builds = "|".join(map(re.escape, sorted(by_cuda[wanted])))
    name, version = torch.split()
    return f"{name}[version='{version}', build='^({builds})$']"


def _check(environments: Mapping[str, Sequence[RepoDataRecord]], nvcc: str) -> None:
    """Every part of the CUDA compiler is of the variant's release, and every package has a sha256.

    Raises:
        Missing: one is not.
    """
    for name, records in environments.items():
        for record in records:
            if record.sha256 is None:
                raise Missing(f"{record.file_name} has no sha256 in the channel's repodata")
            release = ".".join(str(record.version).split(".")[:2])
            if _NVCC.match(record.name.normalized) and release != nvcc:
                raise Missing(
                    f"{record.name.normalized} in the environment of {name} is {record.version}, "
                    f"not {nvcc}"
                )


async def _strong_exports(
    channels: Channels, output: _Output, made: Sequence[RepoDataRecord], cache: Path
) -> list[str]:
    """What the packages that the recipe names put into the host environment."""
    named = {name_of(spec) for spec in output.build}
    direct = [record for record in made if record.name.normalized in named]
    files = await channels.fetch(direct, cache / "conda")
    specs = []
    for path in files.values():
        try:
            exports = RunExportsJson.from_package_archive(path)
        except ExtractError:
            continue  # there is no run_exports.json in it: it exports nothing
        specs += [spec for spec in exports.strong if name_of(spec) not in output.ignored]
    return [spec for spec in specs if not spec.startswith("__")]


def main(request_file: str, answer_file: str) -> NoReturn:
    """Does what the request says, writes the answer, and ends the process."""
    # Repodata of any channel is unpacked here, by rattler: this is where that ends.
    allowed = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if allowed == resource.RLIM_INFINITY or allowed > limits.CHANNEL_MEMORY:
        resource.setrlimit(resource.RLIMIT_DATA, (limits.CHANNEL_MEMORY,) * 2)
    code = 0
    try:
        answer: object = asyncio.run(_answers(json.loads(Path(request_file).read_text())))
    except Unusable as error:
        answer = {"unusable": error.answer}
    except Exception as error:  # rattler raises many types, all meant to be read
        print(mask(f"{type(error).__name__}: {error}"), flush=True)
        code = 1
    if code == 0:
        Path(answer_file).write_text(json.dumps(answer))
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
