"""Which release's meaning a call has that FlashInfer 0.1.6 and 0.2.0 take differently.

``docs/callers.md`` lists such calls. ``FLASHINFER_API`` in the environment, ``0.1.6`` or ``0.2.0``,
chooses. Without it the call keeps the meaning that is documented with the function, and warns: what
is computed would otherwise differ from what the caller's release computed, and nothing would say
so.
"""

from __future__ import annotations

import os
import sys
import warnings

import torch

VARIABLE = "FLASHINFER_API"
OLD, NEW = "0.1.6", "0.2.0"

_warned: set[str] = set()


def chosen() -> str | None:
    """The release that ``FLASHINFER_API`` names, None where it is not set.

    Raises:
        ValueError: it names no release that is known.
    """
    value = os.environ.get(VARIABLE, "")
    if value not in ("", OLD, NEW):
        raise ValueError(
            f"{VARIABLE} is {value!r} in the environment, expected {OLD!r} or {NEW!r}: the release"
            " whose meaning calls have that the two take differently; unset it for neither"
        )
    return value or None


_at_import = chosen()


def settle(call: str, difference: str, default: str, argument: str) -> str:
    """The release whose meaning a call has.

    Args:
        call: the function and what the call leaves open, once for which is warned.
        difference: what it means in 0.1.6 and in 0.2.0.
        default: the release whose meaning it has where ``FLASHINFER_API`` does not say.
        argument: what to write in the call that leaves nothing open; may be empty.
    """
    if torch.compiler.is_compiling():
        return _at_import or default  # what traces has neither an environment nor warnings
    release = chosen()
    if release is not None:
        return release
    if call not in _warned:
        _warned.add(call)
        advice = f"{argument}, or set" if argument else "Set"
        warnings.warn(
            f"{call}: {difference}. Here it has the meaning of {default}. {advice} {VARIABLE}={OLD}"
            f" or {VARIABLE}={NEW} in the environment.",
            stacklevel=_callers_level(),
        )
    return default


def causal(call: str, given: bool | None, masked: bool = False) -> bool:
    """``causal`` as it was given, or the default of a release. Masks leave it without effect."""
    if given is not None or masked:
        return bool(given)
    release = settle(
        f"{call} without causal",
        f"causal is True by default in FlashInfer {OLD}, and False in {NEW}",
        NEW,
        "Pass causal=True or causal=False",
    )
    return release == OLD


def _callers_level() -> int:
    """The stacklevel of the first frame that is not of this package, as settle counts it."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame, level = frame.f_back, level + 1
    return level
