"""Asks conda channels with py-rattler what a build would be made of; a program of its own.

Started by :mod:`.conda`. rattler's threads may crash an interpreter that ends right after them, so
this process ends by ``_exit``. It runs nothing that comes from a channel, so it may have the
user's whole environment: login, proxies, certificates and mirrors are whatever rattler finds there.
The request is a JSON file, the answer another; what was secret in a URL comes by the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import unquote, urlsplit

from rattler import Channel, MatchSpec, RepoDataRecord, VirtualPackage, solve
from rattler.config import Config
from rattler.exceptions import ExtractError, GatewayError, SolverError
from rattler.networking import Client
from rattler.package import RunExportsJson
from rattler.package_streaming import download_to_path
from rattler.repo_data import Gateway
from rattler.virtual_package import Override, VirtualPackageOverrides

from .. import atomic
from ..build_worker import render
from .channel_names import CREDENTIALS, mask

__all__ = ["built_for", "main"]

# What says for which CUDA a torch was built, where its build string does not.
_CUDA_PACKAGES = ("cuda-version", "pytorch-cuda", "cudatoolkit")
_NVCC = re.compile(r"^cuda-(nvcc|compiler)\b")
_SUBDIRS: tuple[Literal["linux-64", "noarch"], ...] = ("linux-64", "noarch")
_AT_ONCE = 4
_TOOL = "rattler-build"  # whose configuration is read, beside that of all of rattler's tools


class Missing(Exception):
    """The channels do not have what is asked for."""


class Unusable(Exception):
    """A channel cannot be read."""

    def __init__(self, what: str, channel: str, fix: str = "") -> None:
        super().__init__(what)
        self.answer = {"what": mask(what), "where": mask(channel), "fix": fix}


# ---------------------------------------------------------------- what a record says


def built_for(record: RepoDataRecord) -> str:
    """For which CUDA a pytorch package was built: its major, ``none``, or ``unknown``."""
    for spec in record.depends:
        name, _, rest = spec.partition(" ")
        number = re.search(r"\d+", rest)
        if name in _CUDA_PACKAGES and number:
            return number[0]
    build = str(record.build)
    dotted = re.search(r"cuda_?(\d+)\.\d", build)
    if dotted:
        return dotted[1]
    plain = re.search(r"cuda_?(\d+)\d(?!\d)", build)
    if plain:
        return plain[1]
    return "unknown" if "cuda" in build or "gpu" in build else "none"


def _cuda_name(built: str) -> str:
    return {"none": "no CUDA", "unknown": "an unknown CUDA"}.get(built, f"CUDA {built}")


def _as_repodata(record: RepoDataRecord) -> dict[str, Any]:
    """The record's entry in ``repodata.json``."""
    noarch = "python" if record.noarch.python else "generic" if record.noarch.generic else None
    # Milliseconds, as conda writes them.
    timestamp = int(record.timestamp.timestamp() * 1000) if record.timestamp else None
    entry = {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "build_number": record.build_number,
        "depends": list(record.depends),
        "constrains": list(record.constrains),
        "subdir": record.subdir,
        "noarch": noarch,
        "arch": record.arch,
        "platform": record.platform,
        "license": record.license,
        "features": record.features,
        "track_features": " ".join(record.track_features) or None,
        "python_site_packages_path": record.python_site_packages_path,
        "timestamp": timestamp,
        "size": record.size,
        "md5": record.md5.hex() if record.md5 else None,
        "sha256": record.sha256.hex() if record.sha256 else None,
    }
    return {key: value for key, value in entry.items() if value is not None}


# ---------------------------------------------------------------- the channels


