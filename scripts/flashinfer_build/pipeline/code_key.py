"""Which modules take part in a job: what it imports of our packages, and what that imports.

A stage that is done has to be done again when its code changes. A list of modules kept by hand is
forgotten one day, so the imports themselves are read, without running them, in both packages. A
worker that is started by name (``"flashinfer_build.compile.build_worker"``) or copied
(``"ops.py"``) counts as imported.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

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
    for node in ast.walk(ast.parse(path.read_text(), path.name)):
        if isinstance(node, ast.ImportFrom):
            names.update(_from(node, here))
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.update(_named(node.value, here))
    # Python runs the packages that a module lies in before it: this module's and the others'.
    names.add(".".join((*here, path.stem)))
    names.update([parent for name in names for parent in _parents(name)])
    return tuple(sorted({file for name in names if (file := _file(scripts, name))} - {path}))


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


def _from(node: ast.ImportFrom, here: tuple[str, ...]) -> Iterator[str]:
    base = here[: len(here) - node.level + 1] if node.level else ()
    module = ".".join((*base, *filter(None, [node.module])))
    yield module
    for alias in node.names:
        yield f"{module}.{alias.name}"


def _named(text: str, here: tuple[str, ...]) -> Iterator[str]:
    """Modules that a string names in full: ``conda_bridge.x`` or ``x.py`` beside the file."""
    if text.startswith(_PREFIXES) and text.replace(".", "").replace("_", "").isalnum():
        yield text
    elif text.endswith(".py") and "/" not in text:
        yield ".".join((*here, text.removesuffix(".py")))
