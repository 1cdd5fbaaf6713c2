"""Every reader that takes what comes from outside, as a target."""

from __future__ import annotations

import importlib
import pkgutil

from ..target import Target

__all__ = ["by_name"]


def by_name() -> dict[str, Target]:
    """All targets: the ``TARGETS`` of each module here."""
    found: dict[str, Target] = {}
    for module in sorted(item.name for item in pkgutil.iter_modules(__path__)):
        loaded = importlib.import_module(f"{__name__}.{module}")
        for target in getattr(loaded, "TARGETS", ()):
            assert target.name not in found, target.name
            found[target.name] = target
    return found
