"""What it costs to publish many builds, to index them again, and to install one of them.

Makes toy artifacts, as many as a matrix of that size has after so many releases and nightlies, and
publishes them, a version after the other, to a folder. Beside it the same files are indexed by
rattler's indexer, dumb-pypi and simple-repository. Then pip, uv and py-rattler fetch one build over
a link of 50 ms there and back, of which every request and byte is counted (link.py says what is not
simulated). The artifacts are a few KB, so it is the documents that are measured.

Example:
    python benchmarks/publish.py                         # 100 variants, 3 releases, 30 nightlies
    python benchmarks/publish.py --others VENV/bin/python    # one with dumb-pypi, simple-repository
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "scripts"), str(ROOT)]  # behind an installed flashinfer

from flashinfer_build import bootstrap

if __name__ == "__main__":
    bootstrap.ensure(__file__, "test")

from benchmarks.link import Traffic, serving
from conda_bridge.formats import conda_writer
from conda_bridge.formats.conda_writer import PackageFile
from conda_bridge.project import Project
from conda_bridge.publish import index, release
from conda_bridge.publish.store import open_store
from conda_bridge.system import machine
from flashinfer_build.label import LIBRARY_NAME, NAME, Label, LibraryLabel, Variant

_LICENSE = {"info/licenses/LICENSE": b"Apache License\n"}
_CUDAS = (None, *((major, minor) for major in (12, 13) for minor in range(10)))

_TIMES = 3  # of which the shortest counts: a client's own start takes as long as the link

Numbers = dict[str, Any]


# ------------------------------------------------------------ what is published


def variants(count: int) -> list[Variant]:
    """So many, ten torch minors for each CUDA."""
    pairs = itertools.product(_CUDAS, range(4, 14))
    return [Variant(cuda, (2, minor)) for cuda, minor in itertools.islice(pairs, count)]


def labels(count: int, releases: int, nightlies: int) -> dict[str, list[Label]]:
    """The builds of each version, in the order in which they are published."""
    found = {}
    for number in range(releases):
        version = f"0.1.{number}"
        found[version] = [Label(variant, version) for variant in variants(count)]
    for day in range(nightlies):
        version = f"0.2.0.dev{20261101 + day // 30 * 100 + day % 30}"
        commit = hashlib.sha1(version.encode()).hexdigest()[:7]
        found[version] = [Label(variant, version, 0, commit) for variant in variants(count)]
    return found


def _package(folder: Path, label: Label | LibraryLabel, name: str, depends: list[str]) -> Path:
    path = folder / label.conda_file
    file = PackageFile(f"lib/{label.conda_stem}.so", label.conda_stem.encode(), 0o755)
    conda_writer.write(
        path,
        index={
            "name": name,
            "version": label.conda_version,
            "build": label.conda_build,
            "build_number": label.conda_build_number,
            "subdir": "linux-64",
            "license": "Apache-2.0",
            "depends": ["__glibc >=2.28,<3.0.a0", "libstdcxx >=12", *depends],
        },
        files=[file],
        info_files=_LICENSE,
        level=1,
        threads=1,
    )
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _wheel(folder: Path, label: Label) -> Path:
    info = f"{NAME}-{label.wheel_version}.dist-info"
    members = {
        f"{NAME}/__init__.py": f"VERSION = {label.wheel_version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {label.wheel_version}\n"
        "Requires-Python: >=3.8\nRequires-Dist: torch=={}.{}.*\n".format(*label.variant.torch),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n"
        "Tag: cp38-abi3-linux_x86_64\n",
    }
    record = [
        f"{name},sha256={_digest(text.encode())},{len(text.encode())}\n"
        for name, text in members.items()
    ]
    members[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    path = folder / label.wheel_file
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return path


def make(folder: Path, builds: Sequence[Label]) -> list[Path]:
    """The artifacts of a version."""
    folder.mkdir(parents=True)
    libraries = dict.fromkeys(label.library for label in builds)
    made = [_package(folder, library, LIBRARY_NAME, []) for library in libraries]
    for label in builds:
        torch = "pytorch {}.{}.*".format(*label.variant.torch)
        exact = f"{LIBRARY_NAME} {label.conda_version} {label.lib_conda_build}"
        made.append(_package(folder, label, NAME, ["python >=3.8", torch, exact]))
        made.append(_wheel(folder, label))
    return made


# ------------------------------------------------------------ measuring


def timed(call: Callable[[], object]) -> Numbers:
    """Seconds by the clock, and of processors, those of programs that it runs included."""

    def used() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in both)

    cpu, started = used(), time.perf_counter()
    call()
    return {
        "seconds": round(time.perf_counter() - started, 3),
        "cpu_seconds": round(used() - cpu, 3),
    }


def publish(site: Path, made: Sequence[Path], project: Project) -> None:
    """One version, as ``release.py publish`` does it."""
    quiet: Callable[[str], None] = lambda _line: None  # noqa: E731
    sources = release.read_sources(made, project, quiet)
    release.publish(sources, open_store(str(site)), project)


def published(site: Path, versions: Sequence[Sequence[Path]], project: Project) -> Numbers:
    """Each version in its turn, and the last one once more."""
    costs = [timed(lambda made=made: publish(site, made, project)) for made in versions]  # type: ignore[misc]
    return {
        "first": costs[0],
        "median_seconds": round(statistics.median(cost["seconds"] for cost in costs), 3),
        "median_cpu_seconds": round(statistics.median(cost["cpu_seconds"] for cost in costs), 3),
        "last": costs[-1],
        "again": timed(lambda: publish(site, versions[-1], project)),
    }


def indexed(dist: Path, versions: Sequence[Sequence[Path]], project: Project) -> Numbers:
    """A plain folder with all but the last version, both halves, again, and then that version."""
    for path in itertools.chain(*versions[:-1]):
        place = dist / ("wheels" if path.suffix == ".whl" else "channel/linux-64")
        place.mkdir(parents=True, exist_ok=True)
        os.link(path, place / path.name)
    return {
        "channel": timed(lambda: index.update_channel(dist / "channel", project=project)),
        "wheels": timed(lambda: index.update_wheel_index(dist, project=project)),
        "nothing_new": timed(lambda: index.update(dist, project=project)),
        "one_version_more": timed(lambda: index.publish(versions[-1], dist, project=project)),
    }


_RATTLER_INDEX = """
import asyncio, os, sys
from pathlib import Path
from rattler.index import index_fs
asyncio.run(index_fs(Path(sys.argv[1]), force=sys.argv[2] == "force"))
os._exit(0)
"""
_SIMPLE = """
import asyncio, sys
from pathlib import Path
from simple_repository.components.local import LocalRepository
from simple_repository.serializer import SerializerHtmlV1, SerializerJsonV1
page = asyncio.run(LocalRepository(Path(sys.argv[1])).get_project_page(sys.argv[2]))
for name, serializer in (("html", SerializerHtmlV1()), ("json", SerializerJsonV1())):
    Path(sys.argv[3], f"index.{name}").write_text(serializer.serialize_project_page(page))
