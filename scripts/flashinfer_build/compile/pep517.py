"""The PEP 517 backend: setuptools', which first looks whether a build is possible here.

An isolated build must not bring a torch of its own choice: the binding has to fit the torch it
will run with. pip's leads to the environment's torch (measure.find_torch looks through the
isolation); where nothing does, the build stops, unless the variant is named.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from conda_bridge.errors import BridgeError, StorageError

from . import prerequisites

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def _stop(error: BridgeError | OSError) -> SystemExit:
    shown = StorageError(error) if isinstance(error, OSError) else error
    return SystemExit(f"\nerror: {shown}\n")


def _setuptools(*, compiles: bool = True) -> Any:
    """setuptools' own hooks.

    Raises:
        SystemExit: they cannot be used here; with words, because frontends show a traceback else.
    """
    try:
        prerequisites.check(compiles=compiles)
    except BridgeError as error:
        raise _stop(error) from None
    from setuptools import build_meta

    return build_meta


def _torch() -> list[str]:
    """The torch that an isolated build has to bring: none, or that of the variant that is named."""
    from conda_bridge.errors import ToolchainError

    from ..label import Variant
    from .measure import find_torch
    from .project import NO_TORCH_FIX

    try:
        if find_torch() is not None:
            return []
        expected = os.environ.get("FLASHINFER_EXPECT_VARIANT")
        if expected:
            return ["torch=={}.{}.*".format(*Variant.parse(expected).torch)]
        raise ToolchainError(
            "there is no torch to build against",
            where=f"the environment of {sys.executable}",
            expected="the torch that flashinfer is to run with; pip's isolated build sees it where"
            " it is installed, those of uv and `python -m build` do not",
            fix=NO_TORCH_FIX,
        )
    except (BridgeError, OSError) as error:
        raise _stop(error) from None


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Setuptools' requirements, and a torch where a variant is named and no torch is here."""
    try:
        prerequisites.check_interpreter()
    except BridgeError as error:
        raise _stop(error) from None
    # setup.py would measure a torch that is only about to be installed.
    return _torch()


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    """As for a wheel."""
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Nothing more: a source distribution has no variant, and needs no torch."""
    return []


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """Setuptools' hook."""
    return str(_setuptools().prepare_metadata_for_build_wheel(metadata_directory, config_settings))


def prepare_metadata_for_build_editable(
    metadata_directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """Setuptools' hook."""
    return str(
        _setuptools().prepare_metadata_for_build_editable(metadata_directory, config_settings)
    )


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Setuptools' hook."""
    return str(_setuptools().build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Setuptools' hook."""
    return str(_setuptools().build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Setuptools' hook."""
    return str(_setuptools(compiles=False).build_sdist(sdist_directory, config_settings))
