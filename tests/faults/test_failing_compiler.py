"""A compiler that fails, is killed, or leaves half an object, at a random one of its calls."""

from __future__ import annotations

from collections.abc import Callable

from site_of_faults import Site

# Objects and the link; the stage before has none left to compile.
CALLS = {"library": 15, "binding": 13}
WAYS = ("exit", "signal", "half")
IN_A_ROW = 4
# A binding takes four times as long as a library, and goes the same way: one row in five.
ROWS = ("library", "binding", "library", "library", "library")


def test_a_failing_compiler_is_shown_and_the_next_build_completes(
    site: Site, count: int, injected: Callable[[str, str], None]
) -> None:
    plan = site.compiler / "plan"
    number = 0
    while number < count:
        stage = ROWS[number // IN_A_ROW % len(ROWS)]
        site.undo(stage)
        for _ in range(IN_A_ROW):
            call = site.moments.randint(1, CALLS[stage])
            way = WAYS[number % len(WAYS)]
            plan.write_text(f"{call} {way}\n")
            site.forget_calls()
            done = site.run()
            plan.unlink()
            context = f"{way} at call {call} of {stage}\n{done}"
            made = sorted(int(path.name) for path in (site.compiler / "calls").iterdir())
            assert made and made[-1] >= call, site.words(context)
            assert done.code == 1, site.words(context)
            assert "FAILED: " in done.said, site.words(context)  # ninja's word
            assert way == "signal" or "as planned" in done.said, site.words(context)
            assert site.quiet() == [], site.words(context)
            site.check_names(context)
            injected("failing compiler", stage)
            number += 1
        site.check_complete(site.run(), context)
