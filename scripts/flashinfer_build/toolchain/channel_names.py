"""Conda channels as a person names them: to URLs, with whatever is secret in them split off.

A password or token in a URL would go wherever the URL goes: logs, rattler's cache, the metadata of
packages. So it is taken out here, first thing, and travels to rattler in another way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import yaml

from conda_bridge.errors import ConfigError

__all__ = ["CREDENTIALS", "Channel", "credentials", "mask", "resolve"]

# The environment variable that hands what stood in the URLs to the program that reads the channels.
CREDENTIALS = "FLASHINFER_CHANNEL_CREDENTIALS"

_ALIAS = "https://conda.anaconda.org"
_URL = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_TOKEN = re.compile(r"/t/([^/]+)(?=/|$)")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True)
class Channel:
    """A channel.

    Attributes:
        url: where it is, without user, password and token.
        credential: what stood in the URL, as JSON in the form of rattler's credentials file.
    """

    url: str
    credential: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """What rattler keeps credentials by: the host, without a port."""
        return urlsplit(self.url).hostname or ""


def mask(text: str) -> str:
    """`text` with the secrets of the URLs in it replaced by stars."""
    text = re.sub(r"(?<=://)[^/@\s'\"]+@", "***@", text)
    return _TOKEN.sub("/t/***", text)


def resolve(names: Sequence[str], environ: Mapping[str, str]) -> tuple[Channel, ...]:
    """The channels with these names, in their order, each once.

    A name is a URL, a path, or a word that conda's own configuration (``channel_alias`` and
    ``custom_channels`` of the ``.condarc`` files, ``CONDA_CHANNEL_ALIAS``) makes a URL of.

    Raises:
        ConfigError: a name that is no single channel, or a configuration that cannot be read.
    """
    config = _condarc(environ)
    channels = dict.fromkeys(_channel(name, config, environ) for name in names)
    return tuple(channels)


def credentials(channels: Sequence[Channel]) -> dict[str, object]:
    """The credentials that stood in the URLs, by host, as rattler's credentials file has them.

    Raises:
        ConfigError: two different ones for a host: rattler knows one a host.
    """
    found: dict[str, object] = {}
    for channel in filter(lambda channel: channel.credential, channels):
        credential = json.loads(channel.credential)
        if found.setdefault(channel.host, credential) != credential:
            raise ConfigError(
                f"two channels of {channel.host} come with different logins",
                where="--channel",
                expected="one login a host, as rattler keeps them",
            )
    return found


def _channel(name: str, config: Mapping[str, object], environ: Mapping[str, str]) -> Channel:
    name = name.strip()
    if not name or any(letter.isspace() for letter in name):
        raise ConfigError(f"{mask(name)!r} is no channel", where="--channel")
    if not _URL.match(name):
        if name.startswith((".", "/", "~")):
            home = environ.get("HOME", "")
            folder = Path(home + name[1:] if name.startswith("~/") else name)
            return Channel(folder.resolve().as_uri())
        name = _by_alias(name, config)
    parts = urlsplit(name)
    if parts.scheme == "file":
        return Channel(name.rstrip("/"))
    if not parts.hostname:
        raise ConfigError(f"{mask(name)!r} has no host", where="--channel")
    host = parts.netloc.rpartition("@")[2]
    token = _TOKEN.search(parts.path)
    path = _TOKEN.sub("", parts.path, count=1).rstrip("/")
    credential = ""
    if token:
        credential = json.dumps({"CondaToken": token[1]})
    elif parts.username is not None:
        basic = {"username": unquote(parts.username), "password": unquote(parts.password or "")}
        credential = json.dumps({"BasicHTTP": basic})
    return Channel(urlunsplit((parts.scheme, host, path, "", "")), credential)


def _by_alias(name: str, config: Mapping[str, object]) -> str:
    if name in ("defaults", "local"):
        raise ConfigError(
            f"{name!r} is a set of channels of your conda",
            where="--channel",
            fix="name its channels by their URLs (conda config --show default_channels)",
        )
    custom = config.get("custom_channels")
    first = name.split("/", 1)[0]
    if isinstance(custom, Mapping):
        for key in (name, first):
            if key in custom:
                return f"{str(custom[key]).rstrip('/')}/{name}"
    return f"{str(config.get('channel_alias') or _ALIAS).rstrip('/')}/{name}"


# ---------------------------------------------------------------- conda's configuration


def _condarc(environ: Mapping[str, str]) -> dict[str, object]:
    """The keys of conda's configuration that make URLs of names; later files win."""
    found: dict[str, object] = {}
    for path in _condarc_files(environ):
        try:
            document = yaml.safe_load(path.read_text())
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not YAML"
            raise ConfigError(f"cannot be read: {reason}", where=str(path)) from None
        if not isinstance(document, Mapping):
            continue
        if isinstance(document.get("channel_alias"), str):
            found["channel_alias"] = _expand(document["channel_alias"], environ)
        custom = document.get("custom_channels")
        if isinstance(custom, Mapping):
            known = found.get("custom_channels")
            urls = {str(key): _expand(str(url), environ) for key, url in custom.items()}
            found["custom_channels"] = {**(known if isinstance(known, dict) else {}), **urls}
    if environ.get("CONDA_CHANNEL_ALIAS"):
        found["channel_alias"] = environ["CONDA_CHANNEL_ALIAS"]
    return found


def _condarc_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The files that conda reads, in its order."""
    home = environ.get("HOME", "")
    config = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    executable = environ.get("CONDA_EXE")
    roots = ["/etc/conda", "/var/lib/conda"]
    if environ.get("CONDA_ROOT") or executable:
        roots.append(environ.get("CONDA_ROOT") or str(Path(str(executable)).parent.parent))
    roots += [f"{config}/conda"] if config else []
    roots += [f"{home}/.conda"] if home else []
    names = [f"{root}/{name}" for root in roots for name in (".condarc", "condarc", "condarc.d")]
    names += [f"{home}/.condarc"] if home else []
    if environ.get("CONDA_PREFIX"):
        prefix = environ["CONDA_PREFIX"]
        names += [f"{prefix}/{name}" for name in (".condarc", "condarc", "condarc.d")]
    if environ.get("CONDARC"):
        names.append(environ["CONDARC"])
    for name in names:
        path = Path(name)
        if path.is_dir():
            yield from sorted(item for item in path.iterdir() if item.suffix in (".yml", ".yaml"))
        elif path.is_file():
            yield path


def _expand(text: str, environ: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environ.get(found[1] or found[2], found[0]), text)
