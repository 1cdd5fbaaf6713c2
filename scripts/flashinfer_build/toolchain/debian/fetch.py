"""Locked packages of Debian on this machine: downloaded, verified and unpacked once.

The bytes come from the mirrors of the machine's apt, or Debian's own, by
:mod:`.toolchain.download`, which resumes; what it is refused (a login, a transport of apt's own)
apt is asked for. What counts in every case is the sha256. A package is dropped once what is wanted
of it is unpacked: of the 930 MB of nvidia-cuda-dev that is 8 MB.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from conda_bridge.errors import ToolchainError
from conda_bridge.system import atomic

from .. import Report, intact
from ..download import download
from ..lock import LockedDeb
from . import apt
from .deb import tree_of, unpack

__all__ = ["fetch_trees"]

_SCHEMES = ("http", "https", "file")


def fetch_trees(
    wanted: Mapping[LockedDeb, str], cache: Path, report: Report
) -> dict[LockedDeb, Path]:
    """A folder with what is wanted of each package, made on first use, and again if damaged.

    Safe in several processes at once: a package is brought by one, the others wait for it.

    Args:
        wanted: the packages, and of each a regular expression for the beginning of the paths to
            unpack.
        cache: the project's cache.
        report: is told what happens.

    Raises:
        ToolchainError: no mirror has one of them, or what came is not what was locked.
        ArtifactError: a package cannot be unpacked.
    """
    places: list[str] | None = None
    trees = {}
    for deb, of_deb in wanted.items():
        tree = trees[deb] = tree_of(deb, of_deb, cache)
        if tree.is_dir() and intact.sealed(tree):
            continue
        # One for the package, not for the tree: who unpacks it drops it.
        with atomic.lock(cache / deb.folder / f"{deb.sha256}.in-use.lock"):
            if tree.is_dir():
                if intact.sealed(tree):  # another process was faster
                    continue
                report(f"what was unpacked of {deb.filename} was damaged; unpacking it again")
                atomic.remove(tree)
            places = apt.mirrors() if places is None else places
            path = _left_over(deb, cache) or _fetch(deb, places, cache, report)
            report(f"unpacking {deb.filename}")
            with atomic.directory(tree) as fresh:
                unpack(path, fresh, of_deb)
            intact.seal(tree)
            shutil.rmtree(path.parent)
    return trees


def _left_over(deb: LockedDeb, cache: Path) -> Path | None:
    """What a run that ended before it could unpack has left, if it is still what it was."""
    path = deb.place(cache)
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() == deb.sha256:
            return path
    path.unlink()
    return None


def _fetch(deb: LockedDeb, places: Sequence[str], cache: Path, report: Report) -> Path:
    gone = []
    refusals = []
    settings = apt.settings()
    for place in places:
        url = f"{place}/{quote(deb.path, safe='/+~')}"
        shown = urlsplit(place).hostname or place  # a mirror's address may hold a password
        try:
            if urlsplit(url).scheme in _SCHEMES and not urlsplit(url).username:
                return download(url, deb, cache, settings=settings, report=report)
            refusal = "a login, or a transport of apt's own"
        except urllib.error.HTTPError as error:
            refusal = f"{error.code} {error.reason}"
            if error.code in (404, 410):
                gone.append(shown)
                continue
        except (OSError, http.client.HTTPException) as error:
            refusal = str(error)
            if isinstance(error, FileNotFoundError):
                gone.append(shown)
                continue
        except ToolchainError as error:  # other bytes: the next mirror may have the right ones
            refusals.append(f"{shown}: {error.what}")
            continue
        report(f"{deb.filename}: {refusal}; leaving it to apt")
        said = apt.helper_download(url, deb.place(cache), deb.sha256)
        if not said:
            return deb.place(cache)
        refusals.append(f"{shown}: {refusal}; apt: {said}")
    raise _not_there(deb, gone, refusals)


def _not_there(deb: LockedDeb, gone: Sequence[str], refusals: Sequence[str]) -> ToolchainError:
    if gone:
        superseded = f"{', '.join(gone)} no longer has it: a newer version has taken its place"
        return ToolchainError(
            superseded,
            log="\n".join(refusals),
            where=deb.filename,
            expected=f"{deb.path}, sha256 {deb.sha256}",
            fix="lock what there is now: python scripts/lock_toolchain.py --upgrade debian; or set "
            f"{apt.MIRROR_VARIABLE} to a mirror that still has it, such as "
            "https://snapshot.debian.org/archive/debian/<date of the lock>",
        )
    return ToolchainError(
        "no mirror brings it:",
        log="\n".join(refusals),
        where=deb.filename,
        expected=f"{deb.path}, sha256 {deb.sha256}",
        fix=f"check the network and apt's sources, or set {apt.MIRROR_VARIABLE} to a mirror of "
        "Debian; if only the sha256 differs, do not use that mirror before you know why",
    )
