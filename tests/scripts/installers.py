"""Installers of the tests' environment, which is not always the one that runs the tests."""

from __future__ import annotations

import sys

import uv

__all__ = ["PIP_COMPILE", "UV"]

UV = str(uv.find_uv_bin())
PIP_COMPILE = [sys.executable, "-m", "piptools", "compile"]
