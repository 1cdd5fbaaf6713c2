"""Where a file of a conda package is in the wheel of it."""

from __future__ import annotations

import re

from ..formats.conda_package import CondaPackage
from ..project import Project

__all__ = ["wheel_path"]

_SITE = re.compile(r"(lib/python\d+\.\d+t?/)?site-packages/", re.ASCII)
_INFO = re.compile(r"[^/]+\.(dist-info|egg-info)(/|$)")


def wheel_path(package: CondaPackage, path: str, project: Project) -> str | None:
    """The path in the wheel; None for what stays behind or is written anew."""
    fold = next((item for item in project.config.fold if item.package == package.name), None)
    files = {**project.config.files, **(fold.files if fold else {})}
    if "__pycache__" in path.split("/"):
        return None
    for prefix in sorted(files, key=len, reverse=True):
        if path.startswith(prefix):
            return None if files[prefix] == "drop" else files[prefix] + path.removeprefix(prefix)
    inner = _SITE.sub("", path, count=1) if _SITE.match(path) else None
    return None if inner is None or _INFO.match(inner) else inner
