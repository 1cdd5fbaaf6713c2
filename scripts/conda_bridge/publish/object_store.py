"""An object store that is published to, by the S3 interface.

What must not be replaced is made with ``If-None-Match: *``. Documents have addresses that clients
know, so each is one object; all follow from the newest record, and are written with ``If-Match`` of
what was there before the record was read. So no publisher puts older documents over newer ones.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..errors import ConfigError, TargetError
from .channel import CHANNEL
from .channel_forms import is_document, is_shard
from .listing import LISTING
from .site_page import PAGE, VERSIONS
from .store import LINGER, MEMORY, Documents, Shown, Site, Store
from .wheel_entry import INDEX

__all__ = ["ObjectStore"]

_READ = 8 << 20
_IMMUTABLE = "public, max-age=31536000, immutable"
_CHANGING = "no-cache"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".zst": "application/zstd",
}
_PAGE_TYPE = "application/vnd.pypi.simple.v1+json"
# Another publisher was faster; the words of S3 and of stores like it.
_LOST = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
# What was to be replaced is not there any more.
_GONE = frozenset({"NoSuchKey", "404"})
# Whose exceptions say that the store did not answer, or refused.
_CLIENTS = ("aiobotocore", "aiohttp", "botocore")
_ATTEMPTS = 20


@dataclass(frozen=True)
class _Listed:
    """What a listing says of an object."""

    tag: str
    modified: datetime

    @property
    def age(self) -> timedelta:
        return datetime.now(timezone.utc) - self.modified


class ObjectStore(Store):
    """A bucket, or what is below a prefix of it.

    Who may write, and where the store is, is said as to every program for S3: ``AWS_PROFILE``,
    ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``.

    Raises:
        ConfigError: it names no bucket.
    """

    part_size: int | None = None  # of what is uploaded in parts; s3fs knows what is best

    def __init__(self, url: str) -> None:
        self.bucket, _, prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        self.name = url.rstrip("/")
        if not self.bucket:
            raise ConfigError(f"{url!r} names no bucket", expected="s3://bucket/prefix")
        self.prefix = f"{prefix}/" if prefix else ""
        self._connected: Any = None

    @property
    def _s3(self) -> Any:
        if self._connected is None:
            try:
                import fsspec

                # Without what it remembers of folders: others publish there too.
                self._connected = fsspec.filesystem("s3", use_listings_cache=False)
            except ImportError as error:
                raise ConfigError(
                    f"object stores need s3fs: {error}", fix="pip install s3fs"
                ) from None
        return self._connected

    def files(self, folder: str, after: str = "") -> dict[str, tuple[str, bytes]]:
        """The tags and contents of the files in a folder, by their names."""
        listed = self._listed(f"{folder}/", after)
        with self._explained(folder):
            paths = {f"{self.bucket}/{self.prefix}{name}": name for name in listed}
            found = self._s3.cat(list(paths)) if paths else {}
        return {
            paths[path].removeprefix(f"{folder}/"): (listed[paths[path]].tag, data)
            for path, data in found.items()
        }

    def tags(self, folder: str) -> dict[str, str]:
        """The tags of the files in a folder, by their names."""
        found = self._listed(f"{folder}/")
        return {path.removeprefix(f"{folder}/"): item.tag for path, item in found.items()}

    def create(self, path: str, data: bytes) -> bool:
        """Makes a file, whole or not at all, unless there is one."""
        return self._put(path, data, IfNoneMatch="*", CacheControl=_IMMUTABLE) is not None

    def upload(self, path: str, source: Path) -> bool:
        """Copies a file, whole or not at all, unless there is one."""
        with self._explained(path), _lost() as lost:
            self._s3.put_file(
                str(source),
                f"{self.bucket}/{self.prefix}{path}",
                mode="create",
                chunksize=self.part_size,
                CacheControl=_IMMUTABLE,
                ContentType="application/octet-stream",
            )
        return not lost

    def restore(self, path: str, source: Path) -> None:
        """Gives a file that was damaged or lost its own bytes back."""
        with self._explained(path):
            self._s3.put_file(
                str(source),
                f"{self.bucket}/{self.prefix}{path}",
                CacheControl=_IMMUTABLE,
                ContentType="application/octet-stream",
            )

    def size(self, path: str) -> int | None:
        """How many bytes a file has; None where there is none."""
        found = self._about(path)
        return None if found is None else int(found["ContentLength"])

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, as they are read from there."""
        about = self._about(path)
        if about is None:
            raise FileNotFoundError(path)
        size = int(about["ContentLength"])
        for start in range(0, size, _READ):
            with self._explained(path):
                yield self._s3.cat_file(
                    f"{self.bucket}/{self.prefix}{path}",
                    start=start,
                    end=min(start + _READ, size),
                )

    def remove(self, path: str) -> None:
        """Removes a file, if there is one."""
        with self._explained(path):
            self._s3.call_s3("delete_object", Bucket=self.bucket, Key=self.prefix + path)

    def is_foreign(self) -> bool:
        """Whether there is a channel or an index that no record of ours tells of."""
        if self._listed("history/"):
            return False
        return bool(self._listed(f"{INDEX}/")) or any(
            "repodata.json" in name for name in self._listed(f"{CHANNEL}/")
        )

    def show(self, documents: Documents) -> Shown:
        """Makes the documents those of the newest record, for every client."""
        changed: dict[str, None] = {}
        for _ in range(_ATTEMPTS):
            # In this order: what is written over was there before the record was read, so that
            # who has read a newer record and written after that is noticed.
            there = self._documents()
            site = documents()
            tags = self._write(there, site, changed)
            if tags is not None and documents().number == site.number:
                return Shown(list(changed), tags)
        raise TargetError(
            f"other publishers came between {_ATTEMPTS} times",
            where=self.name,
            fix="run the same command again: what it published is in the record, and is shown",
        )

    def remembered(self) -> bytes | None:
        """What was remembered last."""
        with self._explained(MEMORY):
            try:
                return bytes(self._s3.cat_file(f"{self.bucket}/{self.prefix}{MEMORY}"))
            except FileNotFoundError:
                return None

    def remember(self, data: bytes) -> None:
        """Keeps what nothing depends on."""
        self._put(MEMORY, data, CacheControl=_CHANGING)

    def _write(
        self, there: Mapping[str, _Listed], site: Site, changed: dict[str, None]
    ) -> dict[str, str] | None:
        """Writes what differs; returns the tags, or None as soon as another publisher has."""
        tags: dict[str, str] = {}
        for path in site.paths:
            before = there[path].tag if path in there else ""
            if before and before == site.tags.get(path):
                tags[path] = before
                continue
            content = site.content(path)
            # Of an object that was made by one request, which all documents are, it is the md5.
            # Where a store has another tag, it is written again, and is right as well.
            if before == hashlib.md5(content, usedforsecurity=False).hexdigest():
                tags[path] = before
                continue
            condition = {"IfMatch": f'"{before}"'} if before else {"IfNoneMatch": "*"}
            cached = _IMMUTABLE if is_shard(path.rpartition("/")[2]) else _CHANGING
            tag = self._put(path, content, **condition, CacheControl=cached)
            if tag is None:
                return None
            tags[path] = tag
            changed[path] = None
        for path in sorted(set(there) - set(tags)):
            if is_shard(path.rpartition("/")[2]) and there[path].age < LINGER:
                continue
            with self._explained(path), _lost() as lost:
                self._s3.call_s3(
                    "delete_object",
                    Bucket=self.bucket,
                    Key=self.prefix + path,
                    IfMatch=f'"{there[path].tag}"',
                )
            if lost:
                return None
            changed[path] = None
        return tags

    def _documents(self) -> dict[str, _Listed]:
        """The documents that are there."""
        own = (f"{INDEX}/", PAGE, LISTING)
        found = {path: item for path, item in self._listed(INDEX).items() if path.startswith(own)}
        for path, item in self._listed(f"{CHANNEL}/").items():
            name = path.rpartition("/")[2]
            if is_document(name) or is_shard(name):
                found[path] = item
        found.update(self._listed(f"{VERSIONS}/"))
        return found

    # ------------------------------------------------------------ requests

    def _listed(self, start: str, after: str = "") -> dict[str, _Listed]:
        """The objects whose names begin so."""
        found: dict[str, _Listed] = {}
        more = {"StartAfter": f"{self.prefix}{start}{after}"} if after else {}
        while True:
            with self._explained(start):
                answer = self._s3.call_s3(
                    "list_objects_v2", Bucket=self.bucket, Prefix=self.prefix + start, **more
                )
            for item in answer.get("Contents", ()):
                found[item["Key"].removeprefix(self.prefix)] = _Listed(
                    item["ETag"].strip('"'), item["LastModified"]
                )
            if not answer.get("IsTruncated"):
                return found
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _about(self, path: str) -> Any:
        """What the store says of an object; None where there is none."""
        with self._explained(path):
            try:
                return self._s3.call_s3("head_object", Bucket=self.bucket, Key=self.prefix + path)
            except FileNotFoundError:
                return None

    def _put(self, path: str, data: bytes, **how: str) -> str | None:
        """Writes an object in one request; its tag, or None where its condition does not hold."""
        ending = path[path.rfind(".") :]
        kind = _PAGE_TYPE if path.startswith(f"{INDEX}/") and ending == ".json" else ""
        with self._explained(path), _lost() as lost:
            done = self._s3.call_s3(
                "put_object",
                Bucket=self.bucket,
                Key=self.prefix + path,
                Body=data,
                ContentType=kind or _TYPES.get(ending, "application/octet-stream"),
                **how,
            )
        return None if lost else str(done["ETag"]).strip('"')

    @contextlib.contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not (isinstance(error, OSError) or type(error).__module__.startswith(_CLIENTS)):
                raise
            raise TargetError(
                f"{type(error).__name__}: {error}",
                where=f"{self.name}/{path}",
                fix="see that the bucket is there and may be written (AWS_PROFILE, "
                "AWS_ENDPOINT_URL), and run the same command again: it continues",
            ) from error


@contextlib.contextmanager
def _lost() -> Iterator[list[str]]:
    """Filled in where a request was refused because another publisher was faster."""
    lost: list[str] = []
    try:
        yield lost
    except Exception as error:
        code = _code(error)
        if code not in _LOST | _GONE:
            raise
        lost.append(code)


def _code(error: BaseException) -> str:
    """What the store called the refusal; empty where it was something else."""
    found: BaseException | None = error
    while found is not None:
        response = getattr(found, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        found = found.__cause__
    return ""
