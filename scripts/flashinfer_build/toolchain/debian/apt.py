"""Debian's archive without a change to the machine: which mirror, and what a suite has.

apt does the work with a configuration of its own in a folder of ours, so that non-free can be
looked into and no root is needed; it checks Debian's signature. Mirrors and proxies are the ones
the machine's own apt is configured with.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conda_bridge.errors import ToolchainError
from conda_bridge.system import atomic

from ..download import Settings

__all__ = [
    "DEFAULT_MIRROR",
    "MIRROR_VARIABLE",
    "Record",
    "Suite",
    "helper_download",
    "mirrors",
    "settings",
]

DEFAULT_MIRROR = "https://deb.debian.org/debian"
MIRROR_VARIABLE = "FLASHINFER_DEBIAN_MIRROR"
# The address of a mirror whose lists apt does not have yet; the security archive is another one.
_LOOKS_LIKE_DEBIAN = re.compile(r"[^:]+://.*/[^/]*debian(?!-security)[^/]*/?")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_HELPER = Path("/usr/lib/apt/apt-helper")
_FIELD = re.compile(r"^(Version|Filename|Size|SHA256): (.{1,4096})$", re.MULTILINE)
_SIZE = re.compile(r"[0-9]{1,15}")
_LOGIN = re.compile(r"//[^/@\s]+@")


def _run(command: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C", **environ},
        )
    except OSError as error:  # no apt on this machine
        return subprocess.CompletedProcess(list(command), 127, "", str(error))


def mirrors(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Where Debian's archive is read from, the preferred place first.

    ``FLASHINFER_DEBIAN_MIRROR`` if it is set, and nothing else then; or the mirrors of the
    machine's apt sources and, last, Debian's own.
    """
    if environ.get(MIRROR_VARIABLE):
        return [environ[MIRROR_VARIABLE].rstrip("/")]
    # fmt: off
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)",
                   "Created-By: Packages"])
    # fmt: on
    found = []
    for line in listed.stdout.splitlines():
        url, _, label = line.partition(" ")
        # What the archive calls itself counts; apt leaves the field as it is if it does not know.
        if label == "Debian" or (label in ("", "$(LABEL)") and _LOOKS_LIKE_DEBIAN.fullmatch(url)):
            found.append(url.rstrip("/"))
    # The same place over http and https is one place.
    same = re.compile(r"^https?://")
    if same.sub("", DEFAULT_MIRROR) not in {same.sub("", url) for url in found}:
        found.append(DEFAULT_MIRROR)
    return list(dict.fromkeys(found))


def settings() -> Settings:
    """The proxy and certificates that the machine's apt is configured with."""
    # fmt: off
    done = _run(["apt-config", "shell", "PROXY", "Acquire::http::Proxy",
                 "TLS_PROXY", "Acquire::https::Proxy", "CA", "Acquire::https::CAInfo"])
    # fmt: on
    values = dict(word.split("=", 1) for word in shlex.split(done.stdout) if "=" in word)
    proxy = values.get("TLS_PROXY") or values.get("PROXY")
    return Settings(None if proxy in (None, "", "DIRECT") else proxy, values.get("CA"))


def helper_download(url: str, target: Path, sha256: str) -> str:
    """Has apt download a file with its own transports, logins and proxies, and verify it.

    Returns:
        What went wrong; empty if `target` is there.
    """
    if not _HELPER.is_file():
        return "there is no apt here"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.scratch(target.parent) as scratch:
        part = scratch / target.name
        done = _run([str(_HELPER), "download-file", url, str(part), f"SHA256:{sha256}"])
        if done.returncode == 0 and part.is_file():
            part.replace(target)
            return ""
    lines = [_LOGIN.sub("//", line) for line in done.stderr.splitlines() if line.startswith("E:")]
    return "; ".join(lines) or f"apt-helper stopped with exit status {done.returncode}"


@dataclass(frozen=True)
class Record:
    """What a suite says about one package.

    Attributes:
        version: in full.
        path: in the archive.
        size: in bytes.
        sha256: of the file.
    """

    version: str
    path: str
    size: int
    sha256: str


class Suite:
    """One suite of Debian, by apt's verified lists of it.

    Args:
        name: e.g. ``trixie``.
        mirror: the archive's address.
        folder: for apt's configuration and lists.
        trust: an option of the source line in place of Debian's keyring, for tests.

    Raises:
        ToolchainError: there is no apt, or it cannot bring the lists.
    """

    def __init__(self, name: str, mirror: str, folder: Path, trust: str = "") -> None:
        self.name = name
        if not trust:
            if not shutil.which("apt-get") or not _KEYRING.is_file():
                raise ToolchainError(
                    "there is no apt with Debian's keys here",
                    where=str(_KEYRING),
                    fix="lock on a machine with Debian (a container will do); building needs "
                    "neither",
                )
            trust = f"signed-by={_KEYRING}"
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"deb [{trust}] {mirror} {name} main non-free\n")
        configuration = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": folder / "state",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "",  # the folder may be nobody else's
            "Acquire::Languages": "none",
        }
        self._config = folder / "apt.conf"
        self._config.write_text(
            "".join(f'{key} "{value}";\n' for key, value in configuration.items())
        )
        done = self._apt("apt-get", "update", "--error-on=any")
        if done.returncode != 0:
            raise ToolchainError(
                f"apt cannot read the suite {name}:", where=mirror, log=done.stderr[-1500:]
            )

    def _apt(self, *command: str) -> subprocess.CompletedProcess[str]:
        return _run(command, APT_CONFIG=str(self._config))

    def record(self, package: str) -> Record:
        """The suite's newest version of a package.

        Raises:
            ToolchainError: the suite does not have it.
        """
        done = self._apt("apt-cache", "show", "--no-all-versions", package)
        fields = dict(_FIELD.findall(done.stdout))
        if done.returncode != 0 or len(fields) != 4 or not _SIZE.fullmatch(fields["Size"]):
            raise ToolchainError(
                f"the suite {self.name} has no {package}", where=done.stderr.strip() or self.name
            )
        return Record(fields["Version"], fields["Filename"], int(fields["Size"]), fields["SHA256"])
