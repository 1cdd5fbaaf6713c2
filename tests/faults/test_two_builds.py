"""Two builds at once in one folder: both succeed, the bytes are the same, work is done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from site_of_faults import VARIANT, Site

WEIGHTS = {
    **{"toolchain": 4, "compiler": 1, "library": 3, "binding": 1, "wheel": 4},
    **{"verify": 2, "try-conda": 1, "try-pip": 1, "publish": 4},
}
CSRC = Path(__file__).resolve().parents[2] / "csrc"
# A call for each file of the CPU's kernels, or of the binding, and one to link.
COMPILES = {
    "library": 1 + len([*CSRC.glob("*.cpp"), *CSRC.glob("cpu/*.cpp")]),
    "binding": 1 + len([*CSRC.glob("torch/*.cpp")]),
}


def test_two_builds_share_the_work(
    site: Site, count: int, injected: Callable[[str, str], None]
) -> None:
    for stage in site.schedule(count, WEIGHTS):
        site.undo(stage)
        started = time.monotonic()
        first = site.start(log="first.txt")
        delay = site.moments.uniform(0, min(1.0, site.seconds[stage]))
        time.sleep(delay)
        second = site.start(log="second.txt")
        context = f"a second build {delay:.3f} s after the first, in {stage}"
        deep = stage == "toolchain"
        ended = [
            site.finish(first, started, "first.txt"),
            site.finish(second, started, "second.txt"),
        ]
        for done in ended:
            site.check_complete(done, context, deep)
        if stage in COMPILES:
            calls = len(list((site.compiler / "calls").iterdir()))
            assert calls == COMPILES[stage], site.words(context)
        # Whichever was second found the stage done.
        marks = [next(_marks(done.said, stage), "") for done in ended]
        assert sorted(marks) == ["=", "✓"], site.words((context, ended[0].said, ended[1].said))
        injected("two builds at once", stage)


@pytest.mark.parametrize("first", ["library", "variant"])
def test_two_builds_that_share_their_kernels_compile_them_once(
    site: Site, injected: Callable[[str, str], None], first: str
) -> None:
    """One makes the library alone, the other a variant over it: as two variants of one CUDA do."""
    asked = {"library": ("--library", "cpu"), "variant": ("--variant", VARIANT)}
    order = sorted(asked, key=lambda name: name != first)
    site.undo("library")
    started = time.monotonic()
    children = {}
    for name in order:
        children[name] = site.start(what=asked[name], log=f"{name}.txt")
        delay = site.moments.uniform(0, 0.5)
        time.sleep(delay)
    context = f"the kernels asked for by {order}, {delay:.3f} s apart"
    ended = [site.finish(children[name], started, f"{name}.txt") for name in order]
    for done in ended:
        site.check_complete(done, context)
    calls = len(list((site.compiler / "calls").iterdir()))
    assert calls == COMPILES["library"], site.words(context)
    marks = [next(_marks(done.said, "library"), "") for done in ended]
    assert sorted(marks) == ["=", "✓"], site.words((context, marks))
    injected("two builds at once", "library")


TITLES = {
    "toolchain": "toolchain",
    "compiler": "compiler for",
    "library": "libflashinfer",
    "binding": "flashinfer (torch",
    "wheel": "bridge to",
    "verify": "verify",
    "try-conda": "install and run: conda",
    "try-pip": "install and run: pip",
    "publish": "channel and index",
}


def _marks(said: str, stage: str) -> Iterator[str]:
    """The sign that a build put before a stage."""
    for line in said.splitlines():
        if line[2:].startswith(TITLES[stage]):
            yield line[0]