class _Channels:
    """The user's channels, read as the user's rattler would."""

    def __init__(self, urls: Sequence[str], cache: Path) -> None:
        self.urls = urls
        self._channels = [Channel(url) for url in urls]
        config = _configuration()
        self.client = Client.from_config(config)
        self._gateway = Gateway.from_config(
            config, cache_dir=cache / "repodata", client=self.client
        )
        self._first: dict[str, list[RepoDataRecord]] = {}

    async def ask(self, names: Sequence[str]) -> None:
        """Reads all records with these names; of each name the first channel that has it counts."""
        wanted = sorted(set(names) - set(self._first))
        found: dict[str, list[RepoDataRecord]] = {name: [] for name in wanted}
        for url, channel in zip(self.urls, self._channels, strict=True):
            try:
                answer = await self._gateway.query([channel], _SUBDIRS, wanted, recursive=False)
            except GatewayError as error:
                raise _unusable(str(error), url) from None
            here: dict[str, list[RepoDataRecord]] = {}
            for records in answer:
                for record in records:
                    here.setdefault(record.name.normalized, []).append(record)
            for name in wanted:
                found[name] = found[name] or here.get(name, [])
        self._first.update(found)

    def matching(self, spec: str) -> list[RepoDataRecord]:
        """The records that `spec` allows, of a name that has been asked for."""
        wanted = MatchSpec(spec)
        return [record for record in self.named(_name(spec)) if record.matches(wanted)]

    def named(self, name: str) -> list[RepoDataRecord]:
        """Every record with this name."""
        return self._first[name]

    def missing(self, spec: str) -> str:
        """Why nothing fits `spec`; empty if something does."""
        if self.matching(spec):
            return ""
        there = {str(record.version): record.version for record in self.named(_name(spec))}
        newest = sorted(there, key=lambda text: there[text])[-6:]
        return f"no {spec}" + (f" (there is {', '.join(newest)})" if newest else "")

    async def solve(
        self, what: str, specs: Sequence[str], constraints: Sequence[str], cuda: str
    ) -> list[RepoDataRecord]:
        """The packages of one environment, on a machine whose driver is for `cuda`, or none."""
        driver = VirtualPackageOverrides(cuda=Override.string("" if cuda == "None" else cuda))
        try:
            return await solve(
                self._channels,
                specs,
                gateway=self._gateway,
                virtual_packages=VirtualPackage.detect(driver),
                constraints=constraints,
            )
        except SolverError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise Missing(f"{what} cannot be put together: {' '.join(lines)}") from None
        except GatewayError as error:
            raise _unusable(str(error), ", ".join(self.urls)) from None

    async def fetch(self, records: Sequence[RepoDataRecord], store: Path) -> dict[str, Path]:
        """The packages' files, by sha256; each is downloaded once and kept."""
        one_of_few = asyncio.Semaphore(_AT_ONCE)

        async def fetch(record: RepoDataRecord) -> Path:
            async with one_of_few:
                return await _fetch(record, store, self.client)

        unique = {record.sha256.hex(): record for record in records if record.sha256}
        paths = await asyncio.gather(*map(fetch, unique.values()))
        return dict(zip(unique, paths, strict=True))


def _name(spec: str) -> str:
    return re.split(r"[\s=<>!~\[]", spec, maxsplit=1)[0]


def _unusable(error: str, channel: str) -> Unusable:
    first = error.replace("\nCaused by:", ":").splitlines()[0]
    fix = "see that the address is right; HTTPS_PROXY and SSL_CERT_FILE are honoured"
    if re.search(r"\b(401|403)\b", error):
        fix = (
            "give rattler the login: RATTLER_AUTH_FILE, ~/.rattler/credentials.json, the keyring, "
            "~/.netrc, or user:password@ or /t/TOKEN/ in the URL (docs/conda-channels.md)"
        )
    return Unusable(f"the channel cannot be read: {first}", channel, fix)


async def _fetch(record: RepoDataRecord, store: Path, client: Client) -> Path:
    assert record.sha256 is not None  # _checked has seen to it
    digest = record.sha256.hex()
    target = store / digest / record.file_name
    if target.is_file():
        return target
    size = f"{record.size / 1e6:.1f} MB" if record.size else "size unknown"
    print(f"fetching {record.file_name} ({size})", flush=True)
    with atomic.directory(target.parent) as fresh:
        file = fresh / record.file_name
        try:
            if record.url.startswith("file://"):
                shutil.copyfile(unquote(urlsplit(record.url).path), file)
            else:
                await download_to_path(client, record.url, file)
        except Exception as error:  # rattler raises many types, all meant to be read
            raise Unusable(
                f"{record.file_name} cannot be downloaded: {str(error).splitlines()[0]}",
                record.channel,
            ) from None
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != digest:
            raise Unusable(
                f"{record.file_name} has the sha256 {found[:12]}..., "
                f"the channel's repodata says {digest[:12]}...",
                record.channel,
                "try again; if it stays, the channel is damaged",
            )
    return target


