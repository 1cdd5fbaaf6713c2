"""The bridge's time and memory, beside the two things that any bridge has to do.

Makes a package with a payload of 500 MB (most of it as compressible as machine code, some of it
not at all, as compressed GPU code is), then measures in turns: `scripts/bridge.py` in a process of
its own, and ``zstd -d`` of the same package followed by a deflate of its payload, in memory, with
the fastest library and level of those on PyPI. The target is a ratio of at most 1.3, and a peak
memory of at most 300 MB.

Example:
    python benchmarks/bridge.py --output benchmarks/results/bridge.json

The baseline writes nothing and the bridge syncs its wheel to the disk, so on a slow disk compare
with ``--folder /dev/shm``. On a busy machine look at the processor time.

It measures the deflate libraries that are installed: isal always, `pip install zlib-ng deflate` for
the others. ``--sample libflashinfer.so`` compares their speed and size on a real library as well.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from flashinfer_build import bootstrap

bootstrap.ensure(__file__)

from isal import isal_zlib

from conda_bridge.formats import conda_package
from conda_bridge.formats.conda_writer import PackageFile, write
from conda_bridge.formats.deflate_zip import LEVEL, PIECE
from conda_bridge.formats.zstd import zstd
from conda_bridge.system import atomic
from flashinfer_build.label import Label, Variant

MB = 1_000_000
Deflate = Callable[[bytes], int]


# ------------------------------------------------------------ the payload


def machine_code(rng: random.Random, size: int) -> bytes:
    """Bytes that deflate to about a third, as x86 code does: common phrases, random operands."""
    words = [rng.randbytes(rng.choice((1, 2, 3, 3, 4, 5, 7))) for _ in range(900)]
    word_weights = [1 / (rank + 4) for rank in range(len(words))]
    phrases = [
        b"".join(rng.choices(words, word_weights, k=rng.randrange(2, 9))) for _ in range(6000)
    ]
    phrase_weights = [1 / (rank + 8) for rank in range(len(phrases))]
    parts = []
    total = 0
    while total < size:
        for phrase in rng.choices(phrases, phrase_weights, k=1000):
            parts += [phrase, rng.randbytes(rng.choice((0, 1, 1, 2)))]
            total += len(parts[-1]) + len(phrase)
    return b"".join(parts)[:size]


def payload(size: int, incompressible: float, path: Path) -> None:
    """Writes the stand-in of ``libflashinfer.so``: code, tables of zeros, compressed GPU code."""
    rng = random.Random(20261122)
    base = machine_code(rng, 24 << 20)
    block = 256 << 10
    blocks = [base[start : start + block] for start in range(0, len(base), block)]
    with path.open("wb") as stream:
        while (left := size - stream.tell()) > 0:
            draw = rng.random()
            if draw < incompressible:
                data = rng.randbytes(block)
            elif draw < incompressible + 0.03:
                data = bytes(block)
            else:
                # Another place to begin every time, so that no long match spans two blocks.
                shift = rng.randrange(block)
                data = rng.choice(blocks)[shift:] + rng.choice(blocks)[:shift]
            stream.write(data[:left])


def make_packages(folder: Path, size: int, incompressible: float, level: int) -> Path:
    """A flashinfer package and its libflashinfer; returns the first."""
    label = Label(Variant((13, 0), (2, 13)), "0.1.6")
    library = folder / "libflashinfer.so"
    payload(size, incompressible, library)
    license_file = {"info/licenses/LICENSE": (ROOT / "LICENSE").read_bytes()}
    common = {"subdir": "linux-64", "license": "Apache-2.0", "version": label.conda_version}
    write(
        folder / label.lib_conda_file,
        index={"name": "libflashinfer", "build": label.lib_conda_build, "depends": [], **common},
        files=[
            PackageFile("lib/libflashinfer.so", library, 0o755),
            PackageFile("include/flashinfer/api.h", b"#pragma once\n"),
        ],
        info_files=license_file,
        level=level,
    )
    library.unlink()
    values = {
        "VERSION": label.wheel_version,
        "PUBLIC_VERSION": label.public_version,
        "VARIANT": label.variant.id,
        "TORCH": "2.13",
        "CUDA": "13.0.88",
        "CXX11_ABI": True,
        "COMMIT": "",
        "BUILD_NUMBER": 0,
        **label.requests,
    }
    build_info = "".join(f"{key} = {value!r}\n" for key, value in values.items()).encode()
    metadata = (
        f"Metadata-Version: 2.1\nName: flashinfer\nVersion: {label.wheel_version}\n"
        "Requires-Python: >=3.8\nRequires-Dist: torch==2.13.*\n"
    ).encode()
    info = f"site-packages/flashinfer-{label.wheel_version}.dist-info"
    write(
        folder / label.conda_file,
        index={
            "name": "flashinfer",
            "build": label.conda_build,
            "noarch": "python",
            "depends": [
                "python >=3.8",
                "pytorch 2.13.*",
                f"libflashinfer {label.conda_version} {label.lib_conda_build}",
            ],
            **common,
        },
        files=[
            PackageFile("site-packages/flashinfer/_build_info.py", build_info),
            PackageFile("site-packages/flashinfer/_C.abi3.so", b"\x7fELF" * 100_000, 0o755),
            PackageFile(f"{info}/METADATA", metadata),
        ],
        info_files=license_file,
        level=level,
    )
    return folder / label.conda_file


# ------------------------------------------------------------ what any bridge has to do


def in_pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def zlib_like(module: Any, level: int) -> Deflate:
    """A library with zlib's interface; one stream over all pieces, the bytes are dropped."""

    def run(data: bytes) -> int:
        deflater = module.compressobj(level, zlib.DEFLATED, -15)
        size = sum(len(deflater.compress(piece)) for piece in in_pieces(data))
        return size + len(deflater.flush())

    return run


