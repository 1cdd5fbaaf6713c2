"""Extension modules: for which Pythons a file name says that a module is."""

from __future__ import annotations

import re

__all__ = ["module_abi"]

# What an importer looks for: EXT_SUFFIX of CPython and PyPy on Linux, macOS and Windows.
_SUFFIX = re.compile(
    r"\.(?:(?P<abi3>abi3)"
    r"|cpython-(?P<cpython>\d+[a-z]*)(?:-[\w-]+)?"
    r"|pypy(?P<pypy>\d+)-pp(?P<pp>\d+)(?:-[\w-]+)?"
    r")\.so$"
    r"|\.(?P<windows>cp\d+[a-z]*)-win\w+\.pyd$",
    re.ASCII,
)


def module_abi(path: str) -> str:
    """The ABI tag that an extension module's name stands for; empty where it names none.

    >>> module_abi("x/_C.abi3.so"), module_abi("x.cpython-313t-x86_64-linux-gnu.so")
    ('abi3', 'cp313t')
    >>> module_abi("x.pypy310-pp73-x86_64-linux-gnu.so"), module_abi("x.cp311-win_amd64.pyd")
    ('pypy310_pp73', 'cp311')
    >>> module_abi("lib/libx.so.1")
    ''
    """
    found = _SUFFIX.search(path)
    if not found:
        return ""
    if found["cpython"]:
        return f"cp{found['cpython']}"
    if found["pypy"]:
        return f"pypy{found['pypy']}_pp{found['pp']}"
    return found["windows"] or "abi3"