# ---------------------------------------------------------------- the environments


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
    channels = _Channels(request["channels"], cache)
    answers = []
    for asked in request["asked"]:
        try:
            answers.append(await _answer(channels, request["recipe"], asked, cache))
        except Missing as error:
            answers.append({"missing": mask(str(error))})
    return answers


async def _answer(
    channels: _Channels, recipe: str, asked: Mapping[str, Any], cache: Path
) -> dict[str, Any]:
    """Solves every environment of a build, and fetches the packages if that is asked for.

    Raises:
        Missing: the channels do not have what it takes.
    """
    keys = dict(asked["keys"])
    cuda = keys["cuda_nvcc"]
    await channels.ask(["sysroot_linux-64", "pytorch"])
    decided = _sysroot(channels, keys["c_stdlib_version"], asked["glibc"])
    keys.update(decided)
    outputs = [_Output.of(recipe, name, keys) for name in asked["outputs"]]
    specs = [spec for output in outputs for spec in (*output.build, *output.host)]
    await channels.ask([_name(spec) for spec in specs])
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
            name: sorted(_line(record) for record in made) for name, made in environments.items()
        },
        "packages": [
            {"path": str(files[record.sha256.hex()]), "record": _as_repodata(record)}
            for record in {item.sha256: item for item in records}.values()
            if record.sha256 and files
        ],
    }


def _line(record: RepoDataRecord) -> str:
    digest = record.sha256.hex() if record.sha256 else ""
    return f"{record.name.normalized}-{record.version}-{record.build} {digest}"


def _sysroot(channels: _Channels, pinned: str, asked: str | None) -> dict[str, str]:
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
    print(f"the channels have no sysroot_linux-64 {pinned}: {version} it is", flush=True)
    return {"c_stdlib_version": version}


def _fitting_torch(channels: _Channels, torch: str, keys: Mapping[str, str]) -> str:
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
    channels: _Channels, output: _Output, made: Sequence[RepoDataRecord], cache: Path
) -> list[str]:
    """What the packages that the recipe names put into the host environment."""
    named = {_name(spec) for spec in output.build}
    direct = [record for record in made if record.name.normalized in named]
    files = await channels.fetch(direct, cache / "conda")
    specs = []
    for path in files.values():
        try:
            exports = RunExportsJson.from_package_archive(path)
        except ExtractError:
            continue  # there is no run_exports.json in it: it exports nothing
        specs += [spec for spec in exports.strong if _name(spec) not in output.ignored]
    return [spec for spec in specs if not spec.startswith("__")]


def _configuration() -> Config:
    """rattler's own configuration files: mirrors, proxies, certificates.

    What stood in the URLs joins the user's credentials file, in memory: it is written nowhere.
    """
    config = Config.load_from_default_locations(_TOOL)
    given = os.environ.pop(CREDENTIALS, "")
    if not given:
        return config
    # The file that the configuration names wins over the one that the environment names.
    own = config.authentication_override_file
    environ = os.environ.get("RATTLER_AUTH_FILE")
    known: dict[str, object] = {}
    for path in filter(None, (environ, own)):
        file = Path(path).expanduser()
        if file.is_file():
            known.update(json.loads(file.read_text()))
    both = _in_memory(json.dumps({**known, **json.loads(given)}))
    os.environ["RATTLER_AUTH_FILE"] = both
    if own is None:
        return config
    files = [place for place in Config.config_search_paths(_TOOL) if place[0].is_file()]
    last = _in_memory(f"authentication-override-file = {json.dumps(both)}\n")
    return Config.load_from_locations([*files, (last, False)])


def _in_memory(text: str) -> str:
    """A file that has no name and ends with this process."""
    memory = os.memfd_create("flashinfer")
    os.write(memory, text.encode())
    return f"/proc/self/fd/{memory}"


def main(request_file: str, answer_file: str) -> NoReturn:
    """Does what the request says, writes the answer, and ends the process."""
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
