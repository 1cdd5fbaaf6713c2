"""Which modules of this package take part in a job: what it imports, and what that imports.

A stage that is done has to be done again when its code changes. A list of modules kept by hand is
forgotten one day, so the imports themselves are read, without running them. A worker that is
started by name (``"conda_bridge.build_worker"``) or copied (``"try_ops.py"``) counts as imported.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from .ledger import tree_digest

__all__ = ["closure", "code_key"]

_PACKAGE = "conda_bridge"


def code_key(scripts: Path, modules: Iterable[str]) -> str:
    """The digest of everything that `modules` of the package below `scripts` run.

    Args:
        scripts: the folder that holds the package.
        modules: their names in the package, e.g. ``bridge`` or ``toolchain.lock``.
    """
    files = closure(scripts, modules)
    return tree_digest(scripts, [path.relative_to(scripts).as_posix() for path in files])


def closure(scripts: Path, modules: Iterable[str]) -> list[Path]:
    """The files of `modules` and of all that they import from the package, in order.

    Raises:
        FileNotFoundError: a module that is not there.
    """
    package = scripts / _PACKAGE
    found: set[Path] = set()
    waiting = [_existing(package, name) for name in modules]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path, package, path.stat().st_mtime_ns)
    return sorted(found)


def _existing(package: Path, name: str) -> Path:
    path = _file(package, name)
    if path is None:
        raise FileNotFoundError(f"{package}: no module {name}")
    return path


def _file(package: Path, name: str) -> Path | None:
    """The file of the module `name` of the package; empty for the package itself."""
    base = package.joinpath(*name.split(".")) if name else package
    for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if path.is_file() and path.is_relative_to(package):
            return path
    return None


@functools.lru_cache(maxsize=512)
def _imports(path: Path, package: Path, _changed: int) -> tuple[Path, ...]:
    """The files of the package that `path` imports or names."""
    here = path.relative_to(package).parts[:-1]  # the folder, as names of packages
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), path.name)):
        if isinstance(node, ast.ImportFrom):
            names.update(_from(node, here))
        elif isinstance(node, ast.Import):
            names.update(_inside(alias.name) or "" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.update(_named(node.value, here))
    # The packages that a module lies in run before it.
    names.update(".".join(here[:depth]) for depth in range(len(here) + 1))
    return tuple(sorted({file for name in names if (file := _file(package, name))} - {path}))


def _inside(name: str) -> str | None:
    """The name in the package of an absolute one; None for what is elsewhere."""
    head, _, rest = name.partition(".")
    return rest if head == _PACKAGE else None


def _from(node: ast.ImportFrom, here: tuple[str, ...]) -> Iterator[str]:
    if node.level:
        base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
        module = ".".join(filter(None, base))
    else:
        inside = _inside(node.module or "")
        if inside is None:
            return
        module = inside
    yield module
    for alias in node.names:
        yield f"{module}.{alias.name}".lstrip(".")


def _named(text: str, here: tuple[str, ...]) -> Iterator[str]:
    """Modules that a string names in full: ``conda_bridge.x`` or ``x.py`` beside the file."""
    if text.startswith(f"{_PACKAGE}.") and text.replace(".", "").replace("_", "").isalnum():
        yield text.partition(".")[2]
    elif text.endswith(".py") and "/" not in text:
        yield ".".join((*here, text.removesuffix(".py")))
