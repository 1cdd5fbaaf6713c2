"""What one more wheel costs where many are published: the time to make channel and index anew.

A place gets N nightlies of each of V variants, and then one more of one variant, which is measured:
the record is opened, an entry is added, and the documents become those of the record. Each file's
entry is that of a real one; the files themselves are not there, and are not read.

Two prices are told apart. Most pages are of one variant, and one addition changes few of them.
Some documents list everything by their format (`repodata.json`, the shard of a name, the flat
pages): they are written whole, which takes time in proportion to all that is published.

Example:
    python benchmarks/index_cost.py                             # 100 variants, 1 to 30 nightlies
    python benchmarks/index_cost.py --variants 4 --nightlies 2  # a look
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from flashinfer_build import bootstrap

if __name__ == "__main__":
    bootstrap.ensure(__file__)

from conda_bridge.project import Project
from conda_bridge.publish import release
from conda_bridge.publish.folder_store import FolderStore
from conda_bridge.publish.record import File, Record
from conda_bridge.system import machine
from flashinfer_build.label import Label, Variant

_TIME = "2026-11-30T03:00:00Z"
_FIRST = date(2026, 11, 1)
_REPEATS = 5


@dataclass(frozen=True)
class Cost:
    """What was measured at one size.

    Attributes:
        variants, nightlies: that were published before.
        files: that is, packages and wheels.
        documents: of the place, after it.
        whole_s: the time to make all documents.
        addition_s: the median time of one more nightly of one variant.
        addition_cpu_s: CPU seconds of the same.
        written: documents that it wrote.
        written_bytes: their size.
        everything_bytes: of that, the documents that list everything.
    """

    variants: int
    nightlies: int
    files: int
    documents: int
    whole_s: float
    addition_s: float
    addition_cpu_s: float
    written: int
    written_bytes: int
    everything_bytes: int


def variants(count: int) -> list[Variant]:
    """So many pairs of CUDA and torch, ten torches to a CUDA."""
    pairs = ((cuda, torch) for cuda in range(20, 100) for torch in range(4, 14))
    return [Variant((13 + cuda // 10, cuda % 10), (2, torch)) for cuda, torch in pairs][:count]


def files_of(variant: Variant, day: int) -> list[File]:
    """What the record says of a nightly: the wheel, the package, and the library's package."""
    commit = f"{day:07x}"
    version = f"0.1.7.dev{_FIRST + timedelta(days=day):%Y%m%d}"
    label = Label(variant, version, 0, commit)
    made = [
        File(
            name=label.wheel_file,
            folder="wheels",
            sha256=_digest(label.wheel_file),
            size=300 << 20,
            version=version,
            commit=commit,
            requires_python=">=3.10",
            metadata_sha256=_digest(f"{label.wheel_file}.metadata"),
        )
    ]
    for name in (label.conda_file, label.lib_conda_file):
        package, conda_version, build = name.removesuffix(".conda").rsplit("-", 2)
        record = {
            "build": build,
            "build_number": 0,
            "constrains": ["cuda-version >=13,<14"],
            "depends": [
                *("__cuda >=13", "__glibc >=2.28,<3.0.a0", "libgcc >=13", "libstdcxx >=13"),
                *("python >=3.10", "pytorch >=2.13.0,<2.14.0a0", "pytorch 2.13.* cuda*"),
            ],
            "license": "Apache-2.0",
            "md5": _digest(name)[:32],
            "name": package,
            "sha256": _digest(name),
            "size": 300 << 20,
            "subdir": "linux-64",
            "timestamp": 1790000000000,
            "version": conda_version,
        }
        made.append(
            File(
                name=name,
                folder="channel/linux-64",
                sha256=_digest(name),
                size=300 << 20,
                version=version,
                commit=commit,
                record=record,
            )
        )
    return made


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def measure(root: Path, counts: Sequence[int], count: int, repeats: int) -> Iterator[Cost]:
    """Fills a place step by step, and measures one addition at each step."""
    # Each call has a project of its own, as each process has: nothing is known but what is stored.
    every = variants(count)
    day, added = 0, 0
    for wanted in counts:
        while day < wanted:
            record = Record(FolderStore(root))
            # The library's package of a CUDA is shared by its torches.
            files = {file.name: file for variant in every for file in files_of(variant, day)}
            record.add("publish", time=_TIME, files=tuple(files.values()))
            day += 1
        (root / ".site" / "memory.msgpack.zst").unlink(missing_ok=True)
        started = time.monotonic()
        _settle(root)
        whole = time.monotonic() - started
        times: list[tuple[float, float]] = []
        for _ in range(repeats):
            new = files_of(every[added % len(every)], 1000 + added)
            added += 1
            started, cpu = time.monotonic(), time.process_time()
            written = _add(root, new)
            times.append((time.monotonic() - started, time.process_time() - cpu))
        current = root / ".site" / "current"
        documents = [path for path in current.rglob("*") if path.is_file()]
        sizes = {
            path: (current / path).stat().st_size for path in written if (current / path).is_file()
        }
        yield Cost(
            variants=count,
            nightlies=wanted,
            files=len(Record(FolderStore(root)).files),
            documents=len(documents),
            whole_s=round(whole, 3),
            addition_s=round(statistics.median(wall for wall, _ in times), 3),
            addition_cpu_s=round(statistics.median(cpu for _, cpu in times), 3),
            written=len(written),
            written_bytes=sum(sizes.values()),
            everything_bytes=sum(size for path, size in sizes.items() if _lists_everything(path)),
        )


def _lists_everything(path: str) -> bool:
    return path.startswith(("channel/", "index/simple/", "index/nightly/flashinfer/"))


def _project() -> Project:
    return Project.load(ROOT / "pyproject.toml")


def _settle(root: Path) -> list[str]:
    project, store = _project(), FolderStore(root)
    return release.settle(release.opened(store, project), project)


def _add(root: Path, files: Sequence[File]) -> list[str]:
    project, store = _project(), FolderStore(root)
    record = release.opened(store, project)
    new = tuple(file for file in files if file.name not in record.files)
    assert record.add("publish", time=_TIME, files=new)
    return release.settle(record, project)


def table(costs: Sequence[Cost]) -> str:
    """The measurements, a size a line."""
    lines = ["variants  nightlies   files  documents  all anew  one more  written  MB  of all"]
    for cost in costs:
        lines.append(
            f"{cost.variants:8}  {cost.nightlies:9}  {cost.files:6}  {cost.documents:9}  "
            f"{cost.whole_s:6.2f} s  {cost.addition_s:6.2f} s  {cost.written:7}  "
            f"{cost.written_bytes / 1e6:.1f}  {cost.everything_bytes / 1e6:.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", type=int, default=100, metavar="V")
    parser.add_argument("--nightlies", type=int, nargs="+", default=[1, 10, 30], metavar="N")
    parser.add_argument("--repeats", type=int, default=_REPEATS, metavar="N", help="of an addition")
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "benchmarks/results/index_cost.json"
    )
    args = parser.parse_args()
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for cost in measure(Path(folder), sorted(args.nightlies), args.variants, args.repeats):
            costs.append(cost)
            print(table(costs[-1:]), flush=True)
    result = {
        "machine": machine.describe(),
        "load_average": os.getloadavg(),
        "repeats": args.repeats,
        "sizes": [asdict(cost) for cost in costs],
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
