"""The PEP 517 backend: setuptools', which also asks for torch where the environment has none.

An isolated build must not bring a torch of its own choice: the binding has to fit the torch it
will run with. So the environment's torch is used where there is one (measure.find_torch looks
through the isolation), and only an environment without any gets a torch to build against.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (the hooks that stay as they are)

from ..label import Variant
from .measure import find_torch

__all__ = ["get_requires_for_build_wheel"]


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Setuptools' requirements, and a torch where there is none to build against."""
    requires: list[str] = build_meta.get_requires_for_build_wheel(config_settings)
    if find_torch() is None:
        expected = os.environ.get("FLASHINFER_EXPECT_VARIANT")
        if expected:
            requires.append("torch=={}.{}.*".format(*Variant.parse(expected).torch))
        else:
            requires.append("torch")
    return requires
