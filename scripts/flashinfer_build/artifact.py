"""Where files lie in the artifacts, and how the libraries among them find each other."""

from __future__ import annotations

__all__ = ["BINDING_RUNPATH", "LIBRARY_NAME"]

LIBRARY_NAME = "libflashinfer.so"
# From the binding: the library in a wheel, the library in a conda prefix, torch's libraries.
BINDING_RUNPATH = "$ORIGIN/lib:$ORIGIN/../../..:$ORIGIN/../torch/lib"
