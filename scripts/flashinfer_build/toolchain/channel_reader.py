"""Conda channels, read with py-rattler as the user's own rattler would read them.

Login, mirrors, proxies and certificates are whatever rattler finds in the user's environment, its
credentials files and its configuration. Only :mod:`.channel_worker` imports this: rattler's threads
need a process of their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from rattler import Channel, MatchSpec, RepoDataRecord, VirtualPackage, solve
from rattler.config import Config
from rattler.exceptions import GatewayError, SolverError
from rattler.networking import Client
from rattler.package_streaming import download_to_path
from rattler.repo_data import Gateway
from rattler.virtual_package import Override, VirtualPackageOverrides

from conda_bridge.system import atomic

from .channel_names import CREDENTIALS, mask

__all__ = ["Channels", "Missing", "Unusable", "name_of"]

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


class Channels:
    """The user's channels.

    Attributes:
        urls: the first wins.
        client: downloads from them.
    """

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
        return [record for record in self.named(name_of(spec)) if record.matches(wanted)]

    def named(self, name: str) -> list[RepoDataRecord]:
        """Every record with this name."""
        return self._first[name]

    def missing(self, spec: str) -> str:
        """Why nothing fits `spec`; empty if something does."""
        if self.matching(spec):
            return ""
        there = {str(record.version): record.version for record in self.named(name_of(spec))}
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


def name_of(spec: str) -> str:
    """The package that a match spec is about."""
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
        with target.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == digest:
                return target
        print(f"{record.file_name} was damaged in the cache", flush=True)
        atomic.remove(target.parent)
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
    for path in (environ, own):
        file = Path(path).expanduser() if path else None
        if file and file.is_file():
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
