"""A disk that becomes full at a random byte of every stage."""

from __future__ import annotations

import math
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from site_of_faults import Site

WEIGHTS = {
    **{"toolchain": 3, "compiler": 1, "library": 4, "binding": 1, "wheel": 4},
    **{"verify": 2, "try-conda": 1, "try-pip": 1, "publish": 4},
}
# An upper bound of what a stage writes, until a run that was not disturbed says what it is.
LARGEST = {"verify": 4e3, "publish": 2e6, "wheel": 2e6}
LARGEST_ELSE = 1e8
SMALLEST = 200.0


class Disk:
    """The bytes that are left below the place; see full_disk.c."""

    def __init__(self, library: Path, site: Site) -> None:
        self.state = library.with_suffix(".state")
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAULT_DISK_ROOTS": f"{site.root}:{site.cache}",
            "FAULT_DISK_STATE": str(self.state),
        }

    def set_left(self, size: int) -> None:
        self.state.write_bytes(struct.pack("<qq", size, 0))

    @property
    def left(self) -> int:
        return int(struct.unpack("<qq", self.state.read_bytes())[0])

    @property
    def refused(self) -> int:
        return int(struct.unpack("<qq", self.state.read_bytes())[1])


@pytest.fixture(scope="module")
def disk(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    library = tmp_path_factory.mktemp("disk") / "full_disk.so"
    source = Path(__file__).with_name("full_disk.c")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return Disk(library, site)


def test_a_full_disk_is_named_and_the_next_build_completes(
    site: Site, disk: Disk, count: int, injected: Callable[[str, str], None]
) -> None:
    largest = {stage: LARGEST.get(stage, LARGEST_ELSE) for stage in WEIGHTS}
    for stage in site.schedule(count, WEIGHTS):
        for _ in range(10):
            site.undo(stage)
            # Most of what a stage writes is a few large files; all sizes get their share.
            exponent = site.moments.uniform(math.log(SMALLEST), math.log(largest[stage]))
            size = int(math.exp(exponent))
            disk.set_left(size)
            done = site.run(extra=disk.environ)
            if disk.refused:
                break
            assert done.code == 0, done
            largest[stage] = max(SMALLEST + 1.0, float(size - disk.left))
        else:
            pytest.fail(site.words(f"{stage} never filled the disk"))
        context = f"{stage} with {size} bytes left, {disk.refused} calls refused\n{done}"
        assert site.quiet() == [], site.words(context)
        assert done.code in (1, 2), site.words(context)
        assert "No space left on device" in done.said, site.words(context)
        assert "free space" in done.said, site.words(context)
        assert "Traceback" not in done.said, site.words(context)
        deep = stage == "toolchain"
        site.check_names(context, deep)
        site.check_complete(site.run(), context, deep)
        injected("full disk", stage)