def libdeflate(module: Any, level: int) -> Deflate:
    """libdeflate has no streams: every piece by itself."""
    return lambda data: sum(len(module.deflate_compress(piece, level)) for piece in in_pieces(data))


def deflaters() -> dict[str, Deflate]:
    """The libraries that are installed, at the levels that compete."""
    found: dict[str, Deflate] = {
        f"isal {level}": zlib_like(isal_zlib, level) for level in (0, 1, 2, 3)
    }
    try:
        zlib_ng = importlib.import_module("zlib_ng.zlib_ng")
        found |= {f"zlib-ng {level}": zlib_like(zlib_ng, level) for level in (1, 2, 6)}
    except ImportError:
        pass
    try:
        module = importlib.import_module("deflate")
        found |= {f"libdeflate {level}": libdeflate(module, level) for level in (1, 6)}
    except ImportError:
        pass
    return found | {f"zlib {level}": zlib_like(zlib, level) for level in (1, 6)}


def compare_deflaters(data: bytes, rounds: int) -> list[dict[str, object]]:
    """Size, and speed in processor time, of each library and level on the same bytes."""
    seconds: dict[str, list[float]] = {name: [] for name in deflaters()}
    sizes: dict[str, int] = {}
    for number in range(rounds):
        for name, run in deflaters().items():
            if number and seconds[name][0] > 20 * min(min(times) for times in seconds.values()):
                continue  # far from the fastest: once is enough
            started = time.process_time()
            sizes[name] = run(data)
            seconds[name].append(time.process_time() - started)
    return [
        {
            "deflate": name,
            "mb_per_cpu_s": round(len(data) / MB / statistics.median(times), 1),
            "ratio": round(sizes[name] / len(data), 4),
        }
        for name, times in seconds.items()
    ]


@dataclass(frozen=True)
class Timing:
    """Elapsed and processor seconds, children included."""

    seconds: float
    cpu_seconds: float


def timed(action: Callable[[], object]) -> Timing:
    before = os.times()
    started = time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    return Timing(seconds, sum(os.times()[:4]) - sum(before[:4]))


def decompress(archives: list[Path]) -> None:
    """``zstd -d`` of the packages' payload archives; the library where there is no program."""
    program = shutil.which("zstd")
    for archive in archives:
        with archive.open("rb") as stream:
            if program:
                command = [program, "-dcq"]
                subprocess.run(command, stdin=stream, stdout=subprocess.DEVNULL, check=True)
                continue
            with zstd.ZstdFile(stream) as decompressed:
                while decompressed.read(PIECE):
                    pass


# ------------------------------------------------------------ the bridge


