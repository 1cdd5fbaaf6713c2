"""Installs what was built into clean environments, as users do, and runs operators there.

One environment is conda's, made by a conda client from the channel; the other is a virtual
environment, in which pip installs the wheel from the index over http. Both take torch from the
toolchain's unpacked files, so making one costs seconds; where the toolchain is made of conda
packages, pip gets torch by itself.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import TestsFailed, ToolchainError, full_disk_fix
from conda_bridge.system import atomic, process

from ..compile.builder import subprocess_environ
from ..label import Label
from ..toolchain import Toolchain
from ..toolchain.unpacked import symlink_site

__all__ = ["Tried", "in_conda", "in_venv", "serve"]

Report = Callable[[str], None]
_OPS = Path(__file__).with_name("ops.py")
_SHOWN = 15
# What pip reads of the user's environment to reach an index.
_OF_PIP = re.compile(
    r"(?i)^(PIP_.*|(HTTPS?|ALL|NO)_PROXY|XDG_CONFIG_(HOME|DIRS)|NETRC"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)$"
)


@dataclass(frozen=True)
class Tried:
    """What ran, and where.

    Attributes:
        version: ``flashinfer.__version__``.
        torch: ``torch.__version__``.
        devices: ``cpu``, and the GPU's name where one took part.
        checks: the largest error of each operator, dtype and device.
    """

    version: str
    torch: str
    devices: tuple[str, ...]
    checks: Mapping[str, float]

    @property
    def summary(self) -> str:
        """For a person, e.g. ``18 checks, torch 2.13.0+cpu on cpu``."""
        return f"{len(self.checks)} checks, torch {self.torch} on {', '.join(self.devices)}"


def in_conda(
    channel: Path,
    tools: Toolchain,
    label: Label,
    *,
    work: Path,
    report: Report = lambda _line: None,
) -> Tried:
    """Installs the conda package into a clean prefix and tries it.

    Args:
        channel: the conda channel with the package.
        tools: has python and pytorch; torch must be importable.
        label: of the package.
        work: where to make the environment.
        report: is called with every line.

    Raises:
        TestsFailed: it cannot be installed, or does not do what it should.
        ToolchainError: the toolchain's torch cannot be imported.
    """
    _need_torch(tools)
    with _folder(work / f"try-conda-{label.variant.id}") as folder:
        environ = _environ(folder, label)
        prefix = folder / "env"
        spec = label.conda_spec
        request = {
            "channels": [channel.resolve().as_uri(), *tools.channels],
            "specs": [spec, "python", "pip"],
            "prefix": str(prefix),
        }
        asked, answered = folder / "install.json", folder / "installed.json"
        asked.write_text(json.dumps(request, indent=1))
        worker = [
            sys.executable,
            "-m",
            "flashinfer_build.tryout.install_worker",
            str(asked),
            str(answered),
        ]
        _step(f"conda install '{spec}'", worker, environ, report)
        activated = {
            **{name: value for name, value in environ.items() if name != "PYTHONPATH"},
            "CONDA_PREFIX": str(prefix),
            "PATH": f"{prefix}/bin{os.pathsep}{environ['PATH']}",
        }
        return _try(prefix, label, activated, folder, report)


def in_venv(
    staging: Path,
    tools: Toolchain,
    label: Label,
    *,
    work: Path,
    report: Report = lambda _line: None,
) -> Tried:
    """Installs the wheel into a clean environment, with pip from the index over http, and tries it.

    Args:
        staging: the folder with ``index/`` and ``wheels/``.
        tools: has torch and pip, unpacked; torch must be importable. Where it has no unpacked
            wheels (it is made of conda packages), pip gets torch as the user's pip would.
        label: of the wheel.
        work: where to make the environment.
        report: is called with every line.

    Raises:
        TestsFailed: it cannot be installed, or does not do what it should.
        ToolchainError: the toolchain's torch cannot be imported.
    """
    _need_torch(tools)
    with _folder(work / f"try-pip-{label.variant.id}") as folder:
        environ = _environ(folder, label)
        del environ["PYTHONPATH"]
        prefix = folder / "env"
        python = str(prefix / "bin" / "python")
        # With pip only where the toolchain does not bring one.
        bare = ["--without-pip"] if tools.trees else []
        make = [sys.executable, "-m", "venv", *bare, str(prefix)]
        _step("python -m venv", make, environ, report)
        if tools.trees:
            symlink_site(tools.trees, next(prefix.glob("lib/python*/site-packages")))
        else:
            _install_torch(python, label, environ, report)
        # Only our index, and only what it has: torch must fit as it is.
        environ["PIP_CONFIG_FILE"] = os.devnull
        with serve(staging) as address:
            index = f"{address}/index/{label.index_dir}/"
            wanted = label.wheel_requirement
            # fmt: off
            command = [python, "-m", "pip", "install", "--no-input", "--no-cache-dir",
                       "--only-binary", ":all:", "--disable-pip-version-check",
                       "--index-url", index, wanted]
            # fmt: on
            _step(f"pip install {wanted} --index-url {index}", command, environ, report)
        environ["VIRTUAL_ENV"] = str(prefix)
        environ["PATH"] = f"{prefix}/bin{os.pathsep}{environ['PATH']}"
        return _try(prefix, label, environ, folder, report)


def _install_torch(python: str, label: Label, environ: Mapping[str, str], report: Report) -> None:
    """Torch, numpy beside it, from the user's own index, mirrors and wheels."""
    own = {name: value for name, value in os.environ.items() if _OF_PIP.match(name)}
    wanted = "torch=={}.{}.*".format(*label.variant.torch)
    # fmt: off
    command = [python, "-m", "pip", "install", "--no-input", "--only-binary", ":all:",
               "--disable-pip-version-check", wanted, "numpy"]
    # fmt: on
    _step(f"pip install {wanted} numpy", command, {**environ, **own}, report)


