"""What a package's record in a channel says: as facts, and as an entry of ``repodata.json``."""

from __future__ import annotations

import re
from typing import Any

from rattler import RepoDataRecord

__all__ = ["as_line", "as_repodata", "built_for"]

# What says for which CUDA a torch was built, where its build string does not.
_CUDA_PACKAGES = ("cuda-version", "pytorch-cuda", "cudatoolkit")


def built_for(record: RepoDataRecord) -> str:
    """For which CUDA a pytorch package was built: its major, ``none``, or ``unknown``."""
    for spec in record.depends:
        name, _, rest = spec.partition(" ")
        number = re.search(r"\d+", rest)
        if name in _CUDA_PACKAGES and number:
            return number[0]
    build = str(record.build)
    dotted = re.search(r"cuda_?(\d+)\.\d", build)
    if dotted:
        return dotted[1]
    plain = re.search(r"cuda_?(\d+)\d(?!\d)", build)
    if plain:
        return plain[1]
    return "unknown" if "cuda" in build or "gpu" in build else "none"


def as_repodata(record: RepoDataRecord) -> dict[str, Any]:
    """The record's entry in ``repodata.json``."""
    noarch = "python" if record.noarch.python else "generic" if record.noarch.generic else None
    # Milliseconds, as conda writes them.
    timestamp = int(record.timestamp.timestamp() * 1000) if record.timestamp else None
    entry = {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "build_number": record.build_number,
        "depends": list(record.depends),
        "constrains": list(record.constrains),
        "subdir": record.subdir,
        "noarch": noarch,
        "arch": record.arch,
        "platform": record.platform,
        "license": record.license,
        "features": record.features,
        "track_features": " ".join(record.track_features) or None,
        "python_site_packages_path": record.python_site_packages_path,
        "timestamp": timestamp,
        "size": record.size,
        "md5": record.md5.hex() if record.md5 else None,
        "sha256": record.sha256.hex() if record.sha256 else None,
    }
    return {key: value for key, value in entry.items() if value is not None}


def as_line(record: RepoDataRecord) -> str:
    """For a list of what went into a build: ``name-version-build sha256``."""
    digest = record.sha256.hex() if record.sha256 else ""
    return f"{record.name.normalized}-{record.version}-{record.build} {digest}"
