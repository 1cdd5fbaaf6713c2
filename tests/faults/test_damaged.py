"""A flipped bit in anything that a build keeps: found on use, and made again, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from site_of_faults import VARIANT, Site

Place = Callable[[Site], list[Path]]


def _files(folder: Path, pattern: str = "*") -> list[Path]:
    found = [path for path in folder.rglob(pattern) if path.is_file()]
    return [path for path in found if path.suffix != ".lock" and "__pycache__" not in path.parts]


def _torch(site: Site) -> list[Path]:
    """What the binding is compiled from: torch's headers, and a library that it is linked to."""
    folder = site.tree(site.wheels()[0]) / "site" / "torch"
    return [*_files(folder / "include", "*.h"), folder / "lib" / "libc10.so"]


def _small_tree(site: Site) -> list[Path]:
    return [path for wheel in site.small_wheels() for path in _files(site.tree(wheel))]


# What is flipped -> where it is, and whether the toolchain has to be asked for again, so that the
# cache has a part in the build.
PLACES: dict[str, tuple[Place, bool]] = {
    "cached wheel": (lambda site: [site.wheel(w) for w in site.small_wheels()], True),
    "cached package": (lambda site: _files(site.cache / "packages"), True),
    "local channel": (lambda site: _files(site.cache / "channels"), True),
    "unpacked wheel": (_small_tree, True),
    "unpacked torch": (_torch, True),
    "list of what was unpacked": (
        lambda site: list((site.cache / "unpacked").glob("*.json")),
        True,
    ),
    "toolchain's inputs": (lambda site: _files(site.build / "inputs"), False),
    "libflashinfer": (lambda site: _files(site.build / "packages"), False),
    "staged channel": (lambda site: _files(site.build / "staging", "channel/**/*"), False),
    "staged wheel": (lambda site: _files(site.build / "staging", "wheels/*"), False),
    "staged index": (lambda site: _files(site.build / "staging", "index/**/*"), False),
    "ledger": (lambda site: _files(site.build / "ledger"), False),
    "published channel": (lambda site: _files(site.dist / "channel"), False),
    "published wheel": (lambda site: _files(site.dist / "wheels"), False),
    "published index": (lambda site: _files(site.dist / "index"), False),
    "published page": (lambda site: list(site.dist.glob("index.*")), False),
}
# These cost a compile stage each time.
DEAR = ("libflashinfer", "staged channel")


@pytest.mark.parametrize("name", PLACES)
def test_a_flipped_bit_is_found_and_mended(
    site: Site, count: int, injected: Callable[[str, str], None], name: str
) -> None:
    find, cached = PLACES[name]
    times = -(-count // (20 if name in DEAR else 10))
    for _ in range(times):
        site.undo("none")
        if cached:
            for stage in ("toolchain", "compiler"):
                [entry] = (site.build / "ledger").rglob(f"{stage}.json")
                entry.unlink()
        chosen = [path for path in find(site) if path.stat().st_size]
        path = site.moments.choice(sorted(chosen))
        context = site.flip(path)
        if name == "cached wheel":  # it is read when it is unpacked
            [wheel] = [w for w in site.small_wheels() if site.wheel(w) == path]
            shutil.rmtree(site.tree(wheel))
        before = path.read_bytes()
        done = site.run()
        site.check_complete(done, context, deep=True)
        if name not in ("ledger", "list of what was unpacked"):
            assert path.read_bytes() != before, site.words(context)
        injected("flipped bit", name)


def test_a_published_file_of_another_build_is_reported(site: Site) -> None:
    """What this build does not make it cannot mend: it says what to do, and touches nothing."""
    site.undo("publish")
    site.check_complete(site.run(), "publish")
    channel = site.dist / "channel" / "linux-64"
    done = site.run("--build-number", "1", what=("--library", "cpu"))
    assert done.code == 0, done
    [other] = channel.glob("libflashinfer-*_1.conda")
    site.flip(other)
    damaged = other.read_bytes()
    [entry] = (site.build / "ledger" / VARIANT).glob("publish*.json")
    entry.unlink()
    done = site.run()
    assert done.code in (1, 2), done
    assert other.name in done.said
    assert "to do:" in done.said
    assert other.read_bytes() == damaged
    site.undo("none")