@dataclass(frozen=True)
class Run:
    """One run of ``scripts/bridge.py``."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


# Starts the program from a small process: the peak that the kernel reports for a child begins with
# the memory of the process that it was forked from.
_STARTER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def run_bridge(package: Path, output: Path, threads: int) -> Run:
    """Runs the program in a process of its own; its start is part of the time."""
    shutil.rmtree(output, ignore_errors=True)
    # fmt: off
    command = [sys.executable, "-c", _STARTER, sys.executable, str(ROOT / "scripts/bridge.py"),
               str(package), "-o", str(output), "--threads", str(threads), "--json"]
    # fmt: on
    environ = {**os.environ, "FLASHINFER_NO_BOOTSTRAP": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    code, seconds, cpu_seconds, peak_mb = json.loads(done.stdout)
    if code:
        raise SystemExit(f"bridge.py ended with {code}:\n{done.stderr}")
    return Run(seconds, cpu_seconds, peak_mb)


def read_payload(package: Path) -> tuple[bytes, list[Path]]:
    """All bytes of both payloads, and the packages they come from."""
    label = Label.parse_conda_file(package.name)
    packages = [package, package.with_name(label.lib_conda_file)]
    parts = [member.read() for path in packages for member in conda_package.read(path).payload()]
    return b"".join(parts), packages


def unzip_archives(packages: list[Path], folder: Path) -> list[Path]:
    """The ``pkg-*.tar.zst`` of each package, as files."""
    archives = []
    for path in packages:
        with zipfile.ZipFile(path) as outer:
            [name] = [name for name in outer.namelist() if name.startswith("pkg-")]
            archives.append(Path(outer.extract(name, folder)))
    return archives


def measure(package: Path, work: Path, rounds: int, fastest: str) -> dict[str, object]:
    """The bridge and the two parts, in turns."""
    data, packages = read_payload(package)
    archives = unzip_archives(packages, work)
    deflate = deflaters()[fastest]
    cores = len(os.sched_getaffinity(0))
    zstds: list[Timing] = []
    deflates: list[Timing] = []
    runs: dict[int, list[Run]] = {threads: [] for threads in sorted({1, cores})}
    digests: set[tuple[int, int]] = set()
    for _ in range(rounds):
        zstds.append(timed(lambda: decompress(archives)))
        deflates.append(timed(lambda: deflate(data)))
        for threads, results in runs.items():
            results.append(run_bridge(package, work / "out", threads))
            [wheel] = (work / "out").iterdir()
            digests.add((wheel.stat().st_size, zlib.crc32(wheel.read_bytes())))
    if len(digests) != 1:
        raise SystemExit(f"the wheel's bytes differ between runs (size, CRC-32): {digests}")
    both = list(zip(zstds, deflates, strict=True))
    baseline = statistics.median(z.seconds + d.seconds for z, d in both)
    cpu_baseline = statistics.median(z.cpu_seconds + d.cpu_seconds for z, d in both)
    rows = []
    for threads, results in runs.items():
        seconds = statistics.median(run.seconds for run in results)
        cpu_seconds = statistics.median(run.cpu_seconds for run in results)
        row = {
            "threads": threads,
            "seconds": round(seconds, 2),
            "ratio": round(seconds / baseline, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "cpu_ratio": round(cpu_seconds / cpu_baseline, 2),
            "peak_mb": round(max(run.peak_mb for run in results), 1),
        }
        rows.append(row)
    return {
        "payload_mb": round(len(data) / MB, 1),
        "packages_mb": round(sum(path.stat().st_size for path in packages) / MB, 1),
        "wheel_mb": round(digests.pop()[0] / MB, 1),
        "fastest_deflate": fastest,
        "zstd_seconds": round(statistics.median(z.seconds for z in zstds), 2),
        "deflate_seconds": round(statistics.median(d.seconds for d in deflates), 2),
        "baseline_seconds": round(baseline, 2),
        "baseline_cpu_seconds": round(cpu_baseline, 2),
        "bridge": rows,
    }


# ------------------------------------------------------------ printing


def machine() -> dict[str, object]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    versions = {}
    for name in ("isal", "zlib-ng", "deflate", "backports.zstd"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "zstd_program": bool(shutil.which("zstd")),
        "versions": versions,
    }


def table(rows: list[dict[str, object]]) -> str:
    names = list(rows[0])
    lines = [names] + [[str(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mb", type=int, default=500, help="default: %(default)s")
    parser.add_argument(
        "--incompressible", type=float, default=0.25, help="share of the payload; %(default)s"
    )
    parser.add_argument(
        "--level", type=int, default=9, help="zstd level of the package; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--sample", type=Path, help="a library to compare deflate levels on too")
    parser.add_argument("--folder", type=Path, help="where the files go while it runs")
    parser.add_argument("--output", type=Path, help="also write the results here, as JSON")
    args = parser.parse_args()
    result: dict[str, Any] = {"schema": 1, "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="bridge-benchmark-", dir=args.folder) as folder:
        work = Path(folder)
        package = make_packages(work, args.size_mb * MB, args.incompressible, args.level)
        data, _ = read_payload(package)
        samples = {"payload": data[: 64 << 20]}
        if args.sample:
            samples[args.sample.name] = args.sample.read_bytes()[: 64 << 20]
        del data
        compared = {name: compare_deflaters(sample, 3) for name, sample in samples.items()}
        result["deflate"] = compared
        for name, rows in compared.items():
            print(
                f"\nDeflate of {len(samples[name]) >> 20} MiB of {name}"
                f" (the bridge uses isal {LEVEL}):"
            )
            print(table(rows))
        fastest = max(compared["payload"], key=lambda row: float(str(row["mb_per_cpu_s"])))
        measured: dict[str, Any] = {"zstd_level": args.level, "folder": str(args.folder or "")}
        measured |= measure(package, work, args.rounds, str(fastest["deflate"]))
    result["bridge"] = measured
    bridge_rows = measured.pop("bridge")
    print()
    for key, value in measured.items():
        print(f"{key:>18}  {value}")
    print(f"\nThe bridge, medians of {args.rounds} rounds; ratios are to the baseline above:")
    print(table(bridge_rows))
    measured["bridge"] = bridge_rows
    if args.output:
        atomic.write_text(args.output, json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
