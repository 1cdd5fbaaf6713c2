"""kill -9 at random moments of every stage: of the whole process group, and of build.py alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from site_of_faults import VARIANT, Site

from flashinfer_build.label import Label, Variant
from flashinfer_build.pipeline.ledger import file_digest

# The binding and the tries take longest; publishing is where a half would hurt most.
WEIGHTS = {
    **{"toolchain": 4, "compiler": 1, "library": 3, "binding": 1, "wheel": 3},
    **{"verify": 2, "try-conda": 1, "try-pip": 1, "publish": 4},
}
START = 0.15  # seconds after which there is something to kill


def test_another_folder_another_compiler_and_another_cache_give_the_same_bytes(
    site: Site, dist: Path
) -> None:
    label = Label.compose(Variant.parse(VARIANT))
    for name in (
        f"channel/linux-64/{label.conda_file}",
        f"channel/linux-64/{label.lib_conda_file}",
        f"wheels/{label.wheel_file}",
    ):
        assert site.whole[f"checkout/dist/{name}"] == file_digest(dist / name), name


@pytest.mark.parametrize("group", [True, False], ids=["group", "alone"])
def test_a_killed_build_leaves_nothing_half_and_the_next_completes(
    site: Site, count: int, injected: Callable[[str, str], None], group: bool
) -> None:
    fault = "kill -9 of the group" if group else "kill -9 of build.py alone"
    for stage in site.schedule(-(-count // 2), WEIGHTS):  # `count` with the other way to kill
        for _ in range(10):
            site.undo(stage)
            child = site.start()
            moment = site.moments.uniform(START, 0.6 + site.seconds[stage])
            time.sleep(moment)
            if site.kill(child, group):
                break
        else:
            pytest.fail(site.words(f"{stage} always ended before it was killed"))
        context = f"{fault} after {moment:.3f} s of {stage}"
        assert site.quiet() == [], site.words(context)
        deep = stage == "toolchain"
        site.check_names(context, deep)
        site.check_complete(site.run(), context, deep)
        injected(fault, stage)


def test_a_compiler_that_really_compiles_dies_with_the_build(
    site: Site, injected: Callable[[str, str], None]
) -> None:
    """Elsewhere the compiler remembers what it once compiled; here it works for seconds."""
    (site.compiler / "unmemorable").touch()
    try:
        for group in (True, False):
            site.undo("library")
            child = site.start()
            end = time.monotonic() + 120
            while not any("cc1plus" in line for line in site.processes()):
                assert time.monotonic() < end and child.poll() is None
                time.sleep(0.02)
            time.sleep(site.moments.uniform(0, 1))
            assert site.kill(child, group)
            context = f"kill -9 ({group=}) while cc1plus runs"
            assert site.quiet() == [], site.words(context)
            site.check_names(context)
            injected("kill -9 of build.py, the compiler at work", "library")
    finally:
        (site.compiler / "unmemorable").unlink()
    site.check_complete(site.run(), "after both kills")
