"""Wheels of projects that nobody here wrote, of every kind that a conda package is made of."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["wheel"]


def wheel(
    folder: Path,
    files: Mapping[str, bytes | str],
    *,
    name: str = "toy",
    version: str = "1.0",
    file_version: str = "",
    tag: str = "py3-none-any",
    build: str = "",
    metadata: Sequence[str] = (),
    executables: Sequence[str] = (),
    entry_points: str = "",
    record: Mapping[str, tuple[str, str] | None] | None = None,
    wheel_lines: Sequence[str] | None = None,
) -> Path:
    """Writes a wheel with a true RECORD.

    Args:
        folder: where it goes.
        files: path -> content; ``{data}`` and ``{info}`` begin the paths in its two own folders.
        name, version, tag, build: of it.
        file_version: of the file name, where it differs.
        metadata: further lines of METADATA.
        executables: the paths of `files` with an executable bit.
        entry_points: ``entry_points.txt``.
        wheel_lines: of WHEEL, in place of the true ones.
        record: path -> digest and size to put in place of the true ones; None for no line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = re.sub(r"[-_.]+", "_", name).lower()
    stem = f"{plain}-{version}"
    info = f"{stem}.dist-info"
    head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *metadata]
    members = {
        path.format(data=f"{stem}.data", info=info): content for path, content in files.items()
    }
    bits = {path.format(data=f"{stem}.data", info=info) for path in executables}
    members[f"{info}/METADATA"] = "\n".join(head) + "\n"
    lines = wheel_lines
    if lines is None:
        python, abi, platforms = tag.split("-")
        lines = ["Wheel-Version: 1.0", "Root-Is-Purelib: false"]
        lines += [f"Tag: {python}-{abi}-{platform}" for platform in platforms.split(".")]
        lines += [f"Build: {build}"] if build else []
    members[f"{info}/WHEEL"] = "\n".join(lines) + "\n"
    if entry_points:
        members[f"{info}/entry_points.txt"] = entry_points
    rows = {}
    for path, content in members.items():
        data = content.encode() if isinstance(content, str) else content
        members[path] = data
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows[path] = (f"sha256={digest}", str(len(data)))
    rows[f"{info}/RECORD"] = ("", "")
    for short, row in (record or {}).items():
        changed = short.format(data=f"{stem}.data", info=info)
        rows.pop(changed, None)
        if row:
            rows[changed] = row
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([path, *row] for path, row in rows.items())
    members[f"{info}/RECORD"] = table.getvalue().encode()
    parts = [plain, file_version or version, *([build] if build else []), tag]
    path = folder / ("-".join(parts) + ".whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            entry = zipfile.ZipInfo(member)
            entry.external_attr = (0o100755 if member in bits else 0o100644) << 16
            archive.writestr(entry, data)
    return path
