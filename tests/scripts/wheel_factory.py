"""Small real wheels for tests."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from flashinfer_build.toolchain.lock import LockedWheel

__all__ = ["make_wheel"]


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    files: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
    scripts: Sequence[str] = (),
    executables: Sequence[str] = (),
) -> tuple[Path, LockedWheel]:
    """Writes a wheel and returns its file and its lock entry; the same input, the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    metadata = [f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    members = {
        **(files if files is not None else {f"{name.replace('-', '_')}.py": "value = 42\n"}),
        f"{info}/METADATA": "Metadata-Version: 2.1\n" + "\n".join(metadata) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if scripts:
        lines = "\n".join(scripts)
        members[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}\n"
    members[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*members, f"{info}/RECORD"])
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            entry = zipfile.ZipInfo(member)
            entry.external_attr = (0o100755 if member in executables else 0o100644) << 16
            archive.writestr(entry, text)
    return path, LockedWheel(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
