"""Locked wheels on this machine: found in the cache, or downloaded once, resumed and verified.

pip says where a wheel is, so indexes, find-links folders and mirrors are the user's own. The bytes
are fetched here, because pip starts a broken download again from the beginning. Where the plain
download is refused (a login, an odd proxy), pip does it. What counts in every case is the sha256.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from conda_bridge.errors import ToolchainError
from conda_bridge.formats import limits
from conda_bridge.system import atomic, process

from .lock import LockedFile, LockedWheel

__all__ = ["PIP_LINKS", "Choice", "Settings", "cached", "download", "fetch"]

Report = Callable[[str], None]
# Several wheels of one project, the preferred one first; any of them will do.
Choice = Sequence[LockedWheel]

PIP_LINKS = Path(__file__).with_name("pip_links.py")
_BLOCK = 1 << 20
_ATTEMPTS = 5
_LENGTH = re.compile("[0-9]{1,15}")
_MEGABYTE = 1e6


def cached(choice: Sequence[LockedFile], cache: Path) -> Path | None:
    """The first file of `choice` that is in the cache; it was verified when it went in."""
    for file in choice:
        if file.place(cache).is_file():
            return file.place(cache)
    return None


def fetch(
    choices: Sequence[Choice], cache: Path, report: Report = lambda _line: None
) -> list[Path]:
    """One verified wheel for each of `choices`, downloaded if the cache has none.

    Safe in several processes at once: a wheel is downloaded by one, the others wait for it.

    Args:
        choices: what is acceptable, one entry a project.
        cache: where wheels are kept, by their digest.
        report: is told what is being downloaded.

    Returns:
        The wheels' files, in the order of `choices`.

    Raises:
        ToolchainError: no index offers an acceptable file, or what came is not what was locked.
    """
    missing = [choice for choice in choices if cached(choice, cache) is None]
    if missing:
        report(f"asking pip where {len(missing)} wheels are")
        links, settings = _ask_pip([choice[0].name for choice in missing], report)
        for choice in missing:
            _fetch_one(choice, links.get(choice[0].name, []), cache, settings, report)
    found = [cached(choice, cache) for choice in choices]
    assert all(found)  # _fetch_one has raised otherwise
    return [path for path in found if path]


def _fetch_one(
    choice: Choice,
    links: Sequence[_Link],
    cache: Path,
    settings: Settings,
    report: Report,
) -> None:
    for wheel in choice:
        for link in links:
            # A folder of wheels names no digests: there the file's name has to do until it is here.
            if link.sha256 != wheel.sha256 and (link.sha256 or link.filename != wheel.filename):
                continue
            try:
                download(link.url, wheel, cache, settings=settings, report=report)
                return
            except (OSError, http.client.HTTPException) as error:
                report(f"{wheel.filename}: {error}; leaving it to pip")
            except ToolchainError as error:
                if link.sha256:
                    raise
                report(f"{error.where}: {error.what}; looking further")
    _pip_download(choice, cache, report)


def _pip(*arguments: str) -> tuple[int, list[str]]:
    """Runs Python with `arguments` for pip, guarded: a pip that outlives this process goes on.

    Returns:
        Its exit status, and the lines it wrote, errors among them.
    """
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    lines: list[str] = []
    done = process.run([sys.executable, *arguments], environ=environ, report=lines.append)
    return done.code, lines


def _requirement(wheel: LockedWheel) -> str:
    """``===``, so that no version with a local part outranks the one that is meant."""
    return f"{wheel.name}==={wheel.version}"


@dataclass(frozen=True)
class _Link:
    """One file that an index or a folder offers; `sha256` is empty where it names none."""

    url: str
    filename: str
    sha256: str


def _ask_pip(
    projects: Sequence[str], report: Report
) -> tuple[Mapping[str, Sequence[_Link]], Settings]:
    """The files that pip sees of each project, and how it reaches the network.

    No files where this pip cannot be asked.
    """
    code, lines = _pip("-I", str(PIP_LINKS), *projects)
    answers = [line for line in lines if line.startswith("{")]
    if code != 0 or not answers:
        reason = [line for line in lines if line.strip()][-1:] or ["no reason given"]
        report(f"pip cannot be asked for links ({reason[0]}); it downloads by itself")
        return {}, Settings()
    data = json.loads(answers[-1])
    links = {project: [_Link(*link) for link in found] for project, found in data["links"].items()}
    return links, Settings(**data["settings"])


def _pip_download(choice: Choice, cache: Path, report: Report) -> None:
    """Has pip download an acceptable file of `choice`, by its digest.

    One version at a time: among the files of a find-links folder pip takes the highest version
    first and compares digests afterwards.
    """
    refusals = []
    for version in dict.fromkeys(wheel.version for wheel in choice):
        same = [wheel for wheel in choice if wheel.version == version]
        report(f"pip download {_requirement(same[0])}")
        with atomic.scratch(cache) as scratch:
            wanted = scratch / "wanted.txt"
            hashes = " ".join(f"--hash=sha256:{wheel.sha256}" for wheel in same)
            wanted.write_text(f"{_requirement(same[0])} {hashes}\n")
            # fmt: off
            code, lines = _pip("-m", "pip", "download", "--no-deps", "--require-hashes",
                               "--only-binary", ":all:", "--quiet", "--dest", str(scratch),
                               "--requirement", str(wanted))
            # fmt: on
            files = list(scratch.glob("*.whl"))
            if code != 0 or len(files) != 1:
                refusals.append("\n".join(lines).strip()[-1500:])
                continue
            digest = _sha256(files[0])
            for wheel in same:
                if wheel.sha256 == digest:
                    target = wheel.place(cache)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    files[0].replace(target)
                    return
            raise _mismatch(files[0].name, digest, choice)
    raise ToolchainError(
        "no acceptable file is offered:",
        log="\n".join(refusals),
        where=choice[0].filename,
        expected=" or ".join(f"{wheel.filename} sha256 {wheel.sha256}" for wheel in choice),
        fix="check pip's index (`pip config list`), or lock what it offers: "
        "python scripts/lock_toolchain.py",
    )


def _mismatch(name: str, digest: str, choice: Sequence[LockedFile]) -> ToolchainError:
    return ToolchainError(
        f"sha256 mismatch: got {digest}",
        where=name,
        expected=" or ".join(file.sha256 for file in choice),
        fix="the server has another file than the lock names: do not use it before you know why",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Settings:
    """How the network is reached.

    Attributes:
        proxy: for http and https, or None for the environment's.
        certificates: a file of authorities, or None for the system's.
        timeout: seconds without a byte after which a connection counts as dead.
    """

    proxy: str | None = None
    certificates: str | None = None
    timeout: float = 60.0

    def opener(self) -> urllib.request.OpenerDirector:
        """What makes the requests."""
        context = ssl.create_default_context(cafile=self.certificates)
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.HTTPSHandler(context=context),
        ]
        if self.proxy:
            proxies = {"http": self.proxy, "https": self.proxy}
            handlers.append(urllib.request.ProxyHandler(proxies))
        return urllib.request.build_opener(*handlers)


def download(
    url: str,
    file: LockedFile,
    cache: Path,
    *,
    settings: Settings | None = None,
    report: Report = lambda _line: None,
    attempts: int = _ATTEMPTS,
    pause: float = 1.0,
) -> Path:
    """Brings `file` from `url` into the cache, continuing what an earlier call left.

    Bytes go to ``<name>.part``; the name itself appears when the sha256 is right. A server that
    ignores the range starts over, one that drops the connection is asked again for the rest.

    Args:
        url: ``http``, ``https`` or ``file``.
        file: what it must turn out to be.
        cache: where such files are kept, by their digest.
        settings: of the network; the machine's own without.
        report: is told how far it is.
        attempts: how many times in a row a request may bring nothing new.
        pause: seconds before the second attempt; doubled for each further one.

    Raises:
        OSError: the server cannot be reached or refuses.
        ToolchainError: the bytes are not what was locked.
    """
    target = file.place(cache)
    with atomic.lock(target.parent.with_name(file.sha256 + ".lock")):
        if target.is_file():  # another process was faster
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        if urlsplit(url).scheme == "file":
            report(f"{file.filename}: copying")
            shutil.copyfile(Path(unquote(urlsplit(url).path)), part)
            digest = _sha256(part)
        else:
            opener = (settings or Settings()).opener()
            timeout = (settings or Settings()).timeout
            pieces = _get(opener, url, part, timeout, report=report, attempts=attempts, pause=pause)
            digest = _sha256(part)
            if digest != file.sha256 and pieces:
                # What was there was not the beginning of this file, or the file changed meanwhile.
                part.unlink()
                _get(opener, url, part, timeout, report=report, attempts=attempts, pause=pause)
                digest = _sha256(part)
        if digest != file.sha256:
            part.unlink()
            raise _mismatch(file.filename, digest, [file])
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
    return target


def _get(
    opener: urllib.request.OpenerDirector,
    url: str,
    part: Path,
    timeout: float,
    *,
    report: Report,
    attempts: int,
    pause: float,
) -> bool:
    """Appends to `part` until the server says that there is no more.

    Returns:
        Whether the file is put together from the answers to several requests.
    """
    failures = 0
    pieces = False
    while True:
        before = part.stat().st_size if part.is_file() else 0
        pieces = pieces or before > 0
        try:
            if _get_rest(opener, url, part, timeout, report):
                return pieces
            problem: Exception = http.client.IncompleteRead(b"")
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 425, 429):
                raise
            problem = error
        except (OSError, http.client.HTTPException) as error:
            problem = error
        progressed = part.is_file() and part.stat().st_size > before
        failures = 1 if progressed else failures + 1
        if failures >= attempts:
            raise OSError(f"{attempts} attempts brought nothing: {problem}") from problem
        delay = pause * 2 ** (failures - 1)
        report(f"{part.stem}: {problem or type(problem).__name__}; continuing in {delay:.0f} s")
        time.sleep(delay)


def _get_rest(
    opener: urllib.request.OpenerDirector, url: str, part: Path, timeout: float, report: Report
) -> bool:
    """One request for what `part` lacks.

    Returns:
        Whether `part` is now as long as the server says the file is.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing after what is here: complete, or not this file
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return True
            part.unlink()
            return False
        raise
    with response:
        partial = response.status == 206
        if partial and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            return False
        have = have if partial else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and _LENGTH.fullmatch(length) else None
        with part.open("ab" if partial else "wb") as stream:
            shown = time.monotonic()
            while block := response.read(_BLOCK):
                stream.write(block)
                have += len(block)
                if have > limits.UNPACKED:
                    raise ToolchainError(
                        f"the server has sent {have} bytes of {part.stem}, and there are more",
                        where=url,
                        expected=f"at most {limits.UNPACKED} bytes",
                    )
                if time.monotonic() - shown > 0.5:
                    shown = time.monotonic()
                    of = f" of {total / _MEGABYTE:.0f}" if total else ""
                    report(f"{part.stem}: {have / _MEGABYTE:.0f}{of} MB")
        return total is None or have == total
