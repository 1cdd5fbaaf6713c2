"""Solves for many machines and channels; a program of its own, because of rattler's threads.

They may crash an interpreter that ends right after them, so this one ends by _exit.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """What is asked for, of which channels, on which machine.

    ``machine`` has the virtual packages; without it they are those that rattler finds here, as
    ``environ`` overrides them. ``strategy`` is one of rattler's; ``lowest-direct`` takes the oldest
    of what is asked for. ``installed`` was asked for before, and is in the environment with what it
    needs: conda asks for all of that again, and prefers what there is. Without ``priority`` every
    channel counts as much as the first, as with conda's ``channel_priority: disabled``.
    """

    channels: Sequence[str]
    wanted: Sequence[str]
    machine: Mapping[str, str] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    strategy: str = "highest"
    installed: Sequence[str] = ()
    priority: bool = True


@dataclass(frozen=True)
class Answer:
    """What is chosen, as ``name version build``, and each one's address; or the solver's words."""

    chosen: Sequence[str] = ()
    refusal: str = ""
    places: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        """Version and build of a package, which has to be there once."""
        [found] = [text for text in self.chosen if text.split()[0] == name]
        return " ".join(found.split()[1:])

    def __contains__(self, name: str) -> bool:
        return any(text.split()[0] == name for text in self.chosen)


def solve(cases: Mapping[str, Case]) -> dict[str, Answer]:
    """The answers to all cases, by the cases' names."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__))],
        input=json.dumps([asdict(case) for case in cases.values()]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers = [Answer(**answer) for answer in json.loads(done.stdout)]
    return dict(zip(cases, answers, strict=True))


async def _answer(case: Case, gateway: object) -> Answer:
    import rattler
    from rattler.exceptions import SolverError

    async def solved(wanted: Sequence[str], **more: object) -> list[rattler.RepoDataRecord]:
        return await rattler.solve(
            case.channels,
            # As conda reads them: "a 1.0 b" is one version and one build.
            [rattler.MatchSpec(spec, strict=False) for spec in wanted],
            gateway=gateway,
            platforms=["linux-64", "noarch"],
            virtual_packages=_virtual_packages(case),
            strategy=case.strategy,
            channel_priority=(
                rattler.ChannelPriority.Strict
                if case.priority
                else rattler.ChannelPriority.Disabled
            ),
            **more,
        )

    try:
        there = await solved(case.installed) if case.installed else []
        names = [one.name.normalized for one in there]
        records = await solved([*case.installed, *names, *case.wanted], locked_packages=there)
    except SolverError as error:
        return Answer(refusal=str(error))
    return Answer(
        sorted(f"{one.name.normalized} {one.version} {one.build}" for one in records),
        places={one.name.normalized: one.url for one in records},
    )


def _virtual_packages(case: Case) -> list[object]:
    from rattler import (
        GenericVirtualPackage,
        PackageName,
        Version,
        VirtualPackage,
        VirtualPackageOverrides,
    )
    from rattler.package import BuildString

    if case.machine is None:
        os.environ.update(case.environ)
        try:
            return list(VirtualPackage.detect(VirtualPackageOverrides.from_env()))
        finally:
            for name in case.environ:
                del os.environ[name]
    machine = {"__unix": "0", "__linux": "5.15", **case.machine}
    return [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString("0"))
        for name, version in machine.items()
    ]


async def _main() -> None:
    import rattler

    gateway = rattler.Gateway()
    cases = [Case(**case) for case in json.load(sys.stdin)]
    print(json.dumps([asdict(await _answer(case, gateway)) for case in cases]))


if __name__ == "__main__":
    asyncio.run(_main())
    sys.stdout.flush()
    os._exit(0)