def _need_torch(tools: Toolchain) -> None:
    if not tools.torch_importable:
        raise ToolchainError(
            f"torch {tools.torch_version} is here without the libraries that it loads",
            fix="make the toolchain with importable=True",
        )


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    """A clean folder; removed when all went well, left to be looked at when not."""
    with atomic.lock(folder.with_name(folder.name + ".lock")):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def _environ(folder: Path, label: Label) -> dict[str, str]:
    cuda = ".".join(map(str, label.variant.cuda)) if label.variant.cuda else None
    return subprocess_environ(folder, cuda=cuda)


def _try(
    prefix: Path, label: Label, environ: Mapping[str, str], folder: Path, report: Report
) -> Tried:
    """``pip check`` and the operators, with the environment's own Python."""
    python = str(prefix / "bin" / "python")
    _step("pip check", [python, "-m", "pip", "check"], environ, report)
    program = folder / _OPS.name
    shutil.copyfile(_OPS, program)
    # fmt: off
    lines = _step(
        "running operators",
        [python, "-I", str(program), "--variant", label.variant.id,
         "--version", label.wheel_version, "--prefix", str(prefix)],
        environ,
        report,
    )
    # fmt: on
    facts = json.loads(lines[-1])
    return Tried(facts["version"], facts["torch"], tuple(facts["devices"]), facts["checks"])


def _step(
    name: str, command: Sequence[str], environ: Mapping[str, str], report: Report
) -> tuple[str, ...]:
    """Runs one step.

    Returns:
        Its last lines.

    Raises:
        TestsFailed: it failed; its last lines are in the message.
    """
    report(name)
    done = process.run(command, environ=environ, report=report)
    if done.code != 0:
        tail = "\n".join(line for line in done.tail[-_SHOWN:] if line.strip())
        raise TestsFailed(
            f"`{name}` stopped with exit status {done.code}:",
            log=tail,
            fix=full_disk_fix("\n".join(done.tail)),
        )
    return done.tail


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: pip reports what it gets."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serves `folder` over http on this machine for as long as the block runs.

    Yields:
        The address, e.g. ``http://127.0.0.1:40123``.
    """
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
