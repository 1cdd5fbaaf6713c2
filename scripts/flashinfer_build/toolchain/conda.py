"""A toolchain from the user's conda channels: the compilers, torch and Python that they hold.

The environments of the recipe are solved here, as its builder would, and the packages fetched into
a channel on this machine that holds them and nothing else. The build sees that channel only. So
what is built with is what was solved, to the sha256; logins, mirrors and proxies stay with the
program that reads the channels; and nothing of them reaches a build script, a log or a package.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conda_bridge.errors import ToolchainError
from conda_bridge.system import atomic, process

from .. import bootstrap
from ..variants import load
from . import Report, Request, Toolchain
from .channel import make_channel
from .channel_names import CREDENTIALS, credentials, resolve
from .packages import Built

__all__ = ["Conda"]

_WORKER = "flashinfer_build.toolchain.channel_worker"
_SHOWN = 10
_ANY_GXX = 1000


class Conda:
    """A provider over conda channels.

    Attributes:
        name: as it is shown to people.
        urls: the channels, the first wins, without anything secret.
    """

    name = "conda"

    def __init__(
        self,
        channels: Sequence[str],
        cache: Path | None = None,
        *,
        root: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Names the channels; reads none of them yet.

        Args:
            channels: names, URLs or paths.
            cache: where packages are kept; the project's cache by default.
            root: the folder with the recipe and the pins; this project by default.
            environ: the user's environment, in which the channels are read.

        Raises:
            ConfigError: one of `channels` is no channel.
        """
        self._environ = dict(os.environ if environ is None else environ)
        resolved = resolve(channels, self._environ)
        self.urls = tuple(channel.url for channel in resolved)
        self._credentials = credentials(resolved)
        self._cache = cache or bootstrap.cache_dir()
        self._root = root or bootstrap.project_root()
        self._answers: dict[tuple[Request, bool], dict[str, Any]] = {}

    def missing(self, request: Request) -> str:
        """What the channels do not have; empty if nothing.

        Raises:
            ToolchainError: a channel cannot be read. That is no lack of it: to go on with another
                provider would build from what the user did not ask for.
        """
        return str(self._ask(request, fetch=False).get("missing", ""))

    def state(self, request: Request) -> str:
        """A digest of the packages that the channels have now for `request`.

        Raises:
            ToolchainError: a channel cannot be read.
        """
        answer = self._ask(request, fetch=False)
        return hashlib.sha256(json.dumps(answer, sort_keys=True).encode()).hexdigest()

    def provide(self, request: Request, *, report: Report) -> Toolchain:
        """Fetches the packages of every environment into a channel of their own."""
        for url in self.urls:
            report(f"channel {url}")
        answer = self._ask(request, fetch=True, report=report)
        if answer.get("missing"):
            raise ToolchainError(
                f"the channels do not have it: {answer['missing']}",
                where=request.what,
                fix="python scripts/build.py --list --channel ... shows what they have",
            )
        packages = [Built(Path(item["path"]), item["record"]) for item in answer["packages"]]
        channel = make_channel(packages, self._cache)
        environments: dict[str, list[str]] = answer["environments"]
        kernels = [
            line
            for name, lines in environments.items()
            if name.startswith("libflashinfer ")
            for line in lines
        ]
        return Toolchain(
            variant=request.variant,
            provider=self.name,
            channels=(channel.resolve().as_uri(),),
            variant_keys=answer["variant_keys"],
            torch_version=answer["torch"],
            torch_importable=request.torch,
            trees=(),
            inputs=tuple(sorted({line for lines in environments.values() for line in lines})),
            compiler_inputs=tuple(sorted(set(kernels))),
        )

    def read(self, requests: Sequence[Request]) -> None:
        """Finds out what the channels have for all of `requests`, reading them once.

        Raises:
            ToolchainError: a channel cannot be read.
        """
        new = [request for request in requests if (request, False) not in self._answers]
        if new:
            self._work(new, fetch=False, report=lambda _line: None)

    def _ask(
        self, request: Request, *, fetch: bool, report: Report = lambda _line: None
    ) -> dict[str, Any]:
        if (request, fetch) not in self._answers:
            self._work([request], fetch=fetch, report=report)
        return self._answers[request, fetch]

    def _work(self, requests: Sequence[Request], *, fetch: bool, report: Report) -> None:
        """Has the worker answer `requests`.

        Raises:
            ToolchainError: a channel cannot be read, or the worker did not answer.
        """
        with atomic.scratch(self._cache) as folder:
            asked, answered = folder / "request.json", folder / "answer.json"
            asked.write_text(json.dumps(self._message(requests, fetch)))
            done = process.run(
                [sys.executable, "-m", _WORKER, str(asked), str(answered)],
                environ=self._worker_environ(),
                report=report,
            )
            if done.code != 0 or not answered.is_file():
                tail = "\n".join(line for line in done.tail[-_SHOWN:] if line.strip())
                raise ToolchainError(
                    f"querying the channels failed (exit status {done.code}):",
                    log=tail,
                    where=", ".join(self.urls),
                )
            answer = json.loads(answered.read_text())
        if isinstance(answer, dict):
            raise ToolchainError(**answer["unusable"])
        for request, item in zip(requests, answer, strict=True):
            self._answers[request, fetch] = item

    def _message(self, requests: Sequence[Request], fetch: bool) -> dict[str, Any]:
        pins = dict(load(self._root / "conda_build_config.yaml")[0].common)
        return {
            "recipe": str(self._root / "recipe" / "recipe.yaml"),
            "channels": list(self.urls),
            "cache": str(self._cache),
            "asked": [{**_asked(request, pins), "fetch": fetch} for request in requests],
        }

    def _worker_environ(self) -> dict[str, str]:
        """The user's own: rattler finds login, proxies and certificates there."""
        environ = {**self._environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        environ["RATTLER_CACHE_DIR"] = str(self._cache / "rattler")
        if self._credentials:
            environ[CREDENTIALS] = json.dumps(self._credentials)
        return environ


def _asked(request: Request, pins: Mapping[str, str]) -> dict[str, object]:
    """What is asked of the channels: the recipe's outputs and the keys that render them."""
    variant = request.variant
    keys = {
        **pins,
        "flashinfer_variant": variant.id,
        "cuda_nvcc": "{}.{}".format(*variant.cuda) if variant.cuda else "None",
        "pytorch": "{}.{}".format(*variant.torch),
        # Has no part in what is asked for.
        "cuda_arch_list": "9.0" if variant.cuda else "None",
        "gxx_below": str(request.gxx_below or _ANY_GXX),
    }
    if request.gxx:
        keys["cxx_compiler_version"] = request.gxx
    outputs = ["libflashinfer", *(["flashinfer"] if request.torch else [])]
    return {"keys": keys, "outputs": outputs, "glibc": request.glibc}
