"""Where files lie in the artifacts, and how the libraries among them find each other."""

from __future__ import annotations

__all__ = ["BINDING_NAME", "BINDING_RUNPATH", "LIBRARY_NAME", "LICENCES", "SBOM", "SBOM_FOLDER"]

LIBRARY_NAME = "libflashinfer.so"
BINDING_NAME = "_C.abi3.so"
# Of the kernels' package, below the prefix; a wheel has its own in .dist-info/sboms (PEP 770).
SBOM_FOLDER = "share/libflashinfer/sboms"
SBOM = "{}.cdx.json"  # by the name of the package
LICENCES = "third-party-licenses"  # a folder, beside the package's own LICENSE
# From the binding: the library in a wheel, the library in a conda prefix, torch's libraries.
BINDING_RUNPATH = "$ORIGIN/lib:$ORIGIN/../../..:$ORIGIN/../torch/lib"
