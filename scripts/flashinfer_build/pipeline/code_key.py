"""Which modules take part in a job: what it imports of our packages, and what that imports.

A stage that is done has to be done again when its code changes. A list of modules kept by hand is
forgotten one day, so the imports themselves are read, without running them, in both packages. They
are read from the compiled code, which Python keeps: parsing it all would be half the time of a
build that has nothing to do. A worker that is started by name
(``"flashinfer_build.compile.build_worker"``) or copied (``"ops.py"``) counts as imported.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from .ledger import tree_digest

__all__ = ["closure", "code_key"]

_PACKAGES = ("conda_bridge", "flashinfer_build")
_PREFIXES = tuple(f"{name}." for name in _PACKAGES)


def code_key(scripts: Path, modules: Iterable[str]) -> str:
    """The digest of everything that `modules` run of the packages below `scripts`.

    Args:
        scripts: the folder that holds the packages.
        modules: their whole names, e.g. ``flashinfer_build.label``.
    """
    files = closure(scripts, modules)
    return tree_digest(scripts, [path.relative_to(scripts).as_posix() for path in files])


def closure(scripts: Path, modules: Iterable[str]) -> list[Path]:
    """The files of `modules` and of all that they import from the packages, in order.

    Raises:
        FileNotFoundError: a module that is not there.
    """
    found: set[Path] = set()
    waiting = [_existing(scripts, name) for name in modules]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path, scripts, path.stat().st_mtime_ns)
    # What is rendered by a module lies beside it.
    found.update(file for path in list(found) for file in path.parent.glob("templates/*"))
    return sorted(found)


def _existing(scripts: Path, name: str) -> Path:
    path = _file(scripts, name)
    if path is None:
        raise FileNotFoundError(f"{scripts}: no module {name}")
    return path


def _file(scripts: Path, name: str) -> Path | None:
    """The file of the module `name`; None for what is no module of our packages."""
    if name.partition(".")[0] not in _PACKAGES:
        return None
    base = scripts.joinpath(*name.split("."))
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@functools.lru_cache(maxsize=512)
def _imports(path: Path, scripts: Path, _changed: int) -> tuple[Path, ...]:
    """The files of the packages that `path` imports or names."""
    here = path.relative_to(scripts).parts[:-1]  # the packages that it lies in
    names: set[str] = set()
    for code in _codes(path):
        names.update(_imported(code, here))
        for text in _texts(code.co_consts):
            names.update(_named(text, here))
    # Python runs the packages that a module lies in before it: this module's and the others'.
    names.add(".".join((*here, path.stem)))
    names.update([parent for name in names for parent in _parents(name)])
    return tuple(sorted({file for name in names if (file := _file(scripts, name))} - {path}))


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


def _codes(path: Path) -> Iterator[CodeType]:
    """The code of a module, and of every function and class in it."""
    # What Python itself would run: from __pycache__ where that is of this source.
    whole = SourceFileLoader(path.stem, str(path)).get_code(path.stem)
    waiting = [whole] if whole else []
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [value for value in code.co_consts if isinstance(value, CodeType)]


_IMPORT = dis.opmap["IMPORT_NAME"]


def _imported(code: CodeType, here: tuple[str, ...]) -> Iterator[str]:
    """The names in the import statements of `code`, a module's or an attribute's."""
    if _IMPORT not in code.co_code[::2]:
        return
    level: Any = 0  # what the two instructions before an import put on the stack
    attributes: Any = ()
    for step in dis.get_instructions(code):
        if step.opcode == _IMPORT:
            base = here[: len(here) - level + 1] if level else ()
            module = ".".join((*base, *filter(None, [step.argval])))
            yield module
            for attribute in attributes or ():
                yield f"{module}.{attribute}"
        elif step.opcode != dis.EXTENDED_ARG:  # that is a part of the next
            level, attributes = attributes, step.argval


def _texts(constants: Iterable[object]) -> Iterator[str]:
    """The strings among constants, and in the tuples and sets among them."""
    for value in constants:
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple | frozenset):
            yield from _texts(value)


def _named(text: str, here: tuple[str, ...]) -> Iterator[str]:
    """Modules that a string names in full: ``conda_bridge.x`` or ``x.py`` beside the file."""
    if text.startswith(_PREFIXES) and text.replace(".", "").replace("_", "").isalnum():
        yield text
    elif text.endswith(".py") and "/" not in text:
        yield ".".join((*here, text.removesuffix(".py")))
