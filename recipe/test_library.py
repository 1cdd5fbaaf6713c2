"""Loads libflashinfer and compares the CUDA that compiled it with the one the package names.

Example:
    FLASHINFER_CUDA=13.0 PREFIX=/opt/env python test_library.py
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def main(cuda: str, prefix: str) -> None:
    """Stops with a message unless the library in `prefix` was compiled with `cuda`."""
    library = ctypes.CDLL(str(Path(prefix) / "lib" / "libflashinfer.so"))
    library.fi_build_info.restype = ctypes.c_char_p
    text = library.fi_build_info().decode()
    info = dict(line.split("=", 1) for line in text.splitlines())
    measured = "None" if info["cuda"] == "none" else ".".join(info["cuda"].split(".")[:2])
    if measured != cuda:
        raise SystemExit(f"libflashinfer was compiled with CUDA {measured}, its name says {cuda}")
    print(text, end="")


if __name__ == "__main__":
    main(os.environ["FLASHINFER_CUDA"], os.environ["PREFIX"])
