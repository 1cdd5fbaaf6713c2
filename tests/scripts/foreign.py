"""Conda packages of projects that nobody has told the tools about, of every kind there is."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from factories import Member, raw_conda, raw_tar_bz2, tar_bytes, tar_file

from conda_bridge.config import parse
from conda_bridge.project import Project

PREFIX = "/opt/build_env_placehold_placehold_placehold/h"
SITE = "lib/python3.12/site-packages/"
# By hand what Python.h says, which need not be there; the layout is the stable ABI's.
MODULE = """
{extern}
struct definition {{
  long count; void *type, *init; long index; void *copy; const char *name, *doc; long size;
  void *methods, *slots, *traverse, *clear, *free;
}};
static struct definition module = {{1, 0, 0, 0, 0, "{name}", 0, -1}};
extern void *PyModule_Create2(void *, int);
extern int PyModule_AddIntConstant(void *, const char *, long);
__attribute__((visibility("default"))) void *PyInit_{name}(void) {{
  void *made = PyModule_Create2(&module, 3);
  PyModule_AddIntConstant(made, "answer", {value});
  return made;
}}
"""


def project(**table: Any) -> Project:
    """A project with this configuration."""
    return Project.of(parse(table, "test"))


def metadata(name: str, version: str, *lines: str, body: str = "") -> bytes:
    """A ``METADATA``."""
    head = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *lines]
    return ("\n".join(head) + f"\n\n{body}").encode()


def package(
    folder: Path,
    name: str = "demo",
    version: str = "1.2.0",
    build: str = "h_0",
    *,
    files: Mapping[str, bytes | str],
    links: Mapping[str, str] | None = None,
    prefixes: Mapping[str, str] | None = None,
    executable: tuple[str, ...] = (),
    depends: tuple[str, ...] = ("python >=3.8",),
    noarch: str | None = None,
    subdir: str = "linux-64",
    about: Mapping[str, object] | None = None,
    info: Mapping[str, bytes] | None = None,
    ending: str = ".conda",
    **index: object,
) -> Path:
    """Writes a conda package.

    Args:
        folder: that it is written into.
        name, version, build: of its file name.
        files: path -> content.
        links: path -> target.
        prefixes: paths with the build prefix -> ``text`` or ``binary``.
        executable: paths of files that may be run.
        depends, noarch, subdir: of ``index.json``.
        about: ``about.json``.
        info: further files below ``info/``.
        ending: ``.conda`` or ``.tar.bz2``.
        index: further keys of ``index.json``.
    """
    members: list[Member] = []
    paths: list[dict[str, object]] = []
    for path, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        mode = 0o755 if path in executable else 0o644
        members.append(tar_file(path, data, mode=mode))
        entry: dict[str, object] = {
            "_path": path,
            "path_type": "hardlink",
            "sha256": sha256(data).hexdigest(),
            "size_in_bytes": len(data),
        }
        if prefixes and path in prefixes:
            entry |= {"prefix_placeholder": PREFIX, "file_mode": prefixes[path]}
        paths.append(entry)
    for path, target in (links or {}).items():
        members.append(tar_file(path, type=b"2", linkname=target))
        paths.append({"_path": path, "path_type": "softlink"})
    stem = f"{name}-{version}-{build}"
    said = {
        **{"name": name, "version": version, "build": build, "build_number": 0},
        **{"subdir": subdir, "depends": list(depends), "license": "MIT"},
        **({"noarch": noarch} if noarch else {}),
        **index,
    }
    known = {
        "info/index.json": json.dumps(said).encode(),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        "info/about.json": json.dumps(about or {"license": "MIT", "summary": "A demo"}).encode(),
        **(info or {}),
    }
    inside = [tar_file(path, data) for path, data in known.items()]
    path = folder / f"{stem}{ending}"
    if ending == ".conda":
        return raw_conda(path, payload=tar_bytes(members), info=tar_bytes(inside))
    return raw_tar_bz2(path, [*members, *inside])


@functools.cache
def compiled(
    source: str,
    *,
    name: str = "toy.so",
    soname: str = "",
    needs: tuple[tuple[str, bytes], ...] = (),
    rpath: str = "",
    old_rpath: bool = False,
    program: bool = False,
) -> bytes:
    """A shared object, or a program, that gcc made of C.

    Args:
        source: the C.
        name: of the file, while it is linked.
        soname: of a library.
        needs: libraries to link with, name and content.
        rpath: its RUNPATH.
        old_rpath: make that an RPATH, as conda-build does.
        program: whether it is one.
    """
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "toy.c").write_text(source)
        for library, content in needs:
            (folder / library).write_bytes(content)
        tags = "--disable-new-dtags" if old_rpath else "--enable-new-dtags"
        compiler = shutil.which("gcc") or shutil.which("cc")
        assert compiler, "the tests need a C compiler"
        command = [compiler, "-w", "-O1", "-s", str(folder / "toy.c"), "-o", str(folder / name)]
        command += [] if program else ["-shared", "-fPIC"]
        command += [f"-Wl,-soname,{soname}"] if soname else []
        command += [str(folder / library) for library, _ in needs]
        command += [f"-Wl,{tags},-rpath,{rpath}"] if rpath else []
        command += ["-Wl,--allow-shlib-undefined"]
        subprocess.run(command, check=True)
        return (folder / name).read_bytes()


def library(soname: str, function: str = "answer", **options: Any) -> bytes:
    """A shared library with one function, which says 42."""
    source = f"int {function}(void) {{ return 42; }}\n"
    return compiled(source, name=soname or "libtoy.so", soname=soname, **options)


def module(name: str, *, calls: str = "", python: tuple[str, ...] = (), **options: Any) -> bytes:
    """An extension module for the stable ABI, with a number ``answer`` in it.

    Args:
        name: of the module.
        calls: a function of a library, which says the number; without one it is 7.
        python: further functions of Python that it wants.
        options: of :func:`compiled`.
    """
    extern = "".join(f"extern int {function}(void);\n" for function in (*python, calls) if function)
    extern += "".join(f"void *use_{function} = {function};\n" for function in python)
    source = MODULE.format(name=name, extern=extern, value=f"{calls}()" if calls else "7")
    return compiled(source, name=f"{name}.so", **options)