"""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} ended with {done.returncode}:\n{done.stderr}")


def by_rattler(channel: Path, packages: Sequence[Path]) -> Numbers:
    """Rattler's indexer on the same packages, from nothing and once more."""
    (channel / "linux-64").mkdir(parents=True)
    for path in packages:
        os.link(path, channel / "linux-64" / path.name)
    run = [sys.executable, "-c", _RATTLER_INDEX, str(channel)]
    return {
        "from_nothing": timed(lambda: _run(*run, "force")),
        "nothing_new": timed(lambda: _run(*run, "new")),
        "documents": documents(channel / "linux-64"),
    }


def by_others(folder: Path, wheels: Sequence[Path], python: str) -> Numbers:
    """dumb-pypi and simple-repository on the same wheels, all of them on one page."""
    (folder / "files" / NAME).mkdir(parents=True)
    lines = []
    for path in wheels:
        os.link(path, folder / "files" / NAME / path.name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        line = {"filename": path.name, "hash": f"sha256={digest}", "requires_python": ">=3.8"}
        lines.append(json.dumps(line) + "\n")
    listed = folder / "list.json"
    listed.write_text("".join(lines))
    dumb = [python, "-m", "dumb_pypi.main", "--package-list-json", str(listed)]
    dumb += ["--packages-url", f"../../files/{NAME}/", "--output-dir", str(folder)]
    dumb += ["--no-per-release-json", "--no-generate-timestamp"]
    out = folder / "simple-repository"
    out.mkdir()
    return {
        "dumb_pypi": {
            **timed(lambda: _run(*dumb)),
            "page_bytes": (folder / "simple" / NAME / "index.html").stat().st_size,
        },
        "simple_repository": {
            **timed(lambda: _run(python, "-c", _SIMPLE, str(folder / "files"), NAME, str(out))),
            "page_bytes": (out / "index.html").stat().st_size,
            "json_bytes": (out / "index.json").stat().st_size,
        },
    }


def documents(folder: Path) -> dict[str, int]:
    """The bytes of each document of a channel's folder; of many of a kind their number, too."""
    found: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix not in (".conda", ".whl", ".metadata"):
            inside = path.relative_to(folder)
            name = inside.name if len(inside.parts) == 1 else f"{inside.parts[0]}/*"
            found[name] = found.get(name, 0) + path.stat().st_size
    return found


# ------------------------------------------------------------ one build over a link

_RATTLER_CLIENT = """
import asyncio, json, os, sys
from pathlib import Path
from rattler import Gateway, MatchSpec
from rattler.repo_data.gateway import SourceConfig
channel, spec, cache, form = sys.argv[1:]
config = SourceConfig(
    zstd_enabled=form != "json", bz2_enabled=False, sharded_enabled=form == "sharded"
)
gateway = Gateway(cache_dir=Path(cache), default_config=config)
async def main():
    specs = [MatchSpec(spec)]
    found = await gateway.query([channel], ["linux-64", "noarch"], specs, recursive=False)
    assert sum(len(part) for part in found) == 1, found
asyncio.run(main())
os._exit(0)
"""


def _fetched(folder: Path, command: Callable[[str, str], Sequence[str]], seconds: float) -> Numbers:
    """What a client asks for, from an empty cache, and the shortest time that it takes."""

    def once(delay: float) -> tuple[Traffic, Numbers]:
        with tempfile.TemporaryDirectory() as scratch, serving(folder, seconds=delay) as traffic:
            return traffic, timed(lambda: _run(*command(traffic.url, scratch)))

    runs = [(once(0.0)[1], *once(seconds)) for _ in range(_TIMES)]
    traffic = runs[-1][1]
    return {
        "requests": len(traffic.requests),
        "connections": traffic.connections,
        "bytes": traffic.received,
        "seconds": min(far["seconds"] for _, _, far in runs),
        "seconds_without_delay": min(near["seconds"] for near, _, _ in runs),
    }


def _pip(page: str, label: Label) -> Callable[[str, str], list[str]]:
    return lambda url, scratch: [
        *(sys.executable, "-P", "-m", "pip", "install", "--isolated", "--quiet", "--no-deps"),
        *("--no-cache-dir", "--disable-pip-version-check", "--target", f"{scratch}/site"),
        *("--index-url", f"{url}/{page}", label.wheel_requirement),
    ]


def _uv(page: str, label: Label) -> Callable[[str, str], list[str]]:
    from uv import find_uv_bin

    uv = find_uv_bin()
    return lambda url, scratch: [
        *(uv, "pip", "install", "--quiet", "--no-config", "--no-deps", "--python", sys.executable),
        *("--cache-dir", f"{scratch}/cache", "--target", f"{scratch}/site"),
        *("--default-index", f"{url}/{page}", label.wheel_requirement),
    ]


def _rattler(channel: str, label: Label, form: str) -> Callable[[str, str], list[str]]:
    return lambda url, scratch: [
        *(sys.executable, "-c", _RATTLER_CLIENT, f"{url}/{channel}", label.conda_spec),
        *(f"{scratch}/cache", form),
    ]


def clients(root: Path, label: Label, seconds: float, *, others: bool) -> dict[str, Numbers]:
    """Each client on each kind of index; the conda clients fetch what they solve with."""
    own = f"site/index/{label.index_dir}"
    found = {
        "pip, page of a variant": _fetched(root, _pip(own, label), seconds),
        "uv, page of a variant": _fetched(root, _uv(own, label), seconds),
    }
    if others:
        found["pip, one page (dumb-pypi)"] = _fetched(root, _pip("flat/simple", label), seconds)
        found["uv, one page (dumb-pypi)"] = _fetched(root, _uv("flat/simple", label), seconds)
    for channel in ("site/channel", "rattler"):
        sharded = (root / channel / "linux-64" / "repodata_shards.msgpack.zst").is_file()
        for form in ("json", "zst", *(["sharded"] if sharded else [])):
            name = f"py-rattler, {channel}, repodata {form}"
            found[name] = _fetched(root, _rattler(channel, label, form), seconds)
    return found


def measure(
    root: Path, sizes: tuple[int, int, int], *, others: str = "", seconds: float = 0.05
) -> Numbers:
    """Everything, in an empty folder.

    Args:
        root: of all that is made.
        sizes: variants, releases, nightlies.
        others: a Python that has dumb-pypi and simple-repository; empty to do without.
        seconds: the link's time there and back.
    """
    project = Project.load(ROOT / "pyproject.toml")
    builds = labels(*sizes)
    versions = [make(root / "made" / name, of) for name, of in builds.items()]
    files = list(itertools.chain(*versions))
    wheels = [path for path in files if path.suffix == ".whl"]
    packages = [path for path in files if path.suffix != ".whl"]
    result: Numbers = {
        "variants": sizes[0],
        "releases": sizes[1],
        "nightlies": sizes[2],
        "wheels": len(wheels),
        "packages": len(packages),
        "publish": published(root / "site", versions, project),
        "index": indexed(root / "dist", versions, project),
        "rattler_index": by_rattler(root / "rattler", packages),
    }
    if others:
        result.update(by_others(root / "flat", wheels, others))
    label = builds[f"0.1.{sizes[1] - 1}"][-1]
    page = root / "site" / "index" / label.index_dir / NAME
    result["documents"] = {
        **documents(root / "site" / "channel" / "linux-64"),
        "page of a variant, html": (page / "index.html").stat().st_size,
        "page of a variant, json": (page / "index.json").stat().st_size,
        "overview": (root / "site" / "index" / "index.html").stat().st_size,
    }
    result["link_seconds"] = seconds
    result["clients"] = clients(root, label, seconds, others=bool(others))
    return result


def table(result: Numbers) -> str:
    """For people."""
    lines = [f"{result['wheels']} wheels, {result['packages']} packages"]
    for group in ("publish", "index", "rattler_index", "dumb_pypi", "simple_repository"):
        for name, cost in {"": result.get(group, {}), **result.get(group, {})}.items():
            if isinstance(cost, dict) and "cpu_seconds" in cost:
                what = f"{group} {name}".replace("_", " ")
                lines.append(
                    f"{what:40} {cost['seconds']:8.2f} s {cost['cpu_seconds']:8.2f} s of CPU"
                )
    for name, size in result["documents"].items():
        lines.append(f"{name:40} {size:10} bytes")
    for name, cost in result["clients"].items():
        lines.append(
            f"{name:44} {cost['requests']:2} requests {cost['bytes']:9} bytes"
            f" {cost['seconds']:6.2f} s (without the delay {cost['seconds_without_delay']:.2f} s)"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", type=int, default=100, metavar="N")
    parser.add_argument("--releases", type=int, default=3, metavar="N")
    parser.add_argument("--nightlies", type=int, default=30, metavar="N")
    parser.add_argument("--link", type=float, default=50.0, metavar="MS", help="there and back")
    parser.add_argument(
        "--others", default="", metavar="PYTHON", help="with dumb-pypi and the other"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "benchmarks/results/publish.json"
    )
    args = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as scratch:
        sizes = (args.variants, args.releases, args.nightlies)
        result = measure(Path(scratch), sizes, others=args.others, seconds=args.link / 1000)
    print(machine.describe())
    print(table(result))
    args.output.write_text(
        json.dumps({"machine": machine.describe(), "load_average": load, **result}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
